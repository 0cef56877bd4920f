"""Checkpoints: every few minutes, and at once when the run is stopped."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from medistill import kernels
from medistill.cli import configure
from medistill.distill import iadd
from medistill.distill.state import State
from medistill.stages import distill as stage
from medistill.stages.distill import distill
from medistill.stages.experts import experts
from medistill.stages.session import Session

OPTIONS = ("--track", "false", "--distill.iterations", "12")


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A run whose experts are trained."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    experts(session(tiny, folder))
    return folder


def session(tiny, folder, *more):
    return Session(configure("run", tiny.options(folder, *OPTIONS, *more)), lambda line: None)


@pytest.fixture
def saved(monkeypatch):
    """The iterations at which a checkpoint was written."""
    saved, save = [], stage.save_checkpoint

    def counted(path, state, key):
        saved.append(len(state["history"]))
        save(path, state, key)

    monkeypatch.setattr(stage, "save_checkpoint", counted)
    return saved


def stop_in(iteration, monkeypatch):
    """Ctrl-C once, in the middle of that iteration."""
    step, calls = iadd.importance.step, []

    def stopped(*arguments, **named):
        calls.append(1)
        if len(calls) == iteration:
            raise KeyboardInterrupt
        return step(*arguments, **named)

    monkeypatch.setattr(iadd.importance, "step", stopped)


@pytest.mark.parametrize(("minutes", "seed", "written"), [("0", "1", [*range(1, 13), 12]), ("60", "2", [12])])
def test_minutes_decide_how_often(tiny, folder, saved, minutes, seed, written):
    distill(session(tiny, folder, "--distill.checkpoint_minutes", minutes, "--distill.seed", seed))
    assert saved == written


def test_stopped_in_the_middle_of_a_step_the_last_whole_iteration_is_kept(tiny, folder, saved, monkeypatch):
    """The step on the pixels is taken when the signal comes, that on W is not: such a state must not be saved."""
    whole = session(tiny, folder, "--distill.seed", "3", "--distill.checkpoint_minutes", "60")
    stop_in(7, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distill(whole)
    assert saved == [6]
    checkpoint = next(path for path in folder.glob("distill-*/checkpoint.safetensors") if not done(path))
    # the minutes between checkpoints decide nothing: the same work goes on
    distill(session(tiny, folder, "--distill.seed", "3", "--distill.checkpoint_minutes", "0"))
    assert saved == [6, *range(7, 13), 12]
    resumed = load_file(checkpoint)
    checkpoint.unlink()
    (checkpoint.parent / "done.json").unlink()
    distill(whole)
    again = load_file(checkpoint)
    assert all((again[name] == resumed[name]).all() for name in again)


def done(path):
    return (path.parent / "done.json").exists()


def test_options_win_over_what_a_checkpoint_remembers_and_it_is_said(tiny, folder, monkeypatch):
    """Begun with two threads and compiled, gone on with one and `compile: never`."""
    begun, said = [], []
    begin = State.begin

    def compiled(*arguments, **named):
        torch.set_num_threads(2)
        begun.append(begin(*arguments, **named))
        begun[0].compiled.fill_(True)
        return begun[0]

    words = ("--distill.seed", "4")
    monkeypatch.setattr(kernels, "_compile", lambda net, function, *_: partial(function, net))
    monkeypatch.setattr(kernels, "COMPILER", kernels.Compiler())
    monkeypatch.setattr(State, "begin", compiled)
    stop_in(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        distill(session(tiny, folder, *words))
    again = configure("run", tiny.options(folder, *OPTIONS, *words, "--compile", "never"))
    distill(Session(again, said.append))
    assert "note: begun with threads 2, goes on with 1: the same to rounding, not in bytes" in said
    assert "note: begun compiled, goes on without: the same to rounding, not in bytes" in said
    assert any("10 iterations of" in line and "compiled" not in line for line in said)
