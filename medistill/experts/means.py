"""Class means through the Gaussian mechanism: a start of a distillation that patients pay for.

A film of each patient less a public one, at low resolution and clipped, so that a patient moves one class's sum by CLIP
at most; what is handed on are the noisy sums, and no count of anybody.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.experts.private import Draw, normal

SIDE = 16
CLIP = 2.0


def shrink(images: Tensor) -> Tensor:
    """Images (N, C, H, W) as (N, C, SIDE, SIDE), each pixel the mean of what it covers."""
    return F.adaptive_avg_pool2d(images, SIDE)


def noisy_sums(
    films: Tensor, labels: Tensor, classes: int, public: Tensor, noise_multiplier: float, draw: Draw = normal
) -> Tensor:
    """The noisy sum of each class, (classes, C, SIDE, SIDE) float32; to be charged before it is called.

    Args:
        films: (n, C, H, W) in [0, 1], one of each patient.
        labels: (n,) int64.
        classes: number of classes.
        public: (C, SIDE, SIDE), what films look like without any patient.
        noise_multiplier: standard deviation of the noise over CLIP.
        draw: for tests: another source of noise, or none.
    """
    difference = torch.nan_to_num(shrink(films) - public).double()  # a NaN would pass the clipping
    norm = difference.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    sums = difference.new_zeros(classes, *public.shape)
    sums.index_add_(0, labels, difference * (CLIP / norm.clamp(min=CLIP)))
    return (sums + noise_multiplier * CLIP * draw(sums.numel()).view_as(sums)).float()
