"""A watchdog over one door: each case runs in a worker process, within limits of time and memory, and is counted.

A case is the files of one folder. A door's judge is called with that folder: it tries the door, raises an
AssertionError where the door breaks its law, and says otherwise whether the door `returned` or `refused`.
"""

import faulthandler
import gc
import io
import logging
import multiprocessing
import os
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pebble import ProcessExpired, ProcessPool

Files = dict[str, bytes]
Judge = Callable[[Path], str]

SECONDS = 10
GIB = 2**30
ADDRESS_SPACE = 4 * GIB  # as `medistill.data.decode.decode` gives its workers
KEPT = Path(__file__).resolve().parents[2] / "build" / "fuzz"
SHOWN = 30  # breaches that are spelt out
KIND = 40  # breaches that begin alike are of one kind


@dataclass(frozen=True)
class Attempt:
    """What one case came to: outcome, breach ("" when the law was kept), seconds, and bytes of memory."""

    outcome: str
    breach: str
    seconds: float
    peak: int  # resident at most during the case, above what was resident before it
    resident: int


@dataclass
class Tally:
    """What the cases of a door came to."""

    door: str
    seed: int
    cases: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    peak: int = 0
    first: int = 0  # resident bytes after the first case of the worker
    grown: int = 0
    breaches: dict[str, Path] = field(default_factory=dict)

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return (
            f"{self.door}, seed {self.seed}: {self.cases:,} cases, {outcomes}; slowest {self.slowest:.2f} s, "
            f"a case took {self.peak / 2**20:.0f} MiB at most, all of them left {self.grown / 2**20:.0f} MiB"
        )


TALLIES: list[Tally] = []


class Watchdog:
    """A door's worker and the tally of its cases."""

    def __init__(self, door: str, seed: int, judge: Judge, after_death: Judge | None = None) -> None:
        """`after_death` judges in this process a case at which the worker died; without one that is a breach."""
        self.tally, self.after_death = Tally(door, seed), after_death
        TALLIES.append(self.tally)
        context = multiprocessing.get_context("fork")  # so that the judge and its imports are there
        self.pool = ProcessPool(1, context=context, initializer=_prepare, initargs=(judge,))

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.stop()
        self.pool.join()

    def check(self, files: Files) -> str:
        """Try one case; the breach of the law, with the command that tries it again, or ""."""
        tally = self.tally
        tried = self._try(files)
        if tried.outcome == "hung":  # a machine that others keep busy is slow once, a hang hangs again
            tried = self._try(files)
        breach = tried.breach
        tally.first = tally.first or tried.resident
        tally.grown = max(tally.grown, tried.resident - tally.first)
        if not breach and max(tried.peak, tally.grown) > GIB:
            breach = f"resident memory: {tried.peak / GIB:.2f} GiB in the case, {tally.grown / GIB:.2f} GiB over all"
        tally.cases += 1
        tally.outcomes[tried.outcome] = tally.outcomes.get(tried.outcome, 0) + 1
        tally.slowest, tally.peak = max(tally.slowest, tried.seconds), max(tally.peak, tried.peak)
        return self._keep(files, breach) if breach else ""

    def _try(self, files: Files) -> Attempt:
        """Try one case in the worker, which is killed when its time is over."""
        try:
            attempt: Attempt = self.pool.schedule(_attempt, args=(files,), timeout=SECONDS).result()
        except TimeoutError:
            return Attempt("hung", f"took longer than {SECONDS} s", SECONDS, 0, 0)
        except ProcessExpired as error:
            return self._died(files, error.exitcode)
        return attempt

    def _died(self, files: Files, code: int) -> Attempt:
        """What a case came to that ended the worker."""
        if self.after_death is None:
            return Attempt("died", f"the worker died with exit code {code}", 0, 0, 0)
        with TemporaryDirectory(prefix="medistill-fuzz-") as name:
            write(Path(name), files)
            try:
                return Attempt(self.after_death(Path(name)), "", 0, 0, 0)
            except AssertionError as error:
                return Attempt("died", f"the worker died with exit code {code}: {error}", 0, 0, 0)

    def _keep(self, files: Files, breach: str) -> str:
        """Keep the files of a breach, one of its kind, and say how it is tried again."""
        kind = breach[:KIND]
        if kind not in self.tally.breaches:
            folder = KEPT / f"{self.tally.door}-{self.tally.seed}-{self.tally.cases}"
            shutil.rmtree(folder, ignore_errors=True)
            write(folder, files)
            self.tally.breaches[kind] = folder
        folder = self.tally.breaches[kind]
        again = f"MEDISTILL_FUZZ_AGAIN={folder} python -m pytest tests/fuzz/test_{self.tally.door}.py"
        return f"{breach}\n  again: {again}"

    def check_all(self, cases: Iterator[Files]) -> None:
        """Try cases to the end, then fail with the first breaches, one of each kind."""
        found: dict[str, str] = {}
        for files in cases:
            breach = self.check(files)
            if breach:
                found.setdefault(breach[:KIND], breach)
        assert not found, f"{len(found)} kinds of breach\n" + "\n".join(list(found.values())[:SHOWN])


def write(folder: Path, files: Files) -> None:
    """Write a case's files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


_judge: Judge


def _prepare(judge: Judge) -> None:
    """Make this process a worker: its limit on memory, and nothing of pytest's between it and its stderr."""
    global _judge
    _judge = judge
    torch.set_num_threads(1)
    faulthandler.disable()
    logging.getLogger().handlers.clear()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESS_SPACE, hard))


def _attempt(files: Files) -> Attempt:
    """One case in the worker."""
    with TemporaryDirectory(prefix="medistill-fuzz-") as name:
        write(Path(name), files)
        before = _reset_peak()
        with _stderr() as told:
            started = time.perf_counter()
            outcome, breach = _judged(Path(name))
            seconds = time.perf_counter() - started
            noise = told.getvalue()
        if noise and not breach:
            breach = f"stderr: {noise[:300]!r}"
    peak = _status("VmHWM") - before
    if peak > GIB // 8:
        gc.collect()
    return Attempt(outcome if not breach else "breach", breach, seconds, peak, _status("VmRSS"))


def _judged(folder: Path) -> tuple[str, str]:
    """The outcome of a case and its breach."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            outcome, breach = _judge(folder), ""
        except AssertionError as error:
            outcome, breach = "breach", str(error) or traceback.format_exc(limit=-3)
        except BaseException as error:
            outcome, breach = "breach", f"{type(error).__name__} escaped: {traceback.format_exc(limit=-4)}"
    if warned and not breach:
        breach = f"a warning: {warned[0].message}"
    return outcome, breach


@contextmanager
def _stderr() -> Iterator[io.StringIO]:
    """Catch what Python writes to stderr; what libraries in C write there is dropped, as `decode` does."""
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with redirect_stderr(io.StringIO()) as told:
            yield told
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def _reset_peak() -> int:
    """Forget the highest resident size so far; the resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """A size in bytes that Linux tells of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
