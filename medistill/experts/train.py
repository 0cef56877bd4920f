"""Training experts: SGD with differentiable augmentation, parameters kept after every epoch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import torch
from torch import Tensor

from medistill import augment, seeds, sgd
from medistill.config import Experts
from medistill.data.imageset import Seen
from medistill.errors import UserError
from medistill.experts.flat import as_settings_say
from medistill.nets import Architecture, Flat, flatten
from medistill.resources import Used


def train_experts(
    images: Tensor | Seen,
    labels: Tensor,
    architecture: Architecture,
    settings: Experts,
    seed: int,
    indices: Sequence[int],
    progress: Callable[[int, int, float], None] = lambda index, epoch, loss: None,
    compiled: bool | None = None,
    told: Callable[[Used], None] | None = None,
    begun: Sequence[Tensor] = (),
) -> Iterator[tuple[int, Tensor]]:
    """Train the experts of these numbers; yields a number and its trajectory (T+1, P) on the CPU as one is done.

    MTT, section 3.1 (Cazenavette et al. 2022): SGD on cross entropy, the data set one tensor on the
    device. Initialisation, order and augmentation depend on the seed and the index alone, so experts can
    be trained in any order or number, to rounding. A short last batch is used, not dropped. With
    `settings.flat` the steps are those of `medistill.experts.flat`.

    Args:
        images: (N, C, H, W), normalised, on the device that trains, or brought there batch by batch.
        labels: classes (N,) int64 or probabilities (N, K), likewise.
        architecture: the network.
        settings: epochs, step size, batch, augmentation.
        seed: base seed.
        indices: numbers of the experts.
        progress: called after every epoch of an expert with its index, the epoch and its mean loss.
        compiled: whether to use torch.compile; None: where it pays.
        told: told beforehand what all of it will take.
        begun: parameters (P,) that each expert goes on from; empty: fresh networks.

    Raises:
        UserError: when the loss of an expert is no longer finite.
    """
    net = Flat(architecture).to(images.device, images.dtype)
    generators = [seeds.generator(seed, "expert", index) for index in indices]
    starts = list(begun) or [
        flatten(architecture.build(generator)).to(images.device, images.dtype) for generator in generators
    ]
    rehearsal = images[: settings.batch]
    targets = sgd.probabilities(labels, architecture.classes, rehearsal)
    courses = [_course(images, targets, settings, generator) for generator in generators]
    batch = min(settings.batch, len(images))
    kept = (settings.epochs + 1) * starts[0].nbytes if starts else 0
    task = sgd.Task(net, starts, courses, batch, settings.momentum, of=settings.count, kept=kept)
    task = as_settings_say(task, settings.flat)
    lesson = sgd.Lesson(rehearsal, targets[:batch], settings.lr)
    trajectories = [[start.cpu()] for start in starts]
    with closing(sgd.train(task, settings.epochs * len(images), compiled, lesson, told)) as reports:
        for report in reports:
            rows, index = trajectories[report.number], indices[report.number]
            epoch = len(rows)
            if not report.loss < float("inf"):
                raise UserError(f"experts: the loss of expert {index} is not finite in epoch {epoch}; lower experts.lr")
            rows.append(report.theta.cpu())
            progress(index, epoch, report.loss)
            if epoch == settings.epochs:
                yield index, torch.stack(rows)
                rows.clear()


def _course(
    images: Tensor | Seen, targets: Tensor, settings: Experts, generator: torch.Generator
) -> Iterator[sgd.Lesson]:
    """The steps of one expert, with a report after every epoch."""
    for _ in range(settings.epochs):
        batches = torch.randperm(len(images), generator=generator).split(settings.batch)
        for number, index in enumerate(batches, start=1):
            drawn = augment.draw(settings.augment, len(index), generator)
            picked = index.to(images.device)
            # what lies on the disk is picked by the CPU, whatever trains
            x = augment.apply(images[index if isinstance(images, Seen) else picked], drawn)
            yield sgd.Lesson(x, targets[picked], settings.lr, report=number == len(batches))
