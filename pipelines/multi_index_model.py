"""Multi-index data and a two-layer network whose derivatives are written out.

Data: x ~ N(0, I_d) and y = g(B x) + noise, where the r rows of B are orthonormal. g is a sum of Hermite polynomials of
degree 1 and 2 and of products of neighbours; its mean Hessian has rank r, so every direction of row(B) matters.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from medistill.seeds import generator

NOISE = 0.1
"""Standard deviation of the labels' noise, where the teacher's is 1: no network's error is below its square."""

SIZES = {"train": 4000, "validation": 2000, "test": 4000}

Samples = tuple[Tensor, Tensor]
"""Inputs (N, d) and labels (N, 1)."""


def teacher(z: Tensor) -> Tensor:
    """g(z) (N, 1) of z (N, r), of mean 0 and variance 1 on N(0, I_r).

    g = (sum_i z_i + sum_i (z_i^2 - 1) + sum_i z_i z_{i+1}) / sqrt(4 r - 1). Its Hessian, 2 on the diagonal and 1 beside
    it over that root, has the eigenvalues 2 + 2 cos(pi k / (r + 1)) > 0.
    """
    r = z.shape[1]
    total = z.sum(1) + (z.square() - 1).sum(1) + (z[:, 1:] * z[:, :-1]).sum(1)
    return total[:, None] / math.sqrt(4 * r - 1)


@dataclass(frozen=True)
class Problem:
    """Directions B (r, d), and samples of its teacher by split."""

    directions: Tensor
    splits: dict[str, Samples]

    @classmethod
    def draw(cls, d: int, r: int, seed: int) -> "Problem":
        """The problem of a seed; splits are drawn from generators of their own."""
        gaussian = torch.randn(d, r, generator=generator(seed, "directions", d, r))
        directions = torch.linalg.qr(gaussian)[0].T.contiguous()
        splits = {}
        for name, size in SIZES.items():
            draws = generator(seed, name, d, r)
            x = torch.randn(size, d, generator=draws)
            splits[name] = x, teacher(x @ directions.T) + NOISE * torch.randn(size, 1, generator=draws)
        return cls(directions, splits)


def energy(x: Tensor, directions: Tensor) -> float:
    """The share of the energy of inputs x (M, d) in the span of orthonormal rows (r, d): ||x B^T||^2 / ||x||^2."""
    return ((x @ directions.T).square().sum() / x.square().sum()).item()


class TwoLayer:
    """f(x) = 8 / sqrt(L) sum_k a_k s(w_k x + b_k) on flat theta = (w, b, a), (L (d + 2),), and its squared loss.

    s(z) = (z + sqrt(z^2 + 1/2)) / 2 is a smooth ReLU; the factor makes the speed of training the same at every width.
    The loss is the mean of (f - y)^2 / 2. `slope` and `adjoint` are those of `medistill.distill.unroll.Derivatives`, by
    hand: at this size autograd takes four times as long.
    """

    def __init__(self, d: int, width: int):
        self.d, self.width = d, width
        self.size = width * (d + 2)
        self.gain = 8 / math.sqrt(width)

    def start(self, draws: torch.Generator) -> Tensor:
        """Fresh parameters: pairs of neurons that cancel, so f = 0; w a fifth of the usual size.

        From small w a network's features come from what it is trained on and little from its start.
        """
        half = self.width // 2
        w = 0.2 / math.sqrt(self.d) * torch.randn(half, self.d, generator=draws)
        b = 0.5 * torch.randn(half, generator=draws)
        a = torch.randn(half, generator=draws) / 8
        return torch.cat([w.repeat(2, 1).reshape(-1), b.repeat(2), a, -a])

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """f (B, 1) at inputs x (B, d)."""
        w, b, a = self._parts(theta)
        return self.gain * _activation(x @ w.T + b)[0] @ a[:, None]

    def slope(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """d loss / d theta (P,) for inputs x (B, d) and labels y (B, 1)."""
        w, b, a = self._parts(theta)
        a = self.gain * a
        h, dh, _ = _activation(torch.addmm(b, x, w.T))  # (B, L)
        error = (h @ a - y[:, 0]) / len(x)
        dz = torch.outer(error, a) * dh
        return torch.cat([(dz.T @ x).reshape(-1), dz.sum(0), self.gain * (error @ h)])

    def adjoint(self, theta: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The derivatives of <slope, v> in theta (P,), x (B, d) and y (B, 1), for a constant v (P,).

        <slope, v> = sum_i error_i f'_i, where f' = h va + sum_k a_k dh_k z'_k is f's derivative along v, where a and va
        contain the gain.
        """
        (w, b, a), (vw, vb, va) = self._parts(theta), self._parts(v)
        a, va = self.gain * a, self.gain * va
        h, dh, ddh = _activation(torch.addmm(b, x, w.T))  # (B, L)
        error = (h @ a - y[:, 0]) / len(x)
        along = torch.addmm(vb, x, vw.T)  # z' (B, L)
        moved = (h @ va + (dh * along) @ a) / len(x)  # f' / B, which is d <slope, v> / d f
        through = torch.outer(error, a)
        dz = (torch.outer(moved, a) + torch.outer(error, va)) * dh + through * ddh * along
        da = self.gain * (moved @ h + error @ (dh * along))
        d_theta = torch.cat([(dz.T @ x).reshape(-1), dz.sum(0), da])
        return d_theta, dz @ w + (through * dh) @ vw, -moved[:, None]

    def _parts(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Views of w (L, d), b (L,) and a (L,)."""
        w, b, a = theta.split([self.width * self.d, self.width, self.width])
        return w.view(self.width, self.d), b, a


def _activation(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s, its derivative and its second derivative."""
    root = (z * z + 0.5).sqrt()
    return (z + root) / 2, (1 + z / root) / 2, 0.25 / root**3
