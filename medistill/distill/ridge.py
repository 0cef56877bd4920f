"""Ridge regression on random features, and the labels of synthetic images that serve it best, in closed form."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from medistill.nets import Architecture
from medistill.nets.embedding import embedding

Features = Callable[[Tensor], Tensor]

NEGLIGIBLE = 1e-7
"""Share of a column's length that keeps least squares solvable where two synthetic images are the same."""


def feature_map(architecture: Architecture, generator: torch.Generator, device: torch.device) -> Features:
    """A random network up to its last linear layer: (B, C, H, W) -> (B, F); its parameters stay as they are."""
    return partial(embedding, architecture.build(generator).requires_grad_(False).eval().to(device))


def solve(synthetic: Tensor, real: Tensor, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The labels Y (M, K) of synthetic images, and the squared error a real image that is left with them.

    Y minimises || R S^T (S S^T + l I)^-1 Y - T ||^2, the answers of ridge regression on (S, Y) to the real images, for
    features S (M, F) and R (B, F) and targets T (B, K); l is `ridge` times the mean square of a row of S. With
    Z = (S S^T + l I)^-1 Y this is least squares in R S^T. So the error does not depend on l, which only decides how
    labels follow from Z: with a small one they are what the regression itself answers to the synthetic images.

    In float64, by QR; differentiable in S and R. No code of MGDD is public: the equation is this project's reading.
    """
    s, r, t = synthetic.double(), real.double(), targets.double()
    kernel, p = s @ s.T, r @ s.T  # (M, M), (B, M)
    ground = NEGLIGIBLE * p.detach().square().sum(0).mean().sqrt() * torch.eye(len(s)).to(p)
    q, upper = torch.linalg.qr(torch.cat([p, ground]))  # (B + M, M), (M, M)
    q = q[: len(p)]
    z = torch.linalg.solve_triangular(upper, q.T @ t, upper=True)  # (M, K)
    labels = kernel @ z + ridge * kernel.diagonal().mean() * z
    return labels, (t - p @ z).square().sum() / len(t)


def centred(labels: Tensor, classes: int) -> Tensor:
    """Targets (B, K) float32 of classes (B,) int64: one-hot less 1 / K, so that answering 0 is a guess."""
    return nn.functional.one_hot(labels, classes).float() - 1 / classes


def probabilities(labels: Tensor) -> Tensor:
    """Labels (M, K) for centred targets as probabilities: 1 / K added again, negatives clipped, rows scaled to 1.

    Such labels are answers of a regression, on a scale where 1 is certainty, so there is no temperature to choose, as
    softmax would need. A row that is negative throughout becomes even.
    """
    positive = (labels + 1 / labels.shape[1]).clamp_min(0)
    total = positive.sum(1, keepdim=True)
    return torch.where(total > 0, positive / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / labels.shape[1])
