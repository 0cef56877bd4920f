"""The exact matching gradient through J inner steps, in memory that does not grow with J.

Autograd through the whole unroll keeps J double-backward graphs alive. The adjoint is a linear recursion
that needs one step's graph at a time: the parameters of every step are stored (J P floats), minibatch and
augmentation are replayed, and each step's vector-Jacobian product is taken backwards. The result equals
autograd's to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from medistill import augment
from medistill.augment import Drawn


class Derivatives(Protocol):
    """What the sweep needs of a network and its loss; `medistill.kernels.Kernels` has it for images and cross entropy.

    Any differentiable loss will do, and samples of any shape behind the first axis as long as none is augmented.
    """

    def slope(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """d loss / d theta (P,) for samples x (B, ...) and labels y (B, K)."""

    def adjoint(self, theta: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The derivatives of <slope, v> in theta (P,), x (B, ...) and y (B, K), for a constant v (P,)."""


@dataclass(frozen=True)
class InnerStep:
    """What one inner step draws: the synthetic images it sees (B,) and their augmentation."""

    index: Tensor
    drawn: Drawn


@dataclass(frozen=True)
class Matched:
    """A matching loss and its derivatives.

    Attributes:
        loss: weighted, ||W (theta_J - target)||^2 / ||theta_0 - target||^2.
        plain: the same with W = 1; comparable between different W.
        images: dL/d images, (M, C, H, W).
        labels: dL/d label probabilities, (M, K).
        alpha: dL/d alpha, a scalar.
        residual: theta_J - target, (P,).
        distance: the denominator, a scalar.
    """

    loss: Tensor
    plain: Tensor
    images: Tensor
    labels: Tensor
    alpha: Tensor
    residual: Tensor
    distance: Tensor


def draw_steps(
    images: int, batch: int, inner_steps: int, operations: Sequence[str], generator: torch.Generator
) -> list[InnerStep]:
    """Draw J inner steps; with batch 0 each sees all images, else minibatches without repetition an epoch."""
    steps: list[InnerStep] = []
    while len(steps) < inner_steps:
        full = batch == 0 or batch >= images
        parts = [torch.arange(images)] if full else torch.randperm(images, generator=generator).split(batch)
        for index in parts[: inner_steps - len(steps)]:
            steps.append(InnerStep(index, augment.draw(operations, len(index), generator)))
    return steps


def matching_gradient(
    kernels: Derivatives,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    alpha: Tensor,
    weight: Tensor,
    steps: Sequence[InnerStep],
) -> Matched:
    """The loss of IADD and its exact gradient in images, labels and alpha, by a backward sweep.

    With g_j = grad_theta CE(theta_j) and v_J = 2 W^2 r / D, for j = J-1 ... 0:
    d alpha -= <v, g_j>;  d x_j = -alpha d_x <g_j, v>;  v += -alpha H_j v.

    Args:
        kernels: the network's g_j and the derivatives of <g_j, v>.
        start: theta_i of the expert, (P,).
        target: theta_{i+K}, (P,).
        images: (M, C, H, W).
        labels: (M, K) probabilities.
        alpha: inner step size, a scalar tensor.
        weight: W, (P,); ones give MTT.
        steps: the J inner steps, replayed in the sweep.
    """
    thetas = start.new_empty(len(steps) + 1, len(start))
    thetas[0] = start
    batches = [step.index.to(images.device) for step in steps]
    for j, (step, index) in enumerate(zip(steps, batches, strict=True)):
        seen = augment.apply(images[index], step.drawn)
        thetas[j + 1] = thetas[j] - alpha * kernels.slope(thetas[j], seen, labels[index])

    residual = thetas[-1] - target
    distance = (start - target).square().sum()
    v = 2 * weight.square() * residual / distance
    d_images, d_labels, d_alpha = torch.zeros_like(images), torch.zeros_like(labels), torch.zeros_like(alpha)
    for j in reversed(range(len(steps))):
        theta, step, index = thetas[j], steps[j], batches[j]
        seen, pull, *_ = torch.func.vjp(partial(augment.apply, drawn=step.drawn), images[index])
        d_theta, d_seen, dy = kernels.adjoint(theta, seen, labels[index], v)
        d_alpha += v @ (thetas[j + 1] - theta) / alpha  # -<v, g_j>, without computing g_j once more
        d_images.index_add_(0, index, pull(-alpha * d_seen)[0])
        d_labels.index_add_(0, index, -alpha * dy)
        v = v - alpha * d_theta
    return Matched(
        loss=(weight * residual).square().sum() / distance,
        plain=residual.square().sum() / distance,
        images=d_images,
        labels=d_labels,
        alpha=d_alpha,
        residual=residual,
        distance=distance,
    )
