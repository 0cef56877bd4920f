"""Crops of films as vectors whose product is their correlation."""

from functools import cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

BASE = 64  # the side, in pixels, that crops are cut from
FINE = 32  # the side that the reported correlation is computed at
COARSE = 12  # the side of the first sweep over all pairs
SIDES = (64, 61, 58, 55, 52, 49, 46, 43, 40, 38)  # crops of 1 to 0.6
STRIDE = 3  # between the crops of the first sweep
BATCH = 512  # crops cut at a time

Integers = NDArray[np.int64]


def shrink(images: Tensor, size: int) -> Tensor:
    """(N, C, H, W) to (N, C, size, size), anti-aliased."""
    return interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def unit(images: Tensor) -> Tensor:
    """(N, C, H, W) to (N, CHW) of zero mean and unit norm, so that a dot product is the correlation."""
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-6)


def sweep_crops() -> Integers:
    """(crops, 3) side, top and left of the first sweep: every side, at every STRIDE pixels up to both edges."""
    crops = []
    for side in SIDES:
        corners = sorted({*range(0, BASE - side, STRIDE), BASE - side})
        crops += [(side, top, left) for top in corners for left in corners]
    return np.array(crops, dtype=np.int64)


def cut_coarse(films: Tensor, crop: Integers) -> Tensor:
    """(N, C, 64, 64) to the unit vectors (N, D) of one crop at COARSE pixels."""
    side, top, left = crop.tolist()
    return unit(shrink(films[..., top : top + side, left : left + side], COARSE))


def cut_fine(films: Tensor, number: Integers, crops: Integers) -> Tensor:
    """The unit vectors (n, F), at FINE pixels, of crops (n, 3) of the films (N, C, 64, 64) of these numbers (n,)."""
    shrinking = _shrinking()
    found = []
    for start in range(0, len(crops), BATCH):
        side, top, left = torch.from_numpy(crops[start : start + BATCH]).T
        rows, columns = shrinking[side - SIDES[-1], top], shrinking[side - SIDES[-1], left]  # (b, 32, 64)
        some = films[torch.from_numpy(number[start : start + BATCH])]
        found.append(unit(rows[:, None] @ some @ columns[:, None].mT))
    return torch.cat(found)


@cache
def _shrinking() -> Tensor:
    """(sides, corners, 32, 64): what takes 64 pixels to the 32 of a crop of this side from this corner."""
    least = SIDES[-1]
    matrices = torch.zeros(BASE - least + 1, BASE - least + 1, FINE, BASE)
    for side in range(least, BASE + 1):
        # the filter is separable: one direction's weights are what becomes of the unit vectors
        weights = interpolate(
            torch.eye(side)[None, None], (FINE, side), mode="bilinear", antialias=True, align_corners=False
        )[0, 0]
        for corner in range(BASE - side + 1):
            matrices[side - least, corner, :, corner : corner + side] = weights
    return matrices


def neighbours(crops: Integers, step: int) -> tuple[Integers, NDArray[np.bool_]]:
    """(n, 27, 3) each crop (n, 3) itself and those a step larger, smaller or moved, and which lie in the film."""
    wider, down, right = np.array(list(product((0, -step, step), repeat=3))).T
    side, top, left = crops.T[..., None]
    near = np.stack([side + wider, top + down - wider // 2, left + right - wider // 2], axis=2)
    ends = near[..., 1:] + near[..., :1]
    inside = (near[..., 0] >= SIDES[-1]) & (near[..., 0] <= BASE) & (near[..., 1:] >= 0).all(2) & (ends <= BASE).all(2)
    return near, inside
