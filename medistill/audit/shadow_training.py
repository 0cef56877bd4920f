"""The work behind shadow distillations: experts on parts of the films, distillation, queries, students.

Experts of all shadows are trained in one call of `medistill.sgd.train`, students set by set; distillations and queries
of experts run side by side in threads on a CPU.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from medistill import augment, seeds, sgd
from medistill.audit.check import Private
from medistill.audit.shadow_pool import Pool
from medistill.config import Experts
from medistill.distill.course import Course
from medistill.errors import UserError
from medistill.evaluate.student import Recipe, fit_all, predict
from medistill.experts.flat import as_settings_say
from medistill.experts.trajectory import Trajectories
from medistill.kernels import soft_cross_entropy
from medistill.nets import Architecture, Flat, flatten
from medistill.resources import Used

Result = TypeVar("Result")

GRADIENTS = 2**24
"""Numbers in the gradients of single films that are held at once."""


class Trainer(Protocol):
    """Trains the experts of the shadows: `train_on_parts`, or in DP mode one that adds the run's noise."""

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        parts: Sequence[Tensor],
        architecture: Architecture,
        settings: Experts,
        generators: Sequence[torch.Generator],
        films: int,
        compiled: bool | None,
        told: Callable[[Used], None] | None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of a network and its trajectory (T + 1, P) on the CPU as one is done."""


def train_on_parts(
    images: Tensor,
    labels: Tensor,
    parts: Sequence[Tensor],
    architecture: Architecture,
    settings: Experts,
    generators: Sequence[torch.Generator],
    films: int,
    compiled: bool | None = None,
    told: Callable[[Used], None] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Train a network on each part of the films as the experts are, all in one call.

    An epoch shows `films` films of each part, drawn anew without replacement, so that networks on parts of different
    size keep in step and can be stacked.

    Args:
        images: (N, C, H, W), normalised, on the device that trains.
        labels: (N,) int64.
        parts: of each network the films it may see, int64.
        architecture: the network.
        settings: epochs, step size, batch, momentum, augmentation.
        generators: of each network's start, order and augmentation.
        films: of an epoch, no more than the smallest part has.
        compiled: whether to use torch.compile; None: where it pays.
        told: told beforehand what all of it will take.

    Raises:
        UserError: when a loss is no longer finite.
    """
    net = Flat(architecture).to(images.device, images.dtype)
    targets = sgd.probabilities(labels.to(images.device), architecture.classes, images)
    starts = [flatten(architecture.build(generator)).to(images) for generator in generators]
    courses = [
        _course(images, targets, part, films, settings, generator)
        for part, generator in zip(parts, generators, strict=True)
    ]
    batch = min(settings.batch, films)
    kept = (settings.epochs + 1) * starts[0].nbytes
    task = sgd.Task(net, starts, courses, batch, settings.momentum, kept=kept)
    task = as_settings_say(task, settings.flat)
    rehearsal = sgd.Lesson(images[:batch], targets[:batch], settings.lr)
    trajectories = [[start.cpu()] for start in starts]
    with closing(sgd.train(task, settings.epochs * films, compiled, rehearsal, told)) as reports:
        for report in reports:
            rows = trajectories[report.number]
            if not report.loss < float("inf"):
                raise UserError(
                    f"audit: the loss of a shadow's expert is not finite in epoch {len(rows)}; lower experts.lr"
                )
            rows.append(report.theta.cpu())
            if len(rows) == settings.epochs + 1:
                yield report.number, torch.stack(rows)
                rows.clear()


def _course(
    images: Tensor, targets: Tensor, part: Tensor, films: int, settings: Experts, generator: torch.Generator
) -> Iterator[sgd.Lesson]:
    """The steps of one network, with a report after every epoch."""
    for _ in range(settings.epochs):
        shown = part[torch.randperm(len(part), generator=generator)[:films]]
        batches = shown.split(settings.batch)
        for number, index in enumerate(batches, start=1):
            drawn = augment.draw(settings.augment, len(index), generator)
            picked = index.to(images.device)
            x = augment.apply(images[picked], drawn)  # (B, C, H, W)
            yield sgd.Lesson(x, targets[picked], settings.lr, report=number == len(batches))


@dataclass(frozen=True)
class Shadow:
    """What a shadow's experts tell about the pool's films, and the set distilled from them.

    Attributes:
        answers: (E, R, N, C) class probabilities by each expert at R epochs.
        slopes: (E, N) norm of the gradient of each film's loss in the last parameters.
        images: (M, C, H, W) distilled.
        labels: (M, C) probabilities.
        lr: (1,) the learned step size.
        sequence: (T, 2) how many images a student learns from first and at which step size, in the order of the steps;
            no rows where the order does not matter.
    """

    answers: Tensor
    slopes: Tensor
    images: Tensor
    labels: Tensor
    lr: Tensor
    sequence: Tensor


def query_and_distil(
    net: Flat,
    trajectories: Trajectories,
    begin: Callable[[], Course],
    epochs: Sequence[int],
    images: Tensor,
    targets: Tensor,
    stop: threading.Event,
) -> Shadow:
    """One shadow, in a thread of its own: query its experts, then distil, unless told to stop.

    Args:
        net: the experts' network, of this thread alone.
        trajectories: of the shadow's experts.
        begin: makes the distillation before its first iteration.
        epochs: at which the experts are queried.
        images: (N, C, H, W) asked about.
        targets: (N, C) one-hot.
        stop: set when the result is no longer wanted.
    """
    answers, slopes = [], []
    for expert in range(len(trajectories)):
        rows = [row.to(images) for row in trajectories.rows(expert, *epochs)]
        answers.append(torch.stack([probabilities_at(net, row, images) for row in rows]))
        slopes.append(slope_norms(net, rows[-1], images, targets))
    course = begin()
    for _ in course.run():
        if stop.is_set():
            break
    made = course.made()
    return Shadow(
        torch.stack(answers),
        torch.stack(slopes),
        made.images.cpu(),
        made.labels.cpu(),
        torch.tensor([made.lr]),
        torch.tensor(made.sequence, dtype=torch.float64).view(-1, 2),
    )


@torch.no_grad()
def probabilities_at(net: Flat, theta: Tensor, images: Tensor, batch: int = 256) -> Tensor:
    """(N, C) class probabilities on the CPU, of images (N, C, H, W) by parameters theta (P,)."""
    return torch.cat([net(theta, part).float().softmax(1).cpu() for part in images.split(batch)])


def slope_norms(net: Flat, theta: Tensor, images: Tensor, targets: Tensor) -> Tensor:
    """(N,) on the CPU: the norm of the gradient in theta (P,) of each film's cross entropy with its target (N, C)."""

    def loss(parameters: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return soft_cross_entropy(net(parameters, x[None]), y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    batch = max(1, GRADIENTS // net.size)
    parts = zip(images.split(batch), targets.split(batch), strict=True)
    return torch.cat([each(theta, x, y).norm(dim=1).cpu() for x, y in parts])


def recipe_of(private: Private) -> Recipe:
    """The run's recipe for students."""
    s = private.config.evaluate
    return Recipe(s.steps, s.batch, s.momentum, s.weight_decay, tuple(s.augment))


def students_on(
    private: Private,
    pool: Pool,
    images: Tensor,
    targets: Tensor,
    lr: float,
    place: Sequence[str | int],
    compiled: bool | None = None,
    sequence: Sequence[tuple[int, float]] = (),
) -> Tensor:
    """(S, N, C) class probabilities that fresh students trained on a set of images give all films of the pool.

    Args:
        private: settings and device.
        pool: the films.
        images: (M, C, H, W), normalised.
        targets: (M,) classes or (M, C) probabilities.
        lr: the students' learning rate.
        place: of their random numbers.
        compiled: whether to use torch.compile; None: where it pays.
        sequence: of an ordered set, as in `Distilled`.
    """
    count, architecture = private.config.audit.shadows.students, architecture_of(pool, private)
    generators = [seeds.generator(private.config.seed, "audit", *place, number) for number in range(count)]
    recipe = recipe_of(private)
    fitted = fit_all(
        images,
        targets,
        architecture,
        lr,
        recipe,
        generators,
        private.device,
        compiled=compiled,
        sequence=sequence,
    )
    answers = {number: predict(student, pool.pixels, private.device) for number, student in fitted}
    return torch.stack([answers[number] for number in range(count)])


def architecture_of(pool: Pool, private: Private) -> Architecture:
    """The run's network."""
    net = private.config.net
    return Architecture(net.name, pool.pixels.shape[1], len(pool.classes), pool.pixels.shape[2], net.width, net.depth)


def side_by_side(jobs: Sequence[Callable[[threading.Event], Result]], workers: int) -> Iterator[tuple[int, Result]]:
    """Run jobs in threads that share out the CPU's, and yield each job's number and result as one is done.

    A job is given an event that is set when nobody waits for it any more.
    """
    stop, threads = threading.Event(), torch.get_num_threads()
    if workers < 2:
        yield from ((number, job(stop)) for number, job in enumerate(jobs))
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),))
    try:
        numbers = {pool.submit(job, stop): number for number, job in enumerate(jobs)}
        for done in as_completed(numbers):
            yield numbers[done], done.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        # a worker's number is also what threads to come would begin with
        torch.set_num_threads(threads)
