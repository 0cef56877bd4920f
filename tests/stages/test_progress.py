"""How far a stage is, told to who reads a log."""

import pytest

from medistill.resources import Used
from medistill.stages.progress import Progress, cost, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40, "40 s"), (60, "1 min"), (719, "12 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min"), (190800, "2 d 5 h")],
)
def test_a_duration_as_a_person_says_it(seconds, said):
    assert duration(seconds) == said


def test_a_log_gets_a_line_a_minute_with_the_time_left():
    now, said = [1000.0], []
    with Progress(5000, "distill", "it", 100, said.append, clock=lambda: now[0]) as progress:
        for _ in range(20):
            now[0] += 24.6
            progress.update(note="loss 0.51")
    # 20 iterations in 492 s: a line at the first one 60 s or more after the last line
    assert len(said) == 492 // 73.8
    # the iterations before this start do not count: 24.6 s each, 4897 left
    assert said[0] == "distill: 103 of 5000, loss 0.51, about 33 h 28 min left"
    assert said[-1].startswith("distill: 118 of 5000")


def test_a_silent_one_counts_and_says_nothing():
    now, said = [0.0], []
    with Progress(10, "experts", "epoch", 0, said.append, shown=False, clock=lambda: now[0]) as progress:
        now[0] = 100
        progress.update(4)
    assert progress.n == 4 and said == []


def test_an_estimate_is_said_and_its_making_counts_as_no_work():
    now, said = [0.0], []
    with Progress(10, "experts", "epoch", 0, said.append, clock=lambda: now[0]) as progress:
        now[0] = 500.0
        progress.estimate("experts: 2 to train")(Used(719, 1_230_000_000))
        now[0] = 600.0
        progress.update(5)
    assert said == ["experts: 2 to train, about 12 min and 1.2 GB of memory", "experts: 5 of 10, about 2 min left"]


@pytest.mark.parametrize(("held", "said"), [(None, "40 s"), (0, "40 s"), (71_600_000, "40 s and 72 MB of memory")])
def test_memory_that_is_unknown_is_not_said(held, said):
    assert cost(40, held) == said
