"""The teacher of DWA: a network with batch norms that learns the films, is perturbed, and is compared with a batch."""

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medistill import augment
from medistill.config.net import DEPTH, PUBLISHED_WIDTH, misfit, parse_network
from medistill.distill.course import Films
from medistill.errors import UserError
from medistill.nets import Architecture, architecture_named

FIRST = 10.0
"""The multiple of the first batch norm's distance, as published."""


def teacher_named(text: str, like: Architecture) -> Architecture:
    """The network NAME or NAME:WIDTH of `distill.dwa.teacher` for the images and classes of `like`.

    Raises:
        UserError: it cannot be built for images of this size, or not of this width.
    """
    name, width = parse_network("distill.dwa.teacher", text)
    own = name == like.name
    usual = like.width if own else PUBLISHED_WIDTH[name]
    if wrong := misfit(name, like.size, width or usual, like.depth if own else DEPTH):
        raise UserError(f"distill.dwa.teacher: {text!r}: {wrong}")
    return architecture_named(text, like)


def with_batch_norms(architecture: Architecture, generator: torch.Generator) -> nn.Module:
    """A fresh network of this architecture, on the CPU, with a batch norm wherever it has an instance norm."""
    module = architecture.build(generator)
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.BatchNorm2d(child.num_channels))
    return module.eval()


def learn(
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    films: Films,
    batches: Iterable[Tensor],
    operations: Sequence[str],
    generator: torch.Generator,
) -> float:
    """Take a step on each batch of film numbers (B,); the mean cross entropy of the films before their steps.

    The running statistics are those of the augmented films; the teacher is left in evaluation mode.
    """
    teacher.train()
    total, seen = torch.zeros((), dtype=torch.float64, device=films.images.device), 0
    for batch in batches:
        drawn = augment.draw(operations, len(batch), generator)
        picked = batch.to(films.images.device)
        x = augment.apply(films.images[picked], drawn)  # (B, C, H, W)
        loss = F.cross_entropy(teacher(x), films.labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach().double() * len(batch)
        seen += len(batch)
    teacher.eval()
    return total.item() / seen


def perturbed(teacher: nn.Module, x: Tensor, labels: Tensor, rho: float, steps: int) -> nn.Module:
    """A copy of the teacher that was moved up the loss of a batch, which makes images recovered from it differ.

    `steps` times theta <- theta + (rho / steps) g / |g| with g the gradient of the cross entropy, all parameters one
    vector and batch norms in evaluation mode (Du et al., NeurIPS 2024, directed weight adjustment).

    Args:
        teacher: in evaluation mode; left as it is.
        x: (B, C, H, W) start images.
        labels: (B, K) probabilities.
        rho: length of the way.
        steps: on it.
    """
    moved = copy.deepcopy(teacher)
    parameters = list(moved.parameters())
    for _ in range(steps):
        slopes = torch.autograd.grad(F.cross_entropy(moved(x), labels), parameters)
        norm = torch.nn.utils.get_total_norm(slopes)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.add_(slope * (rho / steps / (norm + 1e-12)))
    return moved.requires_grad_(False)


def answers(teacher: nn.Module, x: Tensor, r_var: float) -> tuple[Tensor, Tensor]:
    """Logits (B, K) of a batch x (B, C, H, W), and how far its statistics are from the teacher's running ones.

    The distance is sum_l m_l (r_var |var_l - var_l(x)| + |mean_l - mean_l(x)|) over the inputs of the batch norms l,
    with Euclidean norms over channels, biased variances over images and places, and m_l = FIRST for the first l, else
    1 (Yin et al., CVPR 2020; Du et al. weigh the variances).
    """
    gaps: list[Tensor] = []

    def compare(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None and norm.running_mean is not None
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        gap = r_var * (norm.running_var - variance).norm() + (norm.running_mean - mean).norm()
        gaps.append(gap if gaps else FIRST * gap)

    hooks = [m.register_forward_pre_hook(compare) for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        logits = teacher(x)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, torch.stack(gaps).sum()
