"""Experts of SeqMatch's later subsets: networks that learned from the earlier ones, and go on with the films.

Du et al., Sequential Subset Matching for Dataset Distillation, NeurIPS 2023, section 4: what a later subset has to
teach is what networks learn from the films when they know the earlier subsets already.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from medistill import augment, seeds, sgd
from medistill.config import Experts
from medistill.config.seqmatch import SeqMatch
from medistill.distill.course import Films
from medistill.distill.unroll import draw_steps
from medistill.errors import UserError
from medistill.experts.train import train_experts
from medistill.experts.trajectory import Trajectories
from medistill.nets import Architecture, Flat, flatten

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
"""Of students, as evaluation trains them by default (MTT's recipe)."""


@dataclass(frozen=True)
class Remembered(Trajectories):
    """Trajectories that are kept in memory: nothing learned from films is left on a disk by a killed run.

    Attributes:
        thetas: of each expert (T+1, P), on the CPU.
    """

    thetas: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.thetas)

    def rows(self, expert: int, *epochs: int) -> list[Tensor]:
        """Parameters (P,) of an expert at the given epochs."""
        return [self.thetas[expert][epoch].clone() for epoch in epochs]


def later_experts(
    images: Tensor,
    labels: Tensor,
    sequence: Sequence[tuple[int, float]],
    films: Films,
    architecture: Architecture,
    settings: SeqMatch,
    operations: Sequence[str],
    count: int,
    seed: int,
    compiled: bool | None = None,
) -> Remembered:
    """Train fresh networks on the earlier subsets, one union after another, then on the films while recording.

    Args:
        images: (M, C, H, W) of the earlier subsets, in their order.
        labels: (M, K) probabilities.
        sequence: (n, alpha) pairs; the last n is M.
        films: the training films.
        architecture: the network.
        settings: steps, epochs, step sizes.
        operations: of the augmentation.
        count: number of networks.
        seed: base seed of this subset.
        compiled: whether to use torch.compile; None: where it pays.

    Raises:
        UserError: when they diverge.
    """
    begun = students(images, labels, sequence, architecture, settings, operations, count, seed, compiled)
    if not all(bool(theta.isfinite().all()) for theta in begun):
        told = ", ".join(f"{alpha:.3g}" for _, alpha in sequence)
        raise UserError(
            f"distill: a network diverged while it learned from the first {len(sequence)} subsets at their step sizes "
            f"({told}); lower distill.alpha or distill.seqmatch.alphas, or distill.lr_alpha"
        )
    teaching = Experts(
        count=count,
        epochs=settings.epochs,
        lr=settings.lr,
        momentum=settings.momentum,
        batch=settings.batch,
        augment=list(operations),
    )
    trained: dict[int, Tensor] = {}
    try:
        trained |= train_experts(
            films.images, films.labels, architecture, teaching, seed, range(count), begun=begun, compiled=compiled
        )
    except UserError as error:
        raise UserError(
            f"distill: the networks that know the first {len(sequence)} subsets diverge on the films; lower "
            f"distill.seqmatch.lr {settings.lr:g}"
        ) from error
    thetas = tuple(trained[index] for index in range(count))
    return Remembered((), architecture, settings.epochs, thetas[0].shape[1], thetas)


def students(
    images: Tensor,
    labels: Tensor,
    sequence: Sequence[tuple[int, float]],
    architecture: Architecture,
    settings: SeqMatch,
    operations: Sequence[str],
    count: int,
    seed: int,
    compiled: bool | None = None,
) -> list[Tensor]:
    """(P,) each: fresh networks that learned from each pair's first n images at its step size, pair after pair.

    It is the way of a student of the whole sequence, before it meets the next subset; see `later_experts`.
    """
    generators = [seeds.generator(seed, "student", index) for index in range(count)]
    starts = [flatten(architecture.build(generator)).to(images) for generator in generators]
    courses = [_course(images, labels, sequence, settings, operations, generator) for generator in generators]
    batch = min(settings.student_batch, len(images))
    net = Flat(architecture).to(images.device, images.dtype)
    task = sgd.Task(net, starts, courses, batch, MOMENTUM, WEIGHT_DECAY, of=count)
    seen = settings.student_steps * len(sequence) * batch
    with closing(sgd.train(task, seen, compiled)) as reports:
        ended = {report.number: report.theta for report in reports}
    return [ended[number] for number in range(count)]


def _course(
    images: Tensor,
    labels: Tensor,
    sequence: Sequence[tuple[int, float]],
    settings: SeqMatch,
    operations: Sequence[str],
    generator: torch.Generator,
) -> Iterator[sgd.Lesson]:
    """The steps of one student, with a report after the last."""
    left = settings.student_steps * len(sequence)
    for count, alpha in sequence:
        for step in draw_steps(count, settings.student_batch, settings.student_steps, operations, generator):
            left -= 1
            index = step.index.to(images.device)
            x = augment.apply(images[index], step.drawn)  # (B, C, H, W)
            yield sgd.Lesson(x, labels[index], alpha, report=left == 0)
