"""A public benchmark: labelled square images with an official test split, each image its own person."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medistill import seeds
from medistill.errors import UserError

NOT_OFFICIAL = "not the official files (a subset or another copy): figures are not comparable with published tables"

_PACKED = (".tar", ".tar.gz", ".tgz", ".zip")
_SHOWN = 20  # mistakes that are spelt out before the rest is only counted


@dataclass(frozen=True)
class Benchmark:
    """The content of a benchmark's files.

    Attributes:
        images: (N, C, S, S) uint8, C of 1 or 3.
        labels: (N,) int64, an index into `classes`.
        split: (N,) train, val or test; without val, it is still to be drawn from train.
        names: (N,) what each image is called in messages: its file or array and its row.
        classes: the class names in the order of the labels.
        mean: one constant a channel; networks see (image - mean) / std, images in [0, 1].
        std: likewise.
        notes: sentences worth telling about these files.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    split: NDArray[np.str_]
    names: Sequence[str]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()


def with_validation(benchmark: Benchmark, fraction: float, seed: int) -> NDArray[np.str_]:
    """(N,) the split; where the benchmark has no val, that share of each class's train images becomes it.

    Args:
        benchmark: labels and the official split.
        fraction: val's share of train, in (0, 1), rounded to whole images a class.
        seed: the base seed; the draw depends on it and the labels alone.

    Raises:
        UserError: a split without an image of some class.
    """
    split = benchmark.split.copy()
    if "val" not in split:
        for label in range(len(benchmark.classes)):
            members = np.flatnonzero((benchmark.labels == label) & (split == "train"))
            order = torch.randperm(len(members), generator=seeds.generator(seed, "split", "val", label)).numpy()
            split[members[order[: round(fraction * len(members))]]] = "val"
    for name in ("train", "val", "test"):
        present = set(benchmark.labels[split == name].tolist())
        empty = [label for index, label in enumerate(benchmark.classes) if index not in present]
        if empty:
            raise UserError(
                f"data: the {name} split has no image of {', '.join(empty)}; use the whole data set"
                + (", or change data.val_fraction" if name != "test" else "")
            )
    return split


def packed(place: Path) -> Path | None:
    """An archive that lies where an unpacked folder belongs: `place` itself, or the first one in it."""
    near = sorted(place.iterdir()) if place.is_dir() else [place]
    return next((path for path in near if path.is_file() and path.name.lower().endswith(_PACKED)), None)


def require_none(mistakes: Sequence[str], advice: str) -> None:
    """Raise a UserError that lists mistakes, a line each, the first twenty spelt out, and ends with the advice."""
    if mistakes:
        more = len(mistakes) - _SHOWN
        rest = [f"... and {more} more"] if more > 0 else []
        raise UserError("\n".join([*mistakes[:_SHOWN], *rest, advice]))
