"""The two pure functions that nearly all computing time goes into, worked in pieces of a batch, compiled if it pays.

`slope` is the gradient of the loss in the parameters; `adjoint` is the derivative of <slope, v>. Both are sums
over images as long as the norm is per instance, so a batch is worked in equal pieces that fit the cache: memory
does not grow with the batch, and one shape is compiled once.
"""

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from medistill.nets import Flat

log = logging.getLogger(__name__)

PIECE_BYTES = {"cpu": 8 * 2**20, "cuda": 2**30}
"""Size of the widest activation of a piece: some caches on a CPU, a fraction of a GPU's memory."""

COST = 11
"""Operations of a slope (3) and an adjoint (8), in forward passes."""

EARNS_COMPILING = 1.5e13
"""Floating-point operations of a run from which compiling (half a minute) is earned back on a CPU."""


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over images of the cross entropy of logits (B, K) against label weights (B, K); 0 for a row of zeros."""
    return -(labels * logits.log_softmax(1)).sum()


class Kernels:
    """Gradient and adjoint of a network's loss on a batch, at flat parameters theta (P,).

    The loss is the mean over the batch of the cross entropy against label probabilities (B, K).

    Attributes:
        net: the network as a pure function.
        piece: images worked at once, so that `batch` images make equal pieces; 0 for a whole batch of any size.
        compiled: whether torch.compile is used; turns False when there is no compiler.
    """

    def __init__(self, net: Flat, device: torch.device, batch: int, compiled: bool = False):
        self.net = net
        self.device = device
        self.compiled = compiled
        most = max(1, PIECE_BYTES[device.type] // net.widest)
        self.piece = math.ceil(batch / math.ceil(batch / most)) if net.per_instance else 0
        self._ready: dict[Any, Callable[..., Any]] = {}

    def slope(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """d loss / d theta (P,) for images x (B, C, H, W) and label probabilities y (B, K)."""
        parts = [self._call(self._slope, theta, *part) for part in self._pieces(x, y)]
        return torch.stack(parts).sum(0)

    def adjoint(self, theta: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """<slope, v> and its derivatives in theta (P,), x (B, C, H, W) and y (B, K), for a constant v (P,)."""
        parts = [self._call(self._adjoint, theta, *part, v) for part in self._pieces(x, y)]
        inner, d_theta, dx, dy = (torch.stack(column) for column in zip(*parts, strict=True))
        size = len(x)
        return inner.sum(0), d_theta.sum(0), dx.flatten(0, 1)[:size], dy.flatten(0, 1)[:size] / size

    def _loss(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return soft_cross_entropy(self.net(theta, x), y)

    def _slope(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.func.grad(self._loss)(theta, x, y)

    def _adjoint(self, theta: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        def along(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return self._slope(theta, x, y) @ v

        derivatives, inner = torch.func.grad_and_value(along, argnums=(0, 1, 2))(theta, x, y)
        return inner, *derivatives

    def _pieces(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces of one size; the last is filled up with images of label weight 0, which add nothing."""
        size = len(x)
        each = self.piece or size
        y = y / size
        if missing := -size % each:
            x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
            y = torch.cat([y, y.new_zeros(missing, y.shape[1])])
        return zip(x.split(each), y.split(each), strict=True)

    def _call(self, function: Callable[..., Any], *arguments: Tensor) -> Any:
        """Run a function, compiled for these shapes the first time they are seen."""
        if self.compiled:
            key = (function.__name__, *(argument.shape for argument in arguments))
            if key not in self._ready:
                self._compile(key, function, *arguments)
            if self.compiled:
                return self._ready[key](*arguments)
        return function(*arguments)

    def _compile(self, key: Any, function: Callable[..., Any], *arguments: Tensor) -> None:
        """Compile a function for the shapes of these arguments; without a compiler, say so once and go on eagerly.

        It is traced first: a graph of plain operations stands alone, whatever objects the function is bound to.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        graph = make_fx(lambda *inputs: function(*inputs))(*arguments)
        ready = torch.compile(graph, fullgraph=True, dynamic=False, mode=mode)
        try:
            ready(*arguments)
            self._ready[key] = ready
        except Exception as error:
            cause = str(error).strip().splitlines()[0][:120]
            log.warning("torch.compile does not work here (%s); going on without it, about half as fast", cause)
            self.compiled = False


def earns_compiling(net: Flat, images: float) -> bool:
    """Whether a run that computes so many adjoints of an image is long enough to earn compiling back.

    A rule on the run's arithmetic and not on the clock, so that a run decides the same when it is repeated.
    """
    return images * COST * net.flops >= EARNS_COMPILING
