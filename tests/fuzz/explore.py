"""Hypothesis in front of a watchdog: structures drawn by a strategy, a failing one made small."""

from fuzz.watchdog import Files, Watchdog
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis.strategies import SearchStrategy


def explore(watchdog: Watchdog, strategy: SearchStrategy[Files], cases: int) -> None:
    """Try that many cases of a strategy, the same ones for the same seed; fails with the smallest breach found."""

    @seeded(watchdog.tally.seed)
    @settings(max_examples=cases, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def case(files: Files) -> None:
        breach = watchdog.check(files)
        assert not breach, breach

    case()
