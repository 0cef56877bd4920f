"""Distil multi-index data by descent through a student's training, with the engine's exact gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from multi_index_model import Problem, Samples, TwoLayer
from torch import Tensor

from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.seeds import generator

START = 0.1
"""Standard deviation of the inputs that distillation starts from; labels start from a standard Gaussian."""

RAN_AWAY = 1e9
"""Stands for an error that is not finite."""


@dataclass(frozen=True)
class Settings:
    """Of a distillation and of the networks around it.

    Attributes:
        iterations: outer steps.
        inner_steps: J, of a student, on the whole set at once.
        alpha: a student's step size, which is not learned.
        lr_x, lr_y: root mean square by which one outer step moves inputs and labels, before momentum .9.
        batch: real samples that a student's end is judged by ("loss"), or an expert is trained on ("trajectory").
        experts: networks trained on real samples ("trajectory"), each for `expert_steps` of `expert_lr`.
        students: networks that are trained on a set to measure it.
    """

    iterations: int = 400
    inner_steps: int = 20
    alpha: float = 0.1
    lr_x: float = 0.005
    lr_y: float = 0.01
    batch: int = 512
    experts: int = 30
    expert_steps: int = 200
    expert_lr: float = 0.1
    students: int = 5


Aim = Callable[[int, Samples], tuple[Tensor, Tensor]]
"""Start (P,) and target (P,) of an iteration."""


def descend(net: TwoLayer, theta: Tensor, samples: Samples, lr: float, steps: int) -> Tensor:
    """The end (P,) of so many steps of gradient descent on all samples."""
    for _ in range(steps):
        theta = theta - lr * net.slope(theta, *samples)
    return theta


def error(net: TwoLayer, theta: Tensor, samples: Samples) -> float:
    """The mean squared error, RAN_AWAY at most."""
    return (net(theta, samples[0]) - samples[1]).square().mean().nan_to_num(nan=RAN_AWAY).clamp(max=RAN_AWAY).item()


def by_loss(net: TwoLayer, problem: Problem, settings: Settings, seed: int) -> Aim:
    """Lower the loss on real samples of students from ever new starts (Wang et al., arXiv 1811.10959).

    With g that loss's gradient at the student's end, the distance to the target end - g has the derivative 2 g in the
    end: the engine's gradient is that of the loss, up to a positive factor.
    """
    draws, (x, y) = generator(seed, "aim"), problem.splits["train"]

    def aim(_: int, small: Samples) -> tuple[Tensor, Tensor]:
        start = net.start(draws)
        end = descend(net, start, small, settings.alpha, settings.inner_steps)
        batch = torch.randint(len(x), (settings.batch,), generator=draws)
        return start, end - net.slope(end, x[batch], y[batch])

    return aim


def by_trajectory(net: TwoLayer, problem: Problem, settings: Settings, seed: int) -> Aim:
    """Match the ends of experts trained on real samples from the same starts (Cazenavette et al., CVPR 2022)."""
    draws, (x, y) = generator(seed, "aim"), problem.splits["train"]
    starts = [net.start(draws) for _ in range(settings.experts)]
    batch = x[: settings.batch], y[: settings.batch]

    @cache
    def end(number: int) -> Tensor:
        return descend(net, starts[number], batch, settings.expert_lr, settings.expert_steps)

    return lambda iteration, _: (starts[iteration % len(starts)], end(iteration % len(starts)))


AIMS = {"loss": by_loss, "trajectory": by_trajectory}


def distil(net: TwoLayer, problem: Problem, size: int, algorithm: str, settings: Settings, seed: int) -> Samples:
    """Distil inputs (M, d) and labels (M, 1) from noise; of eight moments the best on validation samples.

    Each outer step goes along the gradient, brought to unit mean square: of one length wherever it is, and, unlike
    Adam's, without a preference for the coordinate axes, which would carry noise out of row(B).
    """
    draws, alpha = generator(seed, "noise"), torch.tensor(settings.alpha)
    x, y = START * torch.randn(size, net.d, generator=draws), torch.randn(size, 1, generator=draws)
    aim = AIMS[algorithm](net, problem, settings, seed)
    groups = [{"params": [x], "lr": settings.lr_x}, {"params": [y], "lr": settings.lr_y}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.iterations)
    steps, ones = draw_steps(size, 0, settings.inner_steps, (), draws), torch.ones(net.size)
    best, least = (x.clone(), y.clone()), math.inf
    for iteration in range(settings.iterations):
        m = matching_gradient(net, *aim(iteration, (x, y)), x, y, alpha, ones, steps)
        x.grad, y.grad = unit(m.images), unit(m.labels)
        optimizer.step()
        schedule.step()
        if (iteration + 1) % math.ceil(settings.iterations / 8) == 0:
            found = sum(errors(net, (x, y), problem, "validation", settings, seed))
            if found < least:
                best, least = (x.clone(), y.clone()), found
    return best


def unit(gradient: Tensor) -> Tensor:
    """The gradient with a mean square of 1; nothing where it is not finite, for the student ran away."""
    scaled = gradient / gradient.square().mean().sqrt().clamp(min=1e-12)
    return scaled if scaled.isfinite().all() else torch.zeros_like(gradient)


def errors(net: TwoLayer, small: Samples, problem: Problem, split: str, settings: Settings, seed: int) -> list[float]:
    """Errors on a split of students trained on a distilled set, from starts that it was not distilled from."""
    starts = [net.start(generator(seed, "student", split, number)) for number in range(settings.students)]
    ends = [descend(net, start, small, settings.alpha, settings.inner_steps) for start in starts]
    return [error(net, end, problem.splits[split]) for end in ends]
