"""Split films by patient, each class in its share."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from medistill.errors import UserError
from medistill.seeds import derive

Names = NDArray[np.str_]


def split_patients(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    classes: Sequence[str],
    given: Sequence[str] | None = None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> Names:
    """(N,) "train", "val" or "test" for each film; no patient stands in two of them.

    Args:
        labels: (N,) class indices.
        groups: (N,) patients.
        classes: the class names, for messages.
        given: the split the films come with, respected; where it has no val, val is carved from train.
        val_fraction: val's share of the films that are not test, in (0, 1); unused where val is given.
        test_fraction: test's share of all films, in (0, 1); unused where a split is given.
        seed: the base seed; the split depends on nothing else beside the data.

    Raises:
        UserError: a fraction out of range, a given split without train or test, or a split without a class.
    """
    names = np.full(len(labels), "train", dtype="<U5")
    if given is not None:
        names = np.asarray(given, dtype="<U5")
        absent = {"train", "test"} - set(names.tolist())
        if absent:
            raise UserError(f"data: the given split has no {' and no '.join(sorted(absent))}; add it, or give no split")
    else:
        names[_carve(labels, groups, test_fraction, "test", seed)] = "test"
    if "val" not in names:
        rest = np.flatnonzero(names == "train")
        names[rest[_carve(labels[rest], groups[rest], val_fraction, "val", seed)]] = "val"
    for name in ("train", "val", "test"):
        present = set(labels[names == name].tolist())
        empty = [label for index, label in enumerate(classes) if index not in present]
        if empty:
            raise UserError(
                f"data: the {name} split has no film of {', '.join(empty)}; add patients of that class, "
                "change the fractions, or leave the class out of data.classes"
            )
    return names


def _carve(
    labels: NDArray[np.int64], groups: NDArray[np.int64], fraction: float, name: str, seed: int
) -> NDArray[np.intp]:
    """Indices of one fold of StratifiedGroupKFold, the one whose class counts are nearest the share."""
    if not 0 < fraction < 1:
        raise UserError(f"data.{name}_fraction: {fraction} given; give a share between 0 and 1")
    # a share over one half is what remains when the complement is carved
    folds = max(2, round(1 / min(fraction, 1 - fraction)))
    counts = np.bincount(labels)
    people = len(np.unique(groups))
    if people < folds or counts.max() < folds:
        raise UserError(
            f"data.{name}_fraction: {people} patients are too few to set 1 in {folds} apart; add some or raise it"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=derive(seed, "split", name) % 2**32)
    wanted = counts * min(fraction, 1 - fraction)
    with warnings.catch_warnings():
        # a class rarer than the folds is refused below only if a split then lacks it
        warnings.simplefilter("ignore", UserWarning)
        parts = [part for _, part in splitter.split(labels, labels, groups)]
    distance = [np.abs(np.bincount(labels[part], minlength=len(counts)) - wanted).sum() for part in parts]
    chosen = parts[int(np.argmin(distance))]
    return chosen if fraction <= 0.5 else np.setdiff1d(np.arange(len(labels)), chosen)
