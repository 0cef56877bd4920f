"""Flat trajectories: experts trained by GSAM in place of plain gradients, as FTD does.

FTD (Du et al., Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, CVPR 2023) matches
experts whose loss is flat around every point of the trajectory, so that a student that has strayed from it still
learns what the images were made for. The steps are those of GSAM (Zhuang et al., Surrogate Gap Minimization
Improves Sharpness-Aware Training, ICLR 2022, algorithm 1): with g the gradient of a batch at theta and g_p that of
the same batch, augmented alike, at the nearby point of about the highest loss, theta + rho g / |g|,

    g = g_par + g_perp,    g_par = (<g, g_p> / |g_p|^2) g_p,    the step follows g_p - alpha g_perp.

g_p lowers the highest loss around theta; -g_perp raises the loss at theta itself and leaves the highest one alone
to first order, so that the gap between the two, a measure of sharpness, closes.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from medistill import sgd
from medistill.config.experts import Flat
from medistill.kernels import Kernels

EPSILON = 1e-12
"""Keeps a gradient of zero from being divided by its norm."""


@dataclass(frozen=True)
class FlatTask(sgd.Task):
    """Networks that are trained by GSAM.

    Attributes:
        rho: how far the perturbed gradient is taken from theta.
        alpha: weight of what is orthogonal to it.
    """

    rho: float = 0.0
    alpha: float = 0.0

    def kernels(self, networks: int = 1) -> Kernels:
        """Kernels whose descents are GSAM's."""
        device = self.starts[0].device
        return FlatKernels(self.rho, self.alpha, self.net, device, self.batch, self.compiled, networks)


def as_settings_say(task: sgd.Task, settings: Flat) -> sgd.Task:
    """The task itself, or with GSAM's steps where they are on."""
    return FlatTask(**vars(task), rho=settings.rho, alpha=settings.alpha) if settings.on else task


class FlatKernels(Kernels):
    """Kernels whose `descent` and `descents` return GSAM's direction, and the loss at theta.

    Args:
        rho: as in `FlatTask`.
        alpha: likewise.
        others: the arguments of `Kernels`.
    """

    def __init__(self, rho: float, alpha: float, *others: Any):
        super().__init__(*others)
        self.rho, self.alpha = rho, alpha

    def descent(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """GSAM's direction (P,) and the loss, for one network."""
        slope, loss = super().descent(theta, x, y)
        perturbed, _ = super().descent(self._away(theta, slope), x, y)
        return direction(slope, perturbed, self.alpha), loss

    def descents(self, thetas: Tensor, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """GSAM's directions (N, P) and the losses (N,), for several networks."""
        slopes, losses = super().descents(thetas, x, y)
        perturbed, _ = super().descents(self._away(thetas, slopes), x, y)
        return direction(slopes, perturbed, self.alpha), losses

    def _away(self, theta: Tensor, slope: Tensor) -> Tensor:
        """The point (..., P) of about the highest loss within rho."""
        return theta + self.rho * slope / (slope.norm(dim=-1, keepdim=True) + EPSILON)


def direction(slope: Tensor, perturbed: Tensor, alpha: float) -> Tensor:
    """g_p - alpha g_perp (..., P) of g `slope` and g_p `perturbed`."""
    square = perturbed.square().sum(-1, keepdim=True) + EPSILON**2
    parallel = (slope * perturbed).sum(-1, keepdim=True) / square * perturbed
    return perturbed - alpha * (slope - parallel)
