"""Films that were decoded, kept on disk as they come: a killed run goes on where it was, a film is decoded once.

A store is a folder with two files. `rows` has one image after another, float32, in the order in which they were
decoded; `journal` a JSON line for each chunk of them, written when its images are safe on the disk. A film is known by
a digest of its path, size and time of change, so that a changed one is read again and the journal names no file.
A file that could not be used is tried again each time. The folder may be deleted whenever no run is at work.
"""

import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from medistill.data.decode import Reading
from medistill.data.mask import blank_border
from medistill.errors import UserError
from medistill.files import digest_of

FORMAT = 1
"""Raised when the same file and settings come to give other pixels, so that older stores are read no more."""

LISTS = {"stamps": str, "sha256": str, "choices": dict}
"""What a line of the journal tells of each of its films, and of which kind it is."""

Decoder = Callable[[Sequence[Path]], Generator[tuple[range, list[Reading]], None, None]]


class Images(Protocol):
    """Images (N, C, H, W) float32 that may lie on disk: a tensor is one, and so are `Rows`."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, C, H, W)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """(B, C, H, W) of the images at these B indices."""


@dataclass(frozen=True)
class Rows:
    """Some of a store's films, in an order of their own; what is not asked for stays on the disk.

    Attributes:
        pixels: (films of the store, S, S) float32, mapped.
        slots: (N,) which of them.
        mask: share of each side that is made grey along the border.
    """

    pixels: NDArray[np.float32]
    slots: NDArray[np.int64]
    mask: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 1, S, S)."""
        return (len(self.slots), 1, *self.pixels.shape[1:])

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, index: Tensor) -> Tensor:
        """(B, 1, S, S) copies of the films at these B indices."""
        return blank_border(torch.from_numpy(self.pixels[self.slots[index.numpy()]])[:, None], self.mask)

    def keep(self, index: Sequence[int], mask: float) -> "Rows":
        """The films at these indices, with such a border."""
        return replace(self, slots=self.slots[np.asarray(index, dtype=np.int64)], mask=mask)


@dataclass(frozen=True)
class Stored:
    """The films of a list of paths, in its order.

    Attributes:
        images: the films; that of a bad file means nothing.
        choices: what the reader decided for each film (see `medistill.data.film.Film`); {} for a bad file.
        hashes: the SHA-256 of each film's pixels at full size; "" for a bad file.
        errors: index of a bad file -> one sentence: its name, what was found, what to do.
        fresh: films that were decoded for this list; the others were there.
    """

    images: Rows
    choices: list[dict[str, Any]]
    hashes: list[str]
    errors: dict[int, str]
    fresh: int

    @property
    def good(self) -> list[int]:
        """The indices of the films that could be decoded."""
        return [index for index in range(len(self.hashes)) if index not in self.errors]


@dataclass(frozen=True, slots=True)
class Entry:
    """One film of the journal: its place among the rows, the SHA-256 of its pixels at full size, what was decided."""

    slot: int
    sha256: str
    choices: dict[str, Any]


class FilmStore:
    """The store of one size and one set of rules; `FilmStore.open` is the way in.

    Attributes:
        folder: where it is.
        size: side of the images in pixels.
    """

    def __init__(self, folder: Path, size: int, rows: BinaryIO, journal: BinaryIO):
        self.folder, self.size = folder, size
        self._rows, self._journal = rows, journal
        self._entries: dict[str, Entry] = {}
        self._same: dict[str, dict[str, Any]] = {}
        self._slots = 0
        self._recall()

    @classmethod
    @contextmanager
    def open(cls, parent: Path, size: int, rules: dict[str, Any]) -> Iterator["FilmStore"]:
        """The store in this folder for images of `size` pixels by these JSON-able rules, for this process alone.

        Raises:
            UserError: another process is reading films into it.
        """
        folder = parent / f"films-{digest_of([FORMAT, size, rules])[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                for name in ("rows", "journal"):
                    (folder / name).touch()
                with (folder / "rows").open("r+b") as rows, (folder / "journal").open("r+b") as journal:
                    yield cls(folder, size, rows, journal)
        except Timeout as error:
            raise UserError(
                f"{folder.name}: another process is reading films into it; wait until it is done, or name another "
                "folder in `run`"
            ) from error

    def count(self, paths: Sequence[Path]) -> int:
        """How many of these files' films are here already."""
        return sum(stamp(path) in self._entries for path in paths)

    def read(self, paths: Sequence[Path], decode: Decoder, progress: Callable[[int], None]) -> Stored:
        """These films, of which `decode` reads those that are not here yet.

        Args:
            paths: files that exist.
            decode: yields the indices and the outcomes of a chunk of the paths it is given, in any order.
            progress: told how many films are there by now.
        """
        stamps = [stamp(path) for path in paths]
        absent = [index for index, key in enumerate(stamps) if key not in self._entries]
        errors: dict[int, str] = {}
        done = len(paths) - len(absent)
        with closing(decode([paths[index] for index in absent])) as chunks:
            for chunk, readings in chunks:
                which = [absent[number] for number in chunk]
                good = [(stamps[i], reading) for i, reading in zip(which, readings, strict=True) if not reading.error]
                errors |= {i: reading.error for i, reading in zip(which, readings, strict=True) if reading.error}
                if good:
                    self._add(good)
                done += len(chunk)
                progress(done)
        bad = Entry(0, "", {})
        entries = [bad if index in errors else self._entries[key] for index, key in enumerate(stamps)]
        slots = np.array([entry.slot for entry in entries], dtype=np.int64)
        choices, hashes = [entry.choices for entry in entries], [entry.sha256 for entry in entries]
        return Stored(Rows(self._pixels(), slots), choices, hashes, errors, len(absent) - len(errors))

    def _pixels(self) -> NDArray[np.float32]:
        """(films, S, S) all that is here, mapped."""
        shape = (self._slots, self.size, self.size)
        if not self._slots:  # an empty file cannot be mapped
            return np.zeros(shape, np.float32)
        return np.memmap(self.folder / "rows", np.float32, "r", shape=shape)

    def _add(self, films: list[tuple[str, Reading]]) -> None:
        """Append films: first their images, and when these are safe, the line that makes them count."""
        images = np.stack([reading.image for _, reading in films if reading.image is not None])  # (n, 1, S, S)
        line = {
            "slot": self._slots,
            "stamps": [key for key, _ in films],
            "sha256": [reading.sha256 for _, reading in films],
            "choices": [reading.choices for _, reading in films],
        }
        text = json.dumps(line)
        try:
            self._rows.seek(self._slots * images[0].nbytes)
            self._rows.write(images.data)
            _to_disk(self._rows)
            self._journal.write(f"{text}\n".encode())
            _to_disk(self._journal)
        except OSError as error:
            raise UserError(
                f"{self.folder.name}: the films cannot be kept ({error}); free some space and run the same command "
                "again, nothing that was read is lost"
            ) from error
        self._take(json.loads(text))  # as it will be read another time

    def _recall(self) -> None:
        """Take what the journal says as far as it is whole and its images are there; forget the rest."""
        images = (self.folder / "rows").stat().st_size // (4 * self.size**2)
        end = 0
        for line in self._journal:
            told = _record(line)
            if told is None or told["slot"] + len(told["stamps"]) > images:
                break
            self._take(told)
            end += len(line)
        self._journal.seek(end)
        self._journal.truncate()

    def _take(self, told: dict[str, Any]) -> None:
        """Enter the films of one line of the journal."""
        for number, (key, sha256, choices) in enumerate(
            zip(told["stamps"], told["sha256"], told["choices"], strict=True)
        ):
            # most films of a machine were decided alike: they share one dict
            same = self._same.setdefault(json.dumps(choices), choices)
            self._entries[key] = Entry(told["slot"] + number, sha256, same)
        self._slots = max(self._slots, told["slot"] + len(told["stamps"]))


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of one line of the journal, None where it is torn or is none."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not line.endswith(b"\n") or not isinstance(told, dict) or set(told) != {"slot", *LISTS}:
        return None
    slot, lists = told["slot"], [told[name] for name in LISTS]
    if type(slot) is not int or slot < 0 or not all(isinstance(one, list) for one in lists):
        return None
    alike = len({len(one) for one in lists}) == 1
    kinds = all(isinstance(value, kind) for name, kind in LISTS.items() for value in told[name])
    return told if alike and kinds else None


def stamp(path: Path) -> str:
    """A digest that changes when the file is another, changes its size or is written anew."""
    stat = path.stat()
    return hashlib.sha256(json.dumps([str(path), stat.st_size, stat.st_mtime_ns]).encode()).hexdigest()[:32]


def _to_disk(file: BinaryIO) -> None:
    """Have the system write what it holds of a file."""
    file.flush()
    os.fsync(file.fileno())
