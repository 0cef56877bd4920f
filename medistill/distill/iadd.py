"""IADD: Importance-Aware Adaptive Dataset Distillation (Li, Togo, Ogawa, Haseyama; Neural Networks 172, 2024).

The paper's algorithm box. With importance `off`, W stays 1 and it is MTT (Cazenavette et al., CVPR 2022).
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from medistill import seeds
from medistill.config import Distill
from medistill.distill import importance
from medistill.distill.course import Share
from medistill.distill.state import HISTORY, State
from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.errors import UserError
from medistill.experts.trajectory import Trajectories
from medistill.kernels import Kernels
from medistill.nets import Flat
from medistill.resources import Used, watch

PATIENCE = 25


@dataclass(frozen=True)
class Gradient:
    """The matching loss and its derivatives, each a mean over the segments of an iteration.

    Attributes:
        loss: weighted loss, a scalar.
        plain: unweighted loss, a scalar.
        alpha: dL/d alpha, a scalar.
        images: dL/d images, (M, C, H, W).
        labels: dL/d label probabilities, (M, K).
        weight: dL/dW, (P,).
    """

    loss: Tensor
    plain: Tensor
    alpha: Tensor
    images: Tensor
    labels: Tensor
    weight: Tensor


def kernels_for(trajectories: Trajectories, state: State, settings: Distill) -> Kernels:
    """The network's kernels for the batches of this distillation, compiled or not as the state says."""
    net = Flat(trajectories.architecture).to(state.images.device, state.images.dtype)
    return Kernels(net, state.images.device, _batch(state, settings), bool(state.compiled))


def distill(
    kernels: Kernels,
    trajectories: Trajectories,
    state: State,
    settings: Distill,
    seed: int,
    share: Share | None = None,
    frozen: int = 0,
) -> Iterator[State]:
    """Run the iterations that `state` still lacks; it is changed in place and yielded after each.

    Needs trajectories and start images only, never the real data. Numbers drawn in an iteration depend on
    the seed, the iteration and the segment alone, so a run can stop after any of them, and any number of
    processes can share its segments. The first `frozen` images and their labels teach the student and stay as
    they are.

    Raises:
        UserError: when steps stay non-finite or exploding.
    """
    live = ~kernels.net.dead().to(state.images.device)
    group = importance.groups(list(kernels.net.shapes.values()), settings.granularity).to(state.images.device)
    for iteration in range(state.iteration, settings.iterations):
        alpha = state.step.exp() if settings.alpha_space == "log" else state.step
        labels = state.logits.softmax(1) if settings.soft_labels else state.labels
        gradient = mean_gradient(kernels, trajectories, state, alpha, labels, settings, seed, share or Share())
        gradient.images[:frozen] = 0
        gradient.labels[:frozen] = 0

        # minimise jointly in pixels, alpha, labels and W
        good = _usable(gradient, settings.loss_limit)
        if good:
            update(state, gradient, alpha, labels, settings, iteration, live, group)
        _record(state, gradient, settings, live, good)
        state.compiled.fill_(kernels.compiled)
        yield state


def mean_gradient(
    kernels: Kernels,
    trajectories: Trajectories,
    state: State,
    alpha: Tensor,
    labels: Tensor,
    settings: Distill,
    seed: int,
    share: Share,
) -> Gradient:
    """The gradient of the next iteration, a mean over its segments, the same in every process.

    The sum is taken in float64: the order in which float32 values are added then hardly ever shows, so that the
    result does not depend on the number of processes.
    """
    shapes = [alpha.shape, alpha.shape, alpha.shape, state.images.shape, labels.shape]
    if settings.learns_weights:
        shapes.append(state.weight.shape)
    sizes = [shape.numel() for shape in shapes]
    summed = torch.zeros(sum(sizes), dtype=torch.float64, device=state.images.device)
    for segment in range(share.first, settings.segments, share.every):
        # segment 0 draws what an iteration of one segment draws
        place = (state.iteration,) if segment == 0 else (state.iteration, "segment", segment)
        generator = seeds.generator(seed, "distill", *place)

        # draw an expert, a start theta_i and its target theta_{i+K}
        expert = int(torch.randint(len(trajectories), (), generator=generator))
        i = int(torch.randint(*start_epochs(settings, state.iteration), (), generator=generator))
        start, target = (row.to(state.images) for row in trajectories.rows(expert, i, i + settings.expert_epochs))

        # train the student for J steps on the synthetic images and match, weighted by W
        steps = draw_steps(len(state.images), settings.batch, settings.inner_steps, settings.augment, generator)
        matched = matching_gradient(kernels, start, target, state.images, labels, alpha, state.weight, steps)
        parts = [matched.loss, matched.plain, matched.alpha, matched.images, matched.labels]
        if settings.learns_weights:
            parts.append(importance.slope(state.weight, matched.residual, matched.distance))
        summed += torch.cat([part.reshape(-1) for part in parts])
    mean = (share.total(summed) / settings.segments).to(state.images.dtype)
    loss, plain, d_alpha, d_images, d_labels, *d_weight = (
        part.view(shape) for part, shape in zip(mean.split(sizes), shapes, strict=True)
    )
    return Gradient(loss, plain, d_alpha, d_images, d_labels, *(d_weight or [torch.zeros_like(state.weight)]))


def start_epochs(settings: Distill, iteration: int) -> tuple[int, int]:
    """The first epoch that a segment may start from, and the first after it that none may.

    The end grows evenly from `difficulty.first_max` to `max_start_epoch` (DATM, Guo et al., ICLR 2024, section 4.2).
    """
    chosen, last = settings.difficulty, settings.max_start_epoch
    if not chosen.first_max:
        return chosen.min_start_epoch, last
    first, widened = min(chosen.first_max, last), max(1, chosen.widened_at or settings.iterations - 1)
    return chosen.min_start_epoch, first + min(iteration, widened) * (last - first) // widened


def rehearse(kernels: Kernels, state: State, settings: Distill) -> Used:
    """What one segment of one iteration will take, from a single inner step of it: seconds and bytes.

    The first step warms up (and compiles), the median of three more is multiplied by J; the bytes are the peak of
    all of them and the stored parameters.
    """
    theta, v = torch.randn_like(state.weight) / 100, torch.randn_like(state.weight) / 100
    batch = _batch(state, settings)
    taken = []
    with watch(state.images.device) as all_four:
        for _ in range(4):
            with watch(state.images.device, memory=False) as step:
                kernels.slope(theta, state.images[:batch], state.labels[:batch])
                kernels.adjoint(theta, state.images[:batch], state.labels[:batch], v)
            taken.append(step.seconds)
    stored = theta.nbytes * (settings.inner_steps + 1)
    held = None if all_four.bytes is None else all_four.bytes + stored
    return Used(settings.inner_steps * statistics.median(taken[1:]), held)


def update(
    state: State,
    gradient: Gradient,
    alpha: Tensor,
    labels: Tensor,
    settings: Distill,
    iteration: int,
    live: Tensor,
    group: Tensor,
) -> None:
    """One SGD step with momentum on pixels, step size and labels; one plain step on W."""
    decay = 1.0
    if settings.lr_decay == "cosine":
        decay = (1 + math.cos(math.pi * iteration / settings.iterations)) / 2
    state.images_velocity.mul_(settings.momentum).add_(gradient.images)
    state.images.sub_(settings.lr_images * decay * state.images_velocity)

    d_step = alpha * gradient.alpha if settings.alpha_space == "log" else gradient.alpha
    state.step_velocity.mul_(settings.momentum).add_(d_step)
    state.step.sub_(settings.lr_alpha * state.step_velocity)
    if settings.alpha_space == "linear":
        state.step.clamp_(min=1e-6)

    if settings.soft_labels:
        # the Jacobian of softmax: d logits = y * (dy - <y, dy>)
        d_logits = labels * (gradient.labels - (labels * gradient.labels).sum(1, keepdim=True))
        state.logits_velocity.mul_(settings.momentum).add_(d_logits)
        state.logits.sub_(settings.lr_labels * state.logits_velocity)

    if settings.learns_weights:
        d_weight = gradient.weight
        if settings.granularity != "scalar":
            d_weight = importance.shared(d_weight, group, live)
        lr = -settings.lr_importance if settings.importance == "ascend" else settings.lr_importance
        state.weight = importance.step(state.weight, d_weight, lr, live, guarded=settings.importance != "literal")
    state.average.lerp_(state.images, 1 - settings.ema)


def result(state: State, settings: Distill) -> tuple[Tensor, Tensor, float]:
    """Images (M, C, H, W), label probabilities (M, K) and alpha of a finished state.

    The moving average is divided by the weight it has gathered, so that nothing of the start is left in it.
    """
    labels = state.logits.softmax(1) if settings.soft_labels else state.labels
    alpha = state.step.exp() if settings.alpha_space == "log" else state.step
    taken = int((state.history[:, HISTORY.index("skipped")] == 0).sum())
    images = state.average / (1 - settings.ema**taken) if settings.ema and taken else state.images
    return images, labels, alpha.item()


def _batch(state: State, settings: Distill) -> int:
    """Synthetic images an inner step."""
    return min(settings.batch or len(state.images), len(state.images))


def _usable(gradient: Gradient, limit: float) -> bool:
    """A step is taken when every derivative is finite and the student did not run away."""
    finite = all(bool(t.isfinite().all()) for t in (gradient.loss, gradient.images, gradient.labels, gradient.alpha))
    return finite and gradient.plain.item() <= limit


def _record(state: State, gradient: Gradient, settings: Distill, live: Tensor, good: bool) -> None:
    """Append a line of history; stop when nothing but skipped iterations came for a while."""
    alpha = state.step.exp() if settings.alpha_space == "log" else state.step
    line = (
        gradient.loss.item(),
        gradient.plain.item(),
        alpha.item(),
        importance.effective_share(state.weight, live),
        state.weight[live].mean().item(),
        0.0 if good else 1.0,
    )
    state.history = torch.cat([state.history, torch.tensor([line], dtype=torch.float64)])
    state.skipped_in_a_row = torch.zeros_like(state.skipped_in_a_row) if good else state.skipped_in_a_row + 1
    if state.skipped_in_a_row >= PATIENCE:
        raise UserError(
            f"distill: the last {PATIENCE} iterations were not finite or had an unweighted loss above "
            f"distill.loss_limit {settings.loss_limit} (last: {gradient.plain.item():.3g}, alpha {alpha.item():.3g}); "
            f"set distill.alpha to {settings.alpha / 10:g} (a small cohort wants a small one) and run again; if that "
            "is not enough, lower distill.lr_alpha, distill.lr_images or distill.lr_importance"
        )
