"""A student: a fresh network trained on a set of images, distilled or real, by one fixed recipe."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medistill import augment, sgd
from medistill.errors import UserError
from medistill.nets import Architecture, Flat, flatten
from medistill.resources import Used

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
    """One student of `fit_all`, in evaluation mode."""
    ((_, module),) = fit_all(images, targets, architecture, lr, recipe, [generator], device)
    return module


def fit_all(
    images: Tensor,
    targets: Tensor,
    architecture: Architecture,
    lr: float,
    recipe: Recipe,
    generators: Sequence[torch.Generator],
    device: torch.device,
    progress: Callable[[int], None] = lambda steps: None,
    compiled: bool | None = None,
    of: int = 0,
    told: Callable[[Used], None] | None = None,
    sequence: Sequence[tuple[int, float]] = (),
) -> Iterator[tuple[int, nn.Module]]:
    """Train a fresh network a generator; yields its number and it, in evaluation mode, as one is done.

    A student's random numbers (initialisation, order, augmentation) come from its CPU generator alone, so it
    does not depend on the others, to rounding.

    Args:
        images: (N, C, H, W), normalised.
        targets: probabilities (N, K) float or classes (N,) int64.
        architecture: the network.
        lr: the learning rate of the first half.
        recipe: how to train.
        generators: one a student.
        device: where to train.
        progress: told of so many more steps, of whichever student.
        compiled: whether to use torch.compile; None: where it pays.
        of: networks of the whole run, when other processes train the rest.
        told: told beforehand what all of it will take.
        sequence: (n, lr) pairs of a set whose order matters, as in `Distilled`: the steps are shared out evenly among
            them, and the last one's learning rate falls to a tenth after half of its steps; it takes the place of `lr`.

    Raises:
        UserError: when training diverges.
    """
    images = images.to(device)
    targets = sgd.probabilities(targets.to(device), architecture.classes, images)
    modules = [architecture.build(generator).to(images) for generator in generators]
    sequence = sequence or [(len(images), lr)]
    courses = [_course(images, targets, sequence, recipe, generator) for generator in generators]
    batch = min(recipe.batch, len(images))
    net = Flat(architecture).to(device, images.dtype)
    starts = [flatten(module) for module in modules]
    task = sgd.Task(net, starts, courses, batch, recipe.momentum, recipe.weight_decay, of=of)
    rehearsal = sgd.Lesson(images[:batch], targets[:batch], lr)
    done = [0] * len(modules)
    with closing(sgd.train(task, recipe.steps * batch, compiled, rehearsal, told)) as reports:
        for report in reports:
            before, done[report.number] = done[report.number], min(done[report.number] + CHECK_EVERY, recipe.steps)
            _require_finite(report.theta, done[report.number], lr)
            progress(done[report.number] - before)
            if done[report.number] == recipe.steps:
                module = modules[report.number]
                nn.utils.vector_to_parameters(report.theta, module.parameters())
                # finite parameters may be so large that what they make of an image is not
                _require_finite(predict(module, images[:batch], device), recipe.steps, lr)
                yield report.number, module


def _course(
    images: Tensor, targets: Tensor, sequence: Sequence[tuple[int, float]], recipe: Recipe, generator: torch.Generator
) -> Iterator[sgd.Lesson]:
    """The steps of one student, with a report every so often and after the last."""
    ends = [round(recipe.steps * (number + 1) / len(sequence)) for number in range(len(sequence))]
    step, fall = 0, (recipe.steps + 1) // 2 if len(sequence) == 1 else (ends[-2] + ends[-1] + 1) // 2
    for (count, lr), end in zip(sequence, ends, strict=True):
        batches = _batches(count, recipe.batch, generator)
        while step < end:
            step += 1
            index = next(batches).to(images.device)
            drawn = augment.draw(recipe.augment, len(index), generator)
            x = augment.apply(images[index], drawn)  # (B, C, H, W)
            rate = lr if step <= fall else lr * 0.1
            yield sgd.Lesson(x, targets[index], rate, report=step % CHECK_EVERY == 0 or step == recipe.steps)


def _batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of one batch after another, for ever; each epoch without replacement, its rest kept."""
    while True:
        if count <= batch:
            yield torch.arange(count)
        else:
            yield from torch.randperm(count, generator=generator).split(batch)


def _require_finite(values: Tensor, step: int, lr: float) -> None:
    """Raise a UserError for a student that diverged: its parameters or its answers are not finite."""
    if not values.isfinite().all():
        raise UserError(
            f"evaluation: a student diverged within {step} steps at learning rate {lr:g}; lower the learning rate"
        )


@torch.inference_mode()
def predict(module: nn.Module, images: Tensor, device: torch.device, batch: int = 256) -> Tensor:
    """Class probabilities (N, K) float32 on the CPU, of normalised images (N, C, H, W)."""
    module.eval()
    return torch.cat([module(part.to(device)).float().softmax(1).cpu() for part in images.split(batch)])
