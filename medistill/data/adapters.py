"""The public benchmarks by the name that `data.adapter` gives them; a new one is a file here and a line below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medistill.data import cifar, image_folder, medmnist, tiny_imagenet
from medistill.data.benchmark import Benchmark
from medistill.data.download import fetch

Read = Callable[[list[Path], Sequence[str]], Benchmark]


@dataclass(frozen=True)
class Adapter:
    """How a benchmark is read.

    Attributes:
        files: from what `data.cohort` names to the files that hold the data; a UserError where they are missing.
        read: from these files, `data.classes` (empty: the benchmark's own) and `data.size` to their content; a
            UserError for files that hold something else.
        fetch: puts the official files at a path where there is nothing yet; a UserError where that fails. None where
            torchvision has no download.
        home: where a person finds the files.
    """

    files: Callable[[Path], list[Path]]
    read: Callable[[list[Path], Sequence[str], int], Benchmark]
    fetch: Callable[[Path], None] | None = None
    home: str = ""


def _of_one_side(read: Read) -> Callable[[list[Path], Sequence[str], int], Benchmark]:
    """A benchmark whose images have the side they have: `data.size` is compared with it later."""
    return lambda paths, classes, size: read(paths, classes)


def _cifar(layout: cifar.Layout) -> Adapter:
    """One of the two CIFARs."""
    return Adapter(
        files=partial(cifar.files, layout=layout),
        read=_of_one_side(partial(cifar.read, layout=layout)),
        fetch=partial(fetch, layout=layout),
        home="A. Krizhevsky's CIFAR page (University of Toronto)",
    )


ADAPTERS = {
    "cifar10": _cifar(cifar.CIFAR10),
    "cifar100": _cifar(cifar.CIFAR100),
    "tiny_imagenet": Adapter(
        tiny_imagenet.files,
        _of_one_side(tiny_imagenet.read),
        home="its project page (CS231n of Stanford University)",
    ),
    "medmnist": Adapter(medmnist.files, _of_one_side(medmnist.read), home="the MedMNIST project page"),
    "image_folder": Adapter(image_folder.files, image_folder.read),
}
