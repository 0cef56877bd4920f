"""MedMNIST (Yang et al., Scientific Data 2023): one .npz with images and labels of three official splits."""

import hashlib
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medistill.data.benchmark import Benchmark, packed
from medistill.data.medmnist_md5 import PUBLISHED
from medistill.errors import UserError

SPLITS = ("train", "val", "test")
LARGEST = 2 * 2**30  # bytes of all arrays unpacked; as float32 they take four times that

# The normalisation that MedMNIST's own experiments use, for every set and channel.
MEAN, STD = 0.5, 0.5

NOT_PUBLISHED = (
    "none of the files that MedMNIST publishes at 28 and 64 px (a subset, another order or another copy): figures are "
    "not comparable with published tables"
)

_AGAIN = "fetch the file again from MedMNIST"


@dataclass(frozen=True)
class _Header:
    """Shape and type of a member, as its header tells them."""

    shape: tuple[int, ...]
    dtype: Any


def files(source: Path) -> list[Path]:
    """The .npz file itself.

    Raises:
        UserError: a folder, or a file that is no .npz.
    """
    if source.suffix != ".npz" and (archive := packed(source)):
        raise UserError(f"{archive.name}: still packed; unpack it, and let data.cohort name the .npz file")
    if not source.is_file():
        raise UserError(f"{source.name}: a folder; let data.cohort name the .npz file")
    if not zipfile.is_zipfile(source):
        raise UserError(f"{source.name}: not a whole .npz file, perhaps an interrupted download; {_AGAIN}")
    return [source]


def read(paths: list[Path], classes: Sequence[str]) -> Benchmark:
    """The images of a .npz file with their official split.

    Args:
        paths: what `files` returned.
        classes: a name for each label from 0, or empty: the numbers are the names.

    Raises:
        UserError: missing arrays, several labels an image, three-dimensional images, too much data, damaged arrays.
    """
    path = paths[0]
    _check(path.name, _headers(path))
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {f"{s}_{kind}": archive[f"{s}_{kind}"] for s in SPLITS for kind in ("images", "labels")}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path.name}: damaged ({type(error).__name__}); {_AGAIN}") from error
    counts = {split: len(arrays[f"{split}_images"]) for split in SPLITS}
    images = np.concatenate([arrays[f"{split}_images"] for split in SPLITS])
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    labels = np.concatenate([arrays[f"{split}_labels"] for split in SPLITS])[:, 0].astype(np.int64)
    channels = images.shape[1]
    return Benchmark(
        images=np.ascontiguousarray(images),
        labels=labels,
        split=np.array([split for split, count in counts.items() for _ in range(count)]),
        names=[f"{split}_images row {row}" for split, count in counts.items() for row in range(count)],
        classes=_class_names(path.name, labels, classes),
        mean=(MEAN,) * channels,
        std=(STD,) * channels,
        notes=() if _md5(path) in PUBLISHED else (f"{path.name}: {NOT_PUBLISHED}",),
    )


def _md5(path: Path) -> str:
    """The checksum of a file as MedMNIST lists it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _headers(path: Path) -> dict[str, _Header]:
    """The headers of all members; nothing is unpacked before sizes and shapes are known to be sane."""
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if (total := sum(member.file_size for member in members)) > LARGEST:
                raise UserError(f"{path.name}: {total} bytes unpacked, above {LARGEST}; use MedMNIST's 28 or 64 px")
            for member in members:
                with archive.open(member) as file:
                    version = npy.read_magic(file)
                    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, _, dtype = reader(file)
                    held = member.file_size - file.tell()
                if held != math.prod(shape) * dtype.itemsize:
                    raise ValueError("a header that does not fit its data")
                headers[member.filename.removesuffix(".npy")] = _Header(shape, dtype)
    except (ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path.name}: damaged ({type(error).__name__}); {_AGAIN}") from error
    return headers


def _check(name: str, headers: dict[str, _Header]) -> None:
    """Raise a UserError unless the six arrays are there and fit each other."""
    wanted = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
    if missing := [key for key in wanted if key not in headers]:
        raise UserError(f"{name}: no {', '.join(missing)} in it, so it is no file of MedMNIST; name one in data.cohort")
    sides = {headers[f"{split}_images"].shape[1:] for split in SPLITS}
    for split in SPLITS:
        images, labels = headers[f"{split}_images"], headers[f"{split}_labels"]
        flat = len(images.shape) == 3 or (len(images.shape) == 4 and images.shape[3] == 3)
        if not flat or images.shape[1] != images.shape[2] or images.dtype != np.uint8 or len(sides) > 1:
            raise UserError(
                f"{name}: {split}_images of shape {images.shape} and type {images.dtype}; only square images of bytes, "
                "(N, S, S) or (N, S, S, 3), are read: choose a 2D set of MedMNIST"
            )
        if len(labels.shape) == 2 and labels.shape[1] > 1:
            raise UserError(
                f"{name}: {labels.shape[1]} labels an image (a multi-label set); choose a set with one label an image"
            )
        if labels.shape != (images.shape[0], 1) or labels.dtype.kind not in "ui":
            raise UserError(
                f"{name}: {split}_labels of shape {labels.shape} and type {labels.dtype} do not go with "
                f"{images.shape[0]} images; {_AGAIN}"
            )


def _class_names(name: str, labels: NDArray[np.int64], classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the labels, which must run from 0 without a gap."""
    found = sorted(set(labels.tolist()))
    if found != list(range(len(found))) or len(found) < 2:
        raise UserError(f"{name}: {len(found)} labels that do not run from 0 without a gap; {_AGAIN}")
    if classes and len(classes) != len(found):
        raise UserError(f"data.classes names {len(classes)} classes, {name} has {len(found)} labels; name each once")
    return tuple(classes) or tuple(map(str, found))
