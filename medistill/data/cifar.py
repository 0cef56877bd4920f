"""CIFAR-10 in its official layout of pickled batches (Krizhevsky 2009).

A pickle can run any code, so these are read by an unpickler that builds bytes, numbers, lists, dicts and stand-ins
for numpy's arrays, and refuses whatever else a file asks for; numpy itself never sees a file's state.
"""

import hashlib
import math
import pickle
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medistill.data.benchmark import Benchmark
from medistill.errors import UserError

FOLDER = "cifar-10-batches-py"
META = "batches.meta"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
SIDE, CLASSES = 32, 10
LARGEST = 64 * 2**20  # bytes; an official batch has 31 million

# Statistics of the training images, which are public; published figures are made with them.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

NOT_OFFICIAL = "not the official files (a subset or another copy): figures are not comparable with published tables"
_AGAIN = "fetch the official python version of CIFAR-10 again"


def files(source: Path) -> list[Path]:
    """The seven files of the official layout in a folder `cifar-10-batches-py` or its parent.

    Raises:
        UserError: files that are missing.
    """
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    found = [folder / name for name in (META, *TRAIN, TEST)]
    missing = [path.name for path in found if not path.is_file()]
    if missing:
        raise UserError(
            f"{source.name}: no {', '.join(missing)} in it; let data.cohort name the unpacked folder {FOLDER} of the "
            "python version of CIFAR-10"
        )
    return found


def read(paths: list[Path], classes: Sequence[str]) -> Benchmark:
    """The images of the seven files, train batches first, without a validation split.

    Args:
        paths: what `files` returned.
        classes: empty, or the class names of batches.meta in their order.

    Raises:
        UserError: a file that is cut off, is no batch, or asks to run code; other class names.
    """
    contents = {path.name: _content(path) for path in paths}
    names = _class_names(contents[META])
    if classes and tuple(classes) != names:
        raise UserError(f"data.classes: CIFAR-10 has the classes {', '.join(names)}; leave data.classes out")
    batches = {name: _batch(name, contents[name]) for name in (*TRAIN, TEST)}
    counts = {name: len(labels) for name, (_, labels) in batches.items()}
    return Benchmark(
        images=np.concatenate([images for images, _ in batches.values()]),
        labels=np.concatenate([labels for _, labels in batches.values()]),
        split=np.array(["test" if name == TEST else "train" for name, n in counts.items() for _ in range(n)]),
        names=[f"{name} row {row}" for name, n in counts.items() for row in range(n)],
        classes=names,
        mean=MEAN,
        std=STD,
        notes=() if _official(contents) else (f"{paths[0].parent.name}: {NOT_OFFICIAL}",),
    )


class _Stand:
    """What a pickle builds in place of a numpy object: how it was called, and the state it was given."""

    def __init__(self, *made: Any) -> None:
        self.made = made
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _RefusedError(Exception):
    """A pickle asked for something that no batch needs; the text names it."""


class _Unpickler(pickle.Unpickler):
    """Reads protocol 2 as Python 2 and Python 3 write it; every name outside a short list is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """A harmless stand-in for a name that a pickled array of bytes consists of.

        Bound methods are handed out because a hostile pickle cannot set attributes on them.
        """
        known = {
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): self._stand,
            ("numpy.core.multiarray", "_reconstruct"): self._stand,
            ("numpy._core.multiarray", "_reconstruct"): self._stand,
            ("_codecs", "encode"): self._bytes,
        }
        if (module, name) not in known:
            raise _RefusedError(f"{module}.{name}"[:80])
        return known[module, name]

    def _stand(self, *made: Any) -> _Stand:
        return _Stand(*made)

    def _bytes(self, text: str, encoding: Any) -> bytes:
        """How Python 3 writes bytes in protocol 2."""
        if encoding not in ("latin1", b"latin1"):
            raise _RefusedError("an encoding other than latin1")
        return text.encode("latin1")


def _content(path: Path) -> bytes:
    """The bytes of a file that is not larger than any of the benchmark's."""
    if (size := path.stat().st_size) > LARGEST:
        raise UserError(f"{path.name}: {size} bytes, more than any file of CIFAR-10; {_AGAIN}")
    return path.read_bytes()


def _unpickle(name: str, content: bytes) -> dict[Any, Any]:
    """The dict in a pickle, built without running anything of the file's."""
    try:
        value = _Unpickler(BytesIO(content), encoding="bytes").load()
    except _RefusedError as error:
        raise UserError(f"{name}: asks for {str(error)!r}, which no CIFAR-10 file does; do not use it") from error
    except Exception as error:  # a damaged pickle can raise whatever its opcodes run into
        raise UserError(
            f"{name}: cut off or damaged ({len(content)} bytes, {type(error).__name__}), as an interrupted download "
            f"leaves it; {_AGAIN}"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{name}: holds a {type(value).__name__} where a dict belongs; {_AGAIN}")
    return value


def _class_names(content: bytes) -> tuple[str, ...]:
    """The class names in batches.meta."""
    names = _unpickle(META, content).get(b"label_names")
    if not (isinstance(names, list) and len(names) == CLASSES and all(isinstance(name, bytes) for name in names)):
        raise UserError(f"{META}: no list of {CLASSES} class names under label_names; {_AGAIN}")
    decoded = tuple(name.decode("ascii", "replace") for name in names)
    if len(set(decoded)) < CLASSES:
        raise UserError(f"{META}: names a class twice; {_AGAIN}")
    return decoded


def _batch(name: str, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 3, 32, 32) and labels (n,) of one batch."""
    batch = _unpickle(name, content)
    rows, labels = _array(batch.get(b"data")), batch.get(b"labels")
    if rows is None or rows.ndim != 2 or rows.shape[1] != 3 * SIDE * SIDE:
        raise UserError(f"{name}: no array of bytes (n, {3 * SIDE * SIDE}) under data; {_AGAIN}")
    if not isinstance(labels, list) or len(labels) != len(rows) or not rows.size:
        raise UserError(f"{name}: labels that do not go with its {len(rows)} images; {_AGAIN}")
    if not all(type(label) is int and 0 <= label < CLASSES for label in labels):
        raise UserError(f"{name}: a label that is not a number from 0 to {CLASSES - 1}; {_AGAIN}")
    return rows.reshape(-1, 3, SIDE, SIDE), np.array(labels, dtype=np.int64)


def _array(stand: Any) -> NDArray[np.uint8] | None:
    """The array of bytes that a stand-in describes, or None: numpy's state is (version, shape, dtype, order, bytes)."""
    try:
        _, shape, dtype, fortran, raw = stand.state
        if dtype.made[0] not in (b"u1", "u1") or len(raw) != math.prod(shape):
            return None
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError):
        return None


def _official(contents: dict[str, bytes]) -> bool:
    """Whether every file has the checksum that torchvision lists for it."""
    from torchvision.datasets import CIFAR10

    listed = dict([*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]])
    return all(hashlib.md5(contents[n], usedforsecurity=False).hexdigest() == md5 for n, md5 in listed.items())
