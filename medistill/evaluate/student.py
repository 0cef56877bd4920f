"""A student: a fresh network trained on a set of images, distilled or real, by one fixed recipe."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medistill import augment
from medistill.errors import UserError
from medistill.nets import Architecture

# Reading a value makes a GPU wait, so a diverged student is noticed within this many steps.
CHECK_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """How every student of a table is trained, so that only the images differ.

    Momentum, weight decay and the fall of the learning rate are those of MTT's evaluation (Cazenavette et al.,
    CVPR 2022), which counts 1,000 epochs and takes 256 images a step.

    Attributes:
        steps: SGD steps; the learning rate falls to a tenth after half of them.
        batch: images a step; a set of no more images is used whole in each step.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        augment: DSA operations, one drawn each step.
    """

    steps: int = 1000
    batch: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: tuple[str, ...] = augment.OPERATIONS

    def __post_init__(self) -> None:
        augment.check_operations(self.augment)


def fit(
    images: Tensor,
    targets: Tensor,
    architecture: Architecture,
    lr: float,
    recipe: Recipe,
    generator: torch.Generator,
    device: torch.device,
) -> nn.Module:
    """Train a fresh network on images (N, C, H, W), normalised, and return it in evaluation mode.

    `targets` are probabilities (N, K) float or classes (N,) int64. All random numbers (initialisation,
    order, augmentation) come from the CPU generator. Raises UserError when training diverges.
    """
    module = architecture.build(generator).to(device).train()
    images, targets = images.to(device), targets.to(device)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [(recipe.steps + 1) // 2])
    batches = _batches(len(images), recipe.batch, generator)
    for step in range(1, recipe.steps + 1):
        index = next(batches).to(device)
        drawn = augment.draw(recipe.augment, len(index), generator)
        x = augment.apply(images[index], drawn)  # (B, C, H, W)
        loss = F.cross_entropy(module(x), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % CHECK_EVERY == 0 or step == recipe.steps:
            _check_finite(module, step, lr)
    return module.eval()


def _batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of one batch after another, for ever; each epoch without replacement, its rest kept."""
    while True:
        if count <= batch:
            yield torch.arange(count)
        else:
            yield from torch.randperm(count, generator=generator).split(batch)


def _check_finite(module: nn.Module, step: int, lr: float) -> None:
    """Raise a UserError for a student that diverged: a loss that is not finite makes its parameters so."""
    if not all(p.isfinite().all() for p in module.parameters()):
        raise UserError(
            f"evaluation: a student diverged within {step} steps at learning rate {lr:g}; lower the learning rate"
        )


@torch.inference_mode()
def predict(module: nn.Module, images: Tensor, device: torch.device, batch: int = 256) -> Tensor:
    """Class probabilities (N, K) float32 on the CPU, of normalised images (N, C, H, W)."""
    module.eval()
    return torch.cat([module(part.to(device)).float().softmax(1).cpu() for part in images.split(batch)])
