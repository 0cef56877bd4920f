"""How much each real film looks like an image: the measure of the attacks that rank all films.

Two attackers look, and the one to whom a film stands out more counts.

- In place: a start film keeps its place while its pixels are learned, so nothing is shifted. What is learned is
  smooth and as large as the differences between films, and plain correlation goes by exactly that; so both are
  compared in the metric of the films' inverse covariance, at 32 px.
- Moved: the search of check 1 over flip, inversion, shift and scale.

On real films (1,422 at 32 px; 60 of them, each changed by what a distillation learned, scaled to an sd of .2 and .5
against the films' own .24) the own film was the most alike of all for .72 and .12 by plain correlation, .98 and .50
in place, .98 and .43 by both; for planted copies that are moved .20 in place and .88 by both.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit.search import SIZES, largest_zncc

RIDGE = 3.0
"""Added to the covariance, in mean variances of a pixel: few films do not tell the small ones."""
_TINY = 1e-6


def likeness(queries: Tensor, films: Tensor) -> Tensor:
    """How far each film stands out from the others in its likeness to each query: (M, N) float32 on the CPU.

    The larger of the two attackers' values, each atanh of its coefficient, minus its median over the films, in robust
    standard deviations (1.4826 times the median absolute deviation). Films are treated alike whatever set they are
    from, so where patients are exchangeable, so are their values.

    Args:
        queries: (M, C, H, W), in any units.
        films: (N, C, H, W) in [0, 1], on the device where it is to be computed.
    """
    queries, films = queries.to(films), films.float()
    return torch.maximum(_outstanding(in_place(queries, films)), _outstanding(largest_zncc(queries, films))).cpu()


def in_place(queries: Tensor, films: Tensor) -> Tensor:
    """Cosine (M, N) of queries (M, C, H, W) with films (N, C, H, W) in the inverse of the films' covariance.

    Every picture is shrunk to 32 px, centred and scaled to norm 1, and loses what it shares with the mean film; the
    covariance gets a ridge of `RIDGE` mean variances.
    """
    x, y = _unit(queries), _unit(films)
    common = F.normalize(y.mean(0), dim=0)
    x, y = (z - (z @ common)[:, None] * common for z in (x, y))
    covariance = y.T @ y / len(y)
    covariance += (RIDGE * covariance.diagonal().mean() + _TINY**2) * torch.eye(len(covariance)).to(covariance)
    root = torch.linalg.cholesky(covariance)
    x, y = (F.normalize(torch.linalg.solve_triangular(root, z.T, upper=False), dim=0) for z in (x, y))
    return (x.T @ y).float()


def _unit(pictures: Tensor) -> Tensor:
    """(N, P) float64: at most 32 px a side, mean 0, norm 1; a flat picture is 0."""
    factor = max(SIZES) / max(pictures.shape[2:])
    if factor < 1:
        size = [round(side * factor) for side in pictures.shape[2:]]
        pictures = F.interpolate(pictures.float(), size, mode="bilinear", antialias=True)
    pixels = pictures.flatten(1).double()
    pixels = pixels - pixels.mean(1, keepdim=True)
    norm = pixels.norm(dim=1, keepdim=True)
    return torch.where(norm > _TINY, pixels / norm.clamp_min(_TINY), 0)


def _outstanding(coefficients: Tensor) -> Tensor:
    """Coefficients (M, N) in robust standard deviations from the median of their row."""
    values = torch.atanh(coefficients.double().clamp(-1 + 1e-5, 1 - 1e-5))
    values = values - values.median(1, keepdim=True).values
    spread = 1.4826 * values.abs().median(1, keepdim=True).values
    return (values / spread.clamp_min(_TINY)).float()
