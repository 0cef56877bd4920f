"""Trajectory matching as the field's public code writes it, for the engine to be measured against.

Autograd through the whole unroll, a DataLoader for the experts, one student after another (Cazenavette et al.,
CVPR 2022), and TESLA's pixel gradient (Cui et al., ICML 2023).
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from medistill import augment, seeds
from medistill.config import Experts
from medistill.distill.unroll import InnerStep
from medistill.evaluate.student import Recipe
from medistill.kernels import Kernels
from medistill.nets import Architecture, Flat


def mtt_step(
    net: Flat, start: Tensor, target: Tensor, images: Tensor, labels: Tensor, alpha: Tensor, steps: list[InnerStep]
) -> tuple[Tensor, Tensor]:
    """One iteration of MTT: every inner step's graph is kept, then one backward pass through all of them."""
    images, alpha = images.clone().requires_grad_(), alpha.clone().requires_grad_()
    student = [start.clone().requires_grad_()]
    for step in steps:
        index = step.index.to(images.device)
        x = augment.apply(images[index], step.drawn)
        loss = F.cross_entropy(net(student[-1], x), labels[index])
        (grad,) = torch.autograd.grad(loss, student[-1], create_graph=True)
        student.append(student[-1] - alpha * grad)
    matched = F.mse_loss(student[-1], target, reduction="sum") / F.mse_loss(start, target, reduction="sum")
    matched.backward()
    return images.grad, alpha.grad


def tesla_step(
    kernels: Kernels,
    start: Tensor,
    target: Tensor,
    images: Tensor,
    labels: Tensor,
    alpha: Tensor,
    steps: list[InnerStep],
) -> Tensor:
    """TESLA's pixel gradient: each inner gradient depends on its own images, later ones not on earlier pixels."""
    theta, thetas = start, []
    for step in steps:
        thetas.append(theta)
        index = step.index.to(images.device)
        theta = theta - alpha * kernels.slope(theta, augment.apply(images[index], step.drawn), labels[index])
    v = 2 * (theta - target) / (start - target).square().sum()
    out = torch.zeros_like(images)
    for theta, step in zip(thetas, steps, strict=True):
        index = step.index.to(images.device)
        seen, pull = torch.func.vjp(partial(augment.apply, drawn=step.drawn), images[index])
        out.index_add_(0, index, pull(-alpha * kernels.adjoint(theta, seen, labels[index], v)[1])[0])
    return out


def train_expert(images: Tensor, labels: Tensor, architecture: Architecture, settings: Experts, index: int) -> None:
    """An expert as the papers' code trains it."""
    module = architecture.build(seeds.generator(0, "expert", index)).to(images.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=settings.lr, momentum=settings.momentum)
    loader = DataLoader(TensorDataset(images, labels), batch_size=settings.batch, shuffle=True)
    generator = seeds.generator(0, "reference")
    for _ in range(settings.epochs):
        for x, y in loader:
            seen = augment.apply(x, augment.draw(settings.augment, len(x), generator))
            loss = F.cross_entropy(module(seen), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def train_student(images: Tensor, labels: Tensor, architecture: Architecture, recipe: Recipe, index: int) -> nn.Module:
    """A student as the papers' code trains it."""
    generator = seeds.generator(0, "reference student", index)
    module = architecture.build(generator).to(images.device)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=0.01, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    for step in range(1, recipe.steps + 1):
        if step == (recipe.steps + 1) // 2 + 1:
            optimizer.param_groups[0]["lr"] = 0.001
        seen = augment.apply(images, augment.draw(recipe.augment, len(images), generator))
        loss = F.cross_entropy(module(seen), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module
