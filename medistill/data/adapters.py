"""The public benchmarks by the name that `data.adapter` gives them; a new one is a file here and a line below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medistill.data import cifar, medmnist
from medistill.data.benchmark import Benchmark


@dataclass(frozen=True)
class Adapter:
    """How a benchmark is read.

    Attributes:
        files: from what `data.cohort` names to the files that hold the data; a UserError where they are missing.
        read: from these files and `data.classes` (empty: the benchmark's own) to their content; a UserError for
            files that hold something else.
    """

    files: Callable[[Path], list[Path]]
    read: Callable[[list[Path], Sequence[str]], Benchmark]


ADAPTERS = {
    "cifar10": Adapter(cifar.files, cifar.read),
    "medmnist": Adapter(medmnist.files, medmnist.read),
}
