"""How far a stage is and how long it still takes: a bar on a terminal, a line a minute in a log."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from medistill.resources import Used

EVERY = 60.0
"""Seconds between two lines of a log."""


class Progress:
    """Steps of a stage, counted.

    Attributes:
        n: steps done.

    Args:
        total: steps in all.
        name: what is done.
        unit: a step.
        start: steps that were done before.
        say: where a line goes when no terminal watches.
        shown: whether to show anything at all.
        clock: seconds.
    """

    def __init__(
        self,
        total: int,
        name: str,
        unit: str,
        start: int,
        say: Callable[[str], None],
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.n = start
        self._total, self._name, self._start, self._say, self._clock = total, name, start, say, clock
        self._terminal = sys.stderr.isatty()
        self._shown = shown
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=name,
            unit=unit,
            disable=not (shown and self._terminal),
            file=sys.stderr,
        )
        self._began = self._said = clock()

    def update(self, steps: int = 1, note: str = "") -> None:
        """So many more steps are done; the note stands beside their number."""
        self.n += steps
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(steps)
        now = self._clock()
        if not self._shown or self._terminal or now - self._said < EVERY or self.n == self._start:
            return
        self._said = now
        left = (now - self._began) / (self.n - self._start) * (self._total - self.n)
        parts = [f"{self._name}: {self.n} of {self._total}", note, f"about {duration(left)} left"]
        self._say(", ".join(part for part in parts if part))

    def estimate(self, what: str) -> Callable[[Used], None]:
        """A function that says what will be done and what it will take, above the bar."""

        def told(used: Used) -> None:
            self._began = self._said = self._clock()  # finding it out is no work
            self._bar.clear()
            self._say(f"{what}, about {cost(used.seconds, used.bytes)}")
            self._bar.refresh()

        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def cost(seconds: float, held: int | None) -> str:
    """Time and memory as a person says them: `12 min and 1.2 GB of memory`, `40 s and 70 MB of memory`."""
    if not held:  # unknown, or no more than what earlier work left to this process
        return duration(seconds)
    memory = f"{held / 1e9:.1f} GB" if held >= 1e9 else f"{held / 1e6:.0f} MB"
    return f"{duration(seconds)} and {memory} of memory"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `40 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
