"""IADD: Importance-Aware Adaptive Dataset Distillation (Li, Togo, Ogawa, Haseyama; Neural Networks 172, 2024).

The paper's algorithm box. With importance `off`, W stays 1 and it is MTT (Cazenavette et al., CVPR 2022).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from medistill import seeds
from medistill.config import Distill
from medistill.distill import importance
from medistill.distill.state import HISTORY, State
from medistill.distill.unroll import Matched, draw_steps, matching_gradient
from medistill.errors import UserError
from medistill.experts.trajectory import Trajectories
from medistill.nets import Flat

PATIENCE = 25


def distill(trajectories: Trajectories, state: State, settings: Distill, seed: int) -> Iterator[State]:
    """Run the iterations that `state` still lacks; it is changed in place and yielded after each.

    Needs trajectories and start images only, never the real data. Numbers drawn in an iteration depend on
    the seed and the iteration alone, so a run can stop after any of them.

    Raises:
        UserError: when steps stay non-finite or exploding.
    """
    net = Flat(trajectories.architecture).to(state.images.device, state.images.dtype)
    live = ~net.dead().to(state.images.device)
    for iteration in range(state.iteration, settings.iterations):
        generator = seeds.generator(seed, "distill", iteration)

        # draw an expert, a start theta_i and its target theta_{i+K}
        expert = int(torch.randint(len(trajectories), (), generator=generator))
        i = int(torch.randint(settings.max_start_epoch, (), generator=generator))
        start, target = (row.to(state.images) for row in trajectories.rows(expert, i, i + settings.expert_epochs))

        # train the student for J steps on the synthetic images and match, weighted by W
        steps = draw_steps(len(state.images), settings.batch, settings.inner_steps, settings.augment, generator)
        alpha = state.step.exp() if settings.alpha_space == "log" else state.step
        labels = state.logits.softmax(1) if settings.soft_labels else state.labels
        matched = matching_gradient(net, start, target, state.images, labels, alpha, state.weight, steps)

        # minimise jointly in pixels, alpha, labels and W
        good = _usable(matched, settings.loss_limit)
        if good:
            update(state, matched, alpha, labels, settings, iteration, live)
        _record(state, matched, settings, live, good)
        yield state


def update(
    state: State,
    matched: Matched,
    alpha: Tensor,
    labels: Tensor,
    settings: Distill,
    iteration: int,
    live: Tensor,
) -> None:
    """One SGD step with momentum on pixels, step size and labels; one plain step on W."""
    decay = 1.0
    if settings.lr_decay == "cosine":
        decay = (1 + math.cos(math.pi * iteration / settings.iterations)) / 2
    state.images_velocity.mul_(settings.momentum).add_(matched.images)
    state.images.sub_(settings.lr_images * decay * state.images_velocity)

    d_step = alpha * matched.alpha if settings.alpha_space == "log" else matched.alpha
    state.step_velocity.mul_(settings.momentum).add_(d_step)
    state.step.sub_(settings.lr_alpha * state.step_velocity)
    if settings.alpha_space == "linear":
        state.step.clamp_(min=1e-6)

    if settings.soft_labels:
        # the Jacobian of softmax: d logits = y * (dy - <y, dy>)
        d_logits = labels * (matched.labels - (labels * matched.labels).sum(1, keepdim=True))
        state.logits_velocity.mul_(settings.momentum).add_(d_logits)
        state.logits.sub_(settings.lr_labels * state.logits_velocity)

    if settings.importance != "off":
        gradient = importance.slope(state.weight, matched.residual, matched.distance)
        state.weight = importance.descend(
            state.weight, gradient, settings.lr_importance, live, guarded=settings.importance == "descend"
        )
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


def _usable(matched: Matched, limit: float) -> bool:
    """A step is taken when every derivative is finite and the student did not run away."""
    finite = all(bool(t.isfinite().all()) for t in (matched.loss, matched.images, matched.labels, matched.alpha))
    return finite and matched.plain.item() <= limit


def _record(state: State, matched: Matched, settings: Distill, live: Tensor, good: bool) -> None:
    """Append a line of history; stop when nothing but skipped iterations came for a while."""
    alpha = state.step.exp() if settings.alpha_space == "log" else state.step
    line = (
        matched.loss.item(),
        matched.plain.item(),
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
            f"distill.loss_limit {settings.loss_limit} (last: {matched.plain.item():.3g}, alpha {alpha.item():.3g}); "
            "lower distill.alpha, distill.lr_alpha, distill.lr_images or distill.lr_importance and run again"
        )
