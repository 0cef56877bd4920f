"""CIFAR-10 and CIFAR-100 in their official layouts of pickled batches (Krizhevsky 2009)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medistill.data.benchmark import NOT_OFFICIAL, Benchmark, packed
from medistill.data.pickled import RefusedError, byte_array, unpickle
from medistill.errors import UserError

SIDE = 32


@dataclass(frozen=True)
class Layout:
    """What tells the two sets apart.

    Attributes:
        title: the set's name in messages.
        torchvision: the name of torchvision's class, which lists the official checksums.
        folder: the folder that the official archive unpacks to.
        meta: the file of class names.
        names: the key of the class names in it.
        train: the files of the training images.
        test: the file of the test images.
        labels: the key of the labels in these.
        classes: how many classes there are.
        largest: bytes that no official file reaches.
        mean: statistics of the official training images, which are public; published figures are made with them.
        std: likewise.
    """

    title: str
    torchvision: str
    folder: str
    meta: str
    names: bytes
    train: tuple[str, ...]
    test: str
    labels: bytes
    classes: int
    largest: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def again(self) -> str:
        """What to do about a damaged file."""
        return f"fetch the official python version of {self.title} again"


CIFAR10 = Layout(
    title="CIFAR-10",
    torchvision="CIFAR10",
    folder="cifar-10-batches-py",
    meta="batches.meta",
    names=b"label_names",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    labels=b"labels",
    classes=10,
    largest=64 * 2**20,  # an official batch has 31 million
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = Layout(
    title="CIFAR-100",
    torchvision="CIFAR100",
    folder="cifar-100-python",
    meta="meta",
    names=b"fine_label_names",
    train=("train",),
    test="test",
    labels=b"fine_labels",
    classes=100,
    largest=256 * 2**20,  # the official train has 155 million
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def files(source: Path, layout: Layout) -> list[Path]:
    """The files of the official layout, class names first, in its folder or the folder's parent.

    Raises:
        UserError: files that are missing, or an archive that is still packed.
    """
    folder = source / layout.folder if (source / layout.folder).is_dir() else source
    found = [folder / name for name in (layout.meta, *layout.train, layout.test)]
    missing = [path.name for path in found if not path.is_file()]
    if missing and (archive := packed(folder)):
        raise UserError(f"{archive.name}: still packed; unpack it, and let data.cohort name the folder {layout.folder}")
    if missing:
        raise UserError(
            f"{source.name}: no {', '.join(missing)} in it; let data.cohort name the unpacked folder {layout.folder} "
            f"of the python version of {layout.title}"
        )
    return found


def read(paths: list[Path], classes: Sequence[str], layout: Layout) -> Benchmark:
    """The images of the files, train first, without a validation split.

    Args:
        paths: what `files` returned.
        classes: empty, or the class names of the layout's meta file in their order.
        layout: which of the two sets.

    Raises:
        UserError: a file that is cut off, is no batch, or asks to run code; other class names.
    """
    contents = {path.name: _content(path, layout) for path in paths}
    names = _class_names(contents[layout.meta], layout)
    if classes and tuple(classes) != names:
        raise UserError(f"data.classes: {layout.title} has the classes {', '.join(names)}; leave data.classes out")
    batches = {name: _batch(name, contents[name], layout) for name in (*layout.train, layout.test)}
    counts = {name: len(labels) for name, (_, labels) in batches.items()}
    digests = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in contents.items()}
    return Benchmark(
        images=np.concatenate([images for images, _ in batches.values()]),
        labels=np.concatenate([labels for _, labels in batches.values()]),
        split=np.array(["test" if name == layout.test else "train" for name, n in counts.items() for _ in range(n)]),
        names=[f"{name} row {row}" for name, n in counts.items() for row in range(n)],
        classes=names,
        mean=layout.mean,
        std=layout.std,
        notes=() if digests == checksums(layout) else (f"{paths[0].parent.name}: {NOT_OFFICIAL}",),
    )


def checksums(layout: Layout) -> dict[str, str]:
    """The MD5 that torchvision lists for each official file."""
    import torchvision.datasets

    published = getattr(torchvision.datasets, layout.torchvision)
    meta = [published.meta["filename"], published.meta["md5"]]
    return dict([*published.train_list, *published.test_list, meta])


def _content(path: Path, layout: Layout) -> bytes:
    """The bytes of a file that is not larger than any of the benchmark's."""
    if (size := path.stat().st_size) > layout.largest:
        raise UserError(f"{path.name}: {size} bytes, more than any file of {layout.title}; {layout.again}")
    return path.read_bytes()


def _unpickle(name: str, content: bytes, layout: Layout) -> dict[Any, Any]:
    """The dict in a pickle."""
    try:
        value = unpickle(content)
    except RefusedError as error:
        raise UserError(f"{name}: asks for {str(error)!r}, which no {layout.title} file does; do not use it") from error
    except Exception as error:  # a damaged pickle can raise whatever its opcodes run into
        raise UserError(
            f"{name}: cut off or damaged ({len(content)} bytes, {type(error).__name__}), as an interrupted download "
            f"leaves it; {layout.again}"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{name}: holds a {type(value).__name__} where a dict belongs; {layout.again}")
    return value


def _class_names(content: bytes, layout: Layout) -> tuple[str, ...]:
    """The class names in the meta file."""
    names = _unpickle(layout.meta, content, layout).get(layout.names)
    if not (
        isinstance(names, list) and len(names) == layout.classes and all(isinstance(name, bytes) for name in names)
    ):
        raise UserError(
            f"{layout.meta}: no list of {layout.classes} class names under {layout.names.decode()}; {layout.again}"
        )
    decoded = tuple(name.decode("ascii", "replace") for name in names)
    if len(set(decoded)) < layout.classes:
        raise UserError(f"{layout.meta}: names a class twice; {layout.again}")
    return decoded


def _batch(name: str, content: bytes, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 3, 32, 32) and labels (n,) of one batch."""
    batch = _unpickle(name, content, layout)
    rows, labels = byte_array(batch.get(b"data")), batch.get(layout.labels)
    if rows is None or rows.ndim != 2 or rows.shape[1] != 3 * SIDE * SIDE:
        raise UserError(f"{name}: no array of bytes (n, {3 * SIDE * SIDE}) under data; {layout.again}")
    if not isinstance(labels, list) or len(labels) != len(rows) or not rows.size:
        raise UserError(f"{name}: labels that do not go with its {len(rows)} images; {layout.again}")
    if not all(type(label) is int and 0 <= label < layout.classes for label in labels):
        raise UserError(f"{name}: a label that is not a number from 0 to {layout.classes - 1}; {layout.again}")
    return rows.reshape(-1, 3, SIDE, SIDE), np.array(labels, dtype=np.int64)
