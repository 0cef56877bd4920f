"""The state of a distillation: what a checkpoint holds, so that a resumed run ends with the same bytes."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from medistill.config import Distill

SOFT_START = 0.9
"""Probability of its own class that a learned label starts from; nearer to 1 the softmax hardly moves."""

ON_CPU = ("history", "skipped_in_a_row", "compiled")

HISTORY = ("loss", "loss_unweighted", "alpha", "weight_share", "weight_mean", "skipped")


@dataclass
class State:
    """Everything that changes from one iteration to the next; random numbers depend on the iteration alone.

    Attributes:
        images: (M, C, H, W) the pixels being learned.
        logits: (M, K) label logits, used when labels are learned; they start at a probability of SOFT_START.
        labels: (M, K) one-hot labels.
        step: the inner step size, as log alpha or alpha, a scalar.
        weight: W, (P,).
        images_velocity: momentum of the pixels.
        logits_velocity: momentum of the label logits.
        step_velocity: momentum of the step size.
        average: sum of the pixels after each step taken, weighted by (1 - ema) ema^age.
        history: (iterations done, 6) float64, the columns of HISTORY.
        skipped_in_a_row: iterations skipped since the last good one.
        compiled: whether the kernels are compiled, which rounds differently, a scalar.
    """

    images: Tensor
    logits: Tensor
    labels: Tensor
    step: Tensor
    weight: Tensor
    images_velocity: Tensor
    logits_velocity: Tensor
    step_velocity: Tensor
    average: Tensor
    history: Tensor
    skipped_in_a_row: Tensor
    compiled: Tensor

    @classmethod
    def begin(
        cls, images: Tensor, labels: Tensor, parameters: int, settings: Distill, compiled: bool = False
    ) -> "State":
        """The state before the first iteration, from start images and one-hot labels (M, K)."""
        others = (1 - SOFT_START) / (labels.shape[1] - 1)
        logits = torch.where(labels > 0, SOFT_START, others).to(labels.dtype).log()
        step = torch.as_tensor(settings.alpha, dtype=images.dtype, device=images.device)
        step = step.log() if settings.alpha_space == "log" else step
        return cls(
            images=images.clone(),
            logits=logits,
            labels=labels,
            step=step,
            weight=images.new_ones(parameters),
            images_velocity=torch.zeros_like(images),
            logits_velocity=torch.zeros_like(logits),
            step_velocity=torch.zeros_like(step),
            average=torch.zeros_like(images),
            history=torch.zeros(0, len(HISTORY), dtype=torch.float64),
            skipped_in_a_row=torch.zeros((), dtype=torch.int64),
            compiled=torch.tensor(compiled),
        )

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history)

    def tensors(self) -> dict[str, Tensor]:
        """Everything in it by name, untouched by later iterations."""
        return {f.name: getattr(self, f.name).clone() for f in fields(self)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor], device: torch.device) -> "State":
        """The state that `tensors` told."""
        return cls(**{name: tensor if name in ON_CPU else tensor.to(device) for name, tensor in tensors.items()})
