"""Several distilled sets made one: images side by side, labels under common names, one learning rate.

Trajectory matching leaves a set that stands for its films in the mean gradient of its images. The mean gradient over
the images of several sets is the mean of their gradients weighted by their images, so sets are put side by side and
nothing is distilled anew: no film, expert or patient is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from medistill.distill.distilled import Distilled
from medistill.errors import UserError

Classes = Literal["same", "union"]

PARTS = "parts"
"""Where the provenance of a merged set tells of each release in it."""


def combine(sets: Sequence[Distilled], names: Sequence[str], classes: Classes = "same") -> Distilled:
    """One set (M1 + M2 + ..., C, H, W) of several, in their order; its provenance is left to the caller.

    The learning rate is the geometric mean of the sets' own, weighted by their images: each is a step that fits the
    mean gradient of its own images, step sizes are learned as logarithms, and a set cut in two and put together
    again gets its own back, in whichever order sets are merged. The network is that of the set with the most images,
    the first of equals; the augmentation is what all sets share, in the first one's order.

    Args:
        sets: two or more.
        names: what each is called in messages.
        classes: `same`: all name the same classes, in whichever order, and the first one's order is kept; `union`:
            classes that are new are put behind, and a set's images get probability 0 for those it does not name.

    Raises:
        UserError: the sets differ in image size, channels, normalisation or (`same`) classes; one is ordered or
            whitened.
    """
    _require_alike(sets, names)
    order = _class_names(sets, names, classes)
    counts = [len(one.images) for one in sets]
    largest = sets[counts.index(max(counts))].architecture
    rate = sum(n * math.log(one.lr) for n, one in zip(counts, sets, strict=True)) / sum(counts)
    return Distilled(
        images=torch.cat([one.images for one in sets]),
        labels=torch.cat([under(one.labels, one.classes, order) for one in sets]),
        lr=math.exp(rate),
        classes=order,
        mean=sets[0].mean,
        std=sets[0].std,
        architecture=replace(largest, classes=len(order)),
        augment=tuple(one for one in sets[0].augment if all(one in other.augment for other in sets)),
    )


def under(labels: Tensor, have: Sequence[str], want: Sequence[str]) -> Tensor:
    """Probabilities (M, K) over the classes `have` as (M, L) over `want`, which holds them all; 0 for the others."""
    spread = labels.new_zeros(len(labels), len(want))
    spread[:, [list(want).index(name) for name in have]] = labels
    return spread


def _require_alike(sets: Sequence[Distilled], names: Sequence[str]) -> None:
    """Raise a UserError where images of one set would mean something else in another."""
    first, called = sets[0], names[0]
    for one, name in zip(sets, names, strict=True):
        if one.sequence:
            raise UserError(
                f"{name}: its images must be learned in their order (method {one.provenance.get('method', 'unknown')}),"
                " which a merged set cannot keep; leave this release out"
            )
        if one.zca is not None:
            raise UserError(f"{name}: its images are whitened by its own films; leave this release out")
        ours, theirs = tuple(first.images.shape[1:]), tuple(one.images.shape[1:])
        if ours != theirs:
            raise UserError(
                f"{name}: images of {_size(theirs)} where {called} has {_size(ours)}; merge releases of one size, or "
                "ask that site for a set of data.size " + str(ours[-1])
            )
        if (first.mean, first.std) != (one.mean, one.std):
            raise UserError(
                f"{name}: normalised by mean {list(one.mean)} and deviation {list(one.std)} where {called} is by "
                f"{list(first.mean)} and {list(first.std)}; merge releases of one normalisation"
            )


def _class_names(sets: Sequence[Distilled], names: Sequence[str], classes: Classes) -> tuple[str, ...]:
    """The class names of the merged set."""
    order = list(sets[0].classes)
    for one, name in zip(sets, names, strict=True):
        differs = sorted(set(one.classes) ^ set(order))
        if differs and classes == "same":
            raise UserError(
                f"{name}: its classes are {', '.join(one.classes)}, those of {names[0]} {', '.join(order)}; give "
                "--classes union if a name means the same at every site and a class may be missing at some"
            )
        order += [label for label in one.classes if label not in order]
    return tuple(order)


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{height} × {width} pixels in {channels} channel{'s' * (channels > 1)}"
