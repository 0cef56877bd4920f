"""Start images of a distillation: M = classes x ipc images, class after class."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.errors import UserError

PUBLIC = ("noise", "phantom", "private_means")
"""Starts that show no patient; the last thanks to noise that the ledger accounts for."""


def labels_of(classes: int, ipc: int) -> Tensor:
    """(M,) int64: ipc times each class."""
    return torch.arange(classes).repeat_interleave(ipc)


def noise(shape: tuple[int, ...], scale: float, smooth: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise (M, C, H, W) of standard deviation `scale`, blurred by `smooth` pixels beforehand.

    The blur wraps round at the border and the result is scaled back, so that `scale` holds for any blur.
    """
    images = torch.randn(shape, generator=generator)
    if smooth > 0:
        radius = min(math.ceil(3 * smooth), shape[2] - 1, shape[3] - 1)
        offsets = torch.arange(-radius, radius + 1, dtype=images.dtype)
        kernel = (-0.5 * (offsets / smooth).square()).exp()
        kernel = (kernel / kernel.sum()).repeat(shape[1], 1)
        images = F.pad(images, (radius,) * 4, mode="circular")
        images = F.conv2d(images, kernel[:, None, None, :], groups=shape[1])
        images = F.conv2d(images, kernel[:, None, :, None], groups=shape[1])
        images = images / images.std()
    return scale * images


def class_means(images: Tensor, labels: Tensor, classes: int, ipc: int) -> Tensor:
    """The mean of each class's films (N, C, H, W), ipc times: (M, C, H, W). It shows patients in the mean."""
    means = torch.stack([images[labels == k].mean(0) for k in range(classes)])
    return means.repeat_interleave(ipc, 0)


def private_means(sums: Tensor, public: Tensor, norm: float, size: int, ipc: int) -> Tensor:
    """Images (M, C, size, size) in [0, 1] from the noisy sums of classes (K, C, S, S) around a public image (C, S, S).

    Each sum is scaled to the same norm, so that no count of patients is needed, and enlarged bilinearly.
    """
    means = public + sums * (norm / sums.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    large = F.interpolate(means, (size, size), mode="bilinear", align_corners=False)
    return large.clamp(0, 1).repeat_interleave(ipc, 0)


def real(labels: Tensor, groups: Tensor, names: tuple[str, ...], ipc: int, generator: torch.Generator) -> Tensor:
    """(M,) int64: films drawn from the training set, no two of one patient in a class.

    Raises:
        UserError: when a class has fewer patients than `ipc`.
    """
    chosen: list[int] = []
    for k, name in enumerate(names):
        members = torch.nonzero(labels == k).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        first = {int(groups[i]): int(i) for i in members.flip(0)}
        if len(first) < ipc:
            raise UserError(
                f"distill.ipc is {ipc}, but class {name} has {len(first)} training patients and a real start takes "
                "one film of each; lower distill.ipc or choose another distill.start"
            )
        order = torch.randperm(len(first), generator=generator)[:ipc]
        films = list(first.values())
        chosen += [films[i] for i in order]
    return torch.tensor(chosen)
