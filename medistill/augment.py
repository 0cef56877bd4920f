"""Differentiable siamese augmentation (DSA; Zhao & Bilen, ICML 2021), with explicit random numbers.

One operation is drawn for a whole batch and parameters for each sample (`draw`); the deterministic twin
(`apply`) replays them, so that an unrolled step can be computed a second time exactly. Every operation is
differentiable in the images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")

SCALE_RATIO = 1.2
ROTATION_DEGREES = 15.0
CROP_PAD = 0.125
CUTOUT_SIDE = 0.5


@dataclass(frozen=True)
class Drawn:
    """One operation for the batch and its numbers for each sample, uniform on [0, 1): (B, 3)."""

    operation: str | None
    numbers: Tensor


def check_operations(operations: Sequence[str]) -> None:
    """Raise ValueError for a name that is no operation."""
    for name in operations:
        if name not in OPERATIONS:
            raise ValueError(f"augmentation {name!r} is not one of {', '.join(OPERATIONS)}")


def draw(operations: Sequence[str], batch: int, generator: torch.Generator) -> Drawn:
    """Draw one operation and the numbers of `batch` samples, on the CPU."""
    numbers = torch.rand(batch, 3, generator=generator)
    if not operations:
        return Drawn(None, numbers)
    return Drawn(operations[int(torch.randint(len(operations), (), generator=generator))], numbers)


def apply(x: Tensor, drawn: Drawn) -> Tensor:
    """Apply a drawn operation to images x (B, C, H, W); returns the same shape."""
    if drawn.operation is None:
        return x
    u = drawn.numbers.to(device=x.device, dtype=x.dtype)
    return _APPLY[drawn.operation](x, u)


def _color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness + (u - .5), saturation x 2u, contrast x (u + .5); saturation is nothing on one channel."""
    brightness, saturation, contrast = (column.view(-1, 1, 1, 1) for column in u.unbind(1))
    x = x + (brightness - 0.5)
    if x.shape[1] > 1:
        gray = x.mean(1, keepdim=True)
        x = (x - gray) * (2 * saturation) + gray
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def _shift_index(length: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Source index (B, length) of each target position after a shift (B,), and whether it lies inside."""
    source = torch.arange(length, device=shift.device) + shift[:, None]
    return source.clamp(0, length - 1), (source >= 0) & (source < length)


def _crop(x: Tensor, u: Tensor) -> Tensor:
    """Pad by an eighth with zeros and crop at random: a shift of up to that many pixels."""
    height, width = x.shape[2:]
    pads = [int(side * CROP_PAD + 0.5) for side in (height, width)]
    shifts = [(column * (2 * pad + 1)).floor().long() - pad for column, pad in zip(u.T, pads, strict=False)]
    rows, row_inside = _shift_index(height, shifts[0])
    cols, col_inside = _shift_index(width, shifts[1])
    x = x.gather(2, rows[:, None, :, None].expand_as(x)).gather(3, cols[:, None, None, :].expand_as(x))
    return x * (row_inside[:, None, :, None] & col_inside[:, None, None, :])


def _cutout(x: Tensor, u: Tensor) -> Tensor:
    """Set a square of half the side, centred anywhere, to zero."""
    inside = []
    for side, column in zip(x.shape[2:], u.T, strict=False):
        cut = int(side * CUTOUT_SIDE + 0.5)
        first = (column * (side + 1 - cut % 2)).floor()[:, None] - cut // 2
        position = torch.arange(side, device=x.device)
        inside.append((position >= first) & (position < first + cut))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x * ~hole


def _flip(x: Tensor, u: Tensor) -> Tensor:
    """Mirror left and right with probability one half."""
    return torch.where(u[:, 0].view(-1, 1, 1, 1) < 0.5, x.flip(3), x)


def _warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Sample x bilinearly at the affine positions of matrix (B, 2, 2), zeros outside."""
    theta = torch.cat([matrix, matrix.new_zeros(len(matrix), 2, 1)], 2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _scale(x: Tensor, u: Tensor) -> Tensor:
    """Scale each axis by U[1/1.2, 1.2]."""
    factor = u[:, :2] * (SCALE_RATIO - 1 / SCALE_RATIO) + 1 / SCALE_RATIO
    return _warp(x, torch.diag_embed(factor))


def _rotate(x: Tensor, u: Tensor) -> Tensor:
    """Rotate by up to 15 degrees either way."""
    angle = (u[:, 0] - 0.5) * 2 * math.radians(ROTATION_DEGREES)
    sin, cos = angle.sin(), angle.cos()
    return _warp(x, torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1))


_APPLY = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
