"""Decode films in worker processes with a time and a memory limit; a worker's death is that file's error."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool
from torch import Tensor

from medistill.data.film import MODALITIES, VIEWS, FilmError
from medistill.foreign import shown

if TYPE_CHECKING:
    from monai.transforms import Compose

CHUNK = 16  # films a task: one task a film would spend more on messages than on small films
AHEAD = 2  # tasks a worker that are under way or done and not yet fetched, so that memory does not grow with the films


@dataclass(frozen=True)
class Decoded:
    """The films of a list of paths, in its order; the row of a bad file is zero, and `errors` says why.

    Attributes:
        images: (N, 1, S, S) float32 in [0, 1].
        choices: what the reader decided for each film (see `medistill.data.film.Film`); {} for a bad file.
        hashes: the SHA-256 of each film's pixels at full size; "" for a bad file.
        errors: index of a bad file -> one sentence: its name, what was found, what to do.
    """

    images: Tensor
    choices: list[dict[str, Any]]
    hashes: list[str]
    errors: dict[int, str]

    @property
    def good(self) -> list[int]:
        """The indices of the films that could be decoded."""
        return [index for index in range(len(self.hashes)) if index not in self.errors]


@dataclass(frozen=True)
class Reading:
    """One file's outcome as it travels back from a worker: an image (1, S, S), or an error's text."""

    image: NDArray[np.float32] | None
    choices: dict[str, Any]
    sha256: str
    error: str


def decode(
    paths: Sequence[Path],
    size: int,
    *,
    modalities: Sequence[str] = MODALITIES,
    views: Sequence[str] = VIEWS,
    workers: int = 2,
    seconds: float = 30,
    memory_gib: float = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """Decode files to images of `size` pixels a side, all in memory; the result does not depend on the workers.

    Args:
        paths: as in `stream`, and so are the other settings.
        size: the side of an image in pixels.
        modalities: accepted values of Modality.
        views: accepted values of View Position.
        workers: the number of processes.
        seconds: the time one film may take.
        memory_gib: the memory one worker may take for films, in GiB.
        progress: called with (files done, files in all) as results come in.
    """
    readings: dict[int, Reading] = {}
    settings = {"modalities": modalities, "views": views}
    with closing(stream(paths, size, workers=workers, seconds=seconds, memory_gib=memory_gib, **settings)) as chunks:
        for chunk, read in chunks:
            readings.update(zip(chunk, read, strict=True))
            if progress is not None:
                progress(len(readings), len(paths))
    return _gather([readings[index] for index in range(len(paths))], size)


def stream(
    paths: Sequence[Path],
    size: int,
    *,
    modalities: Sequence[str] = MODALITIES,
    views: Sequence[str] = VIEWS,
    workers: int = 2,
    seconds: float = 30,
    memory_gib: float = 4,
) -> Generator[tuple[range, list[Reading]], None, None]:
    """Decode files and yield a few at a time, as they are done: their indices and what came of each.

    Args:
        paths: DICOM, PNG, JPEG or WebP files.
        size: the side of an image in pixels.
        modalities: accepted values of Modality.
        views: accepted values of View Position; "" accepts files that name none.
        workers: the number of processes.
        seconds: the time one film may take.
        memory_gib: the memory one worker may take for films, in GiB (no limit on Windows).
    """
    if not paths:
        return
    task = partial(read_chunk, size=size, modalities=tuple(modalities), views=tuple(views))
    every = range(len(paths))
    waiting = deque(every[start : start + CHUNK] for start in every[::CHUNK])
    under_way: dict[Future[list[Reading]], range] = {}
    with _undisturbed():
        context = worker_context()
    pool = ProcessPool(workers, context=context, initializer=start_worker, initargs=(memory_gib,))
    try:
        while waiting or under_way:
            while waiting and len(under_way) < AHEAD * workers:
                chunk = waiting.popleft()
                under_way[pool.schedule(task, args=([paths[i] for i in chunk],), timeout=seconds)] = chunk
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                chunk = under_way.pop(future)
                reason = _lost(future, seconds)
                if not reason:
                    yield chunk, future.result()
                elif len(chunk) > 1:
                    # a lost worker takes its whole chunk along: read each of those films again, alone
                    waiting.extend(range(index, index + 1) for index in chunk)
                else:
                    text = f"{shown(paths[chunk[0]].name)}: {reason}; leave the file out or export it again"
                    yield chunk, [Reading(None, {}, "", text)]
    finally:
        pool.stop()
        pool.join()


def _lost(future: "Future[list[Reading]]", seconds: float) -> str:
    """Why a task that ended has no result, or ""."""
    try:
        future.result()
    except TimeoutError:
        return f"decoding took longer than {seconds:g} s"
    except ProcessExpired as error:
        return f"the decoder crashed (exit code {error.exitcode})"
    except MemoryError:
        return "decoding needs more memory than is allowed"
    return ""


def _gather(readings: list[Reading], size: int) -> Decoded:
    """Readings in order as one Decoded."""
    images = torch.zeros(len(readings), 1, size, size)
    errors = {}
    for index, reading in enumerate(readings):
        if reading.image is None:
            errors[index] = reading.error
        else:
            images[index] = torch.from_numpy(reading.image)
    choices = [reading.choices for reading in readings]
    return Decoded(images, choices, [reading.sha256 for reading in readings], errors)


def worker_context() -> multiprocessing.context.BaseContext:
    """A start method that imports MONAI once, before the first worker, where the system offers one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medistill.data.transforms"])
    forkserver.ensure_running()
    return context


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Processes started here never see Ctrl-C and write nothing on the terminal; a Ctrl-C meant for us comes after.

    What goes wrong in them comes back as a value; a library's own warning may name a patient.
    """
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with _ctrl_c_later():
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Keep Ctrl-C for afterwards, and from processes started inside.

    They inherit the blocked signal; this process notes it by a handler, as any of its threads may be given it.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def start_worker(memory_gib: float) -> None:
    """Prepare a worker: imports outside any film's time limit, one thread, and the memory limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # what was imported before is shared with the others; to look through it for garbage would copy it
    gc.freeze()
    import medistill.data.transforms  # noqa: F401

    torch.set_num_threads(1)
    if sys.platform == "win32":
        return
    import resource

    held = 0
    if Path("/proc/self/statm").exists():
        # address space that libraries have mapped already does not count against the films
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def read_chunk(
    paths: Sequence[Path], *, size: int, modalities: tuple[str, ...], views: tuple[str, ...]
) -> list[Reading]:
    """Read films one after another inside a worker; a bad one becomes an error text."""
    transform = _transform(size, modalities, views)
    readings = []
    for path in paths:
        try:
            film = transform(path)
        except RuntimeError as error:
            readings.append(Reading(None, {}, "", _told(path, error)))
        else:
            readings.append(Reading(film.image.numpy(), film.choices, film.sha256, ""))
    return readings


@cache
def _transform(size: int, modalities: tuple[str, ...], views: tuple[str, ...]) -> "Compose":
    """The worker's transform, built once: MONAI probes all its readers each time."""
    from medistill.data.transforms import film_transform

    return film_transform(size, modalities=modalities, views=views)


def _told(path: Path, error: RuntimeError) -> str:
    """What went wrong in a Compose, which wraps the reader's FilmError, as one sentence."""
    if isinstance(error.__cause__, FilmError):
        return str(error.__cause__)
    if isinstance(error.__cause__, MemoryError):
        return f"{shown(path.name)}: needs more memory than is allowed; leave the file out or raise the memory limit"
    cause = shown(error.__cause__ or error, 120)
    return f"{shown(path.name)}: decoded, but not brought to size ({cause}); leave the file out"
