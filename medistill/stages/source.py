"""What LOAD needs of any kind of data: where it is, whether it changed, and its images with labels and split."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medistill.config import Data
from medistill.data.store import Images
from medistill.errors import UserError


@dataclass(frozen=True)
class Examined:
    """Data whose every image was read.

    Attributes:
        images: (N, C, S, S) float32 in [0, 1]; films stay on the disk.
        labels: (N,) int64, an index into `classes`.
        groups: (N,) int64, the patient, or the image where each stands for itself.
        split: (N,) train, val or test.
        classes: the class names in the order of the labels.
        mean: one constant a channel, subtracted from the images.
        std: one constant a channel, by which they are divided then.
        names: (N,) what each image is called in messages.
        table: a pandas table of the images with label and split; it stays in the house.
        unit: what the images are called, films or images.
        notes: sentences worth telling: films left out, patients unknown. They name no patient's file.
        left_out: a sentence for each file that cannot be used.
        hashes: (N,) the SHA-256 of each image at full size; empty where it is not known.
    """

    images: Images
    labels: Tensor
    groups: Tensor
    split: NDArray[np.str_]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    names: list[str]
    table: Any
    unit: str
    notes: list[str]
    left_out: list[str]
    hashes: list[str] = field(default_factory=list)


class Source(Protocol):
    """One kind of data."""

    def fingerprint(self) -> str:
        """A digest that changes when the data do; it stays in the house."""

    def examine(self) -> Examined:
        """Read every image; a UserError tells all that is wrong at once, one line a mistake."""


def find(data: Data) -> Path:
    """The path that `data.cohort` names, in the current folder or the one that MEDISTILL_DATA names.

    Raises:
        UserError: it is in neither.
    """
    places = [Path(data.cohort)]
    if not places[0].is_absolute() and "MEDISTILL_DATA" in os.environ:
        places.append(Path(os.environ["MEDISTILL_DATA"]) / data.cohort)
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"data.cohort: {data.cohort} is neither in the current folder nor in the folder that MEDISTILL_DATA names "
        f"({os.environ.get('MEDISTILL_DATA', 'not set')}); correct the path or set MEDISTILL_DATA"
    )


def require_positive(data: Data, classes: tuple[str, ...]) -> None:
    """Raise a UserError unless `data.positive` is one of the classes."""
    if data.positive not in classes:
        raise UserError(
            f"data.positive is {data.positive!r}, but the classes are {', '.join(classes)}; name one of them"
        )
