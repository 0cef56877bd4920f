"""The two pure functions that nearly all computing time goes into, worked in pieces of a batch, compiled if it pays.

`slope` is the gradient of the loss in the parameters; `adjoint` is the derivative of <slope, v>. Both are sums
over images as long as the norm is per instance, so a batch is worked in equal pieces that fit the cache: memory
does not grow with the batch, and one shape is compiled once.
"""

import copy
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch._inductor
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from medistill.nets import Flat

log = logging.getLogger(__name__)

PIECE_BYTES = {"cpu": 13 * 2**20, "cuda": 2**30}
"""Size of the widest activation of a piece: some caches on a CPU, a fraction of a GPU's memory."""

SLOPE_COST, ADJOINT_COST = 3, 8
"""Operations, in forward passes."""

Net = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, K) at parameters theta (P,) of images x (B, C, H, W)."""

EARNS_COMPILING = 1.5e13
"""Floating-point operations of a run from which compiling (half a minute) is earned back on a CPU."""


def soft_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over images of the cross entropy of logits (B, K) against label weights (B, K); 0 for a row of zeros."""
    return -(labels * logits.log_softmax(1)).sum()


def _loss(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return soft_cross_entropy(net(theta, x), y)


def _slope(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.func.grad(partial(_loss, net))(theta, x, y)


def _slope_and_loss(net: Net, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """As `_slope`, by autograd: `torch.func.grad` keeps itself differentiable, which costs a tenth or more."""
    with torch.enable_grad():
        theta = theta.detach().requires_grad_()
        loss = _loss(net, theta, x, y)
        return torch.autograd.grad(loss, theta)[0], loss.detach()


def _slopes_and_losses(net: Net, thetas: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.func.vmap(torch.func.grad_and_value(partial(_loss, net)))(thetas, x, y)


def _adjoint(net: Net, theta: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    pull = torch.func.vjp(partial(_slope, net), theta, x, y)[1]
    found: tuple[Tensor, ...] = pull(v)
    return found


class Kernels:
    """Gradient and adjoint of a network's loss on a batch, at flat parameters theta (P,).

    The loss is the mean over the batch of the cross entropy against label probabilities (B, K).

    Attributes:
        net: the network as a pure function.
        piece: images worked at once, so that `batch` images make equal pieces; 0 for a whole batch of any size.

    Args:
        batch: images of a batch.
        compiled: whether to use torch.compile.
        networks: how many are worked at once, by `descents` or in threads; they share the memory of a piece.
    """

    def __init__(self, net: Flat, device: torch.device, batch: int, compiled: bool = False, networks: int = 1):
        self.net = net
        self.device = device
        self._asked = compiled
        self._identity = net.identity
        most = max(1, PIECE_BYTES[device.type] // (net.widest * networks))
        self.piece = math.ceil(batch / math.ceil(batch / most)) if net.per_instance else 0

    @property
    def compiled(self) -> bool:
        """Whether torch.compile is used; turns False when there is no compiler."""
        return self._asked and COMPILER.works

    def for_another_thread(self) -> "Kernels":
        """Kernels that may be used at the same time: with a network of their own."""
        twin = copy.copy(self)
        twin.net = copy.deepcopy(self.net)
        return twin

    def slope(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """d loss / d theta (P,) for images x (B, C, H, W) and label probabilities y (B, K)."""
        return self.descent(theta, x, y)[0]

    def adjoint(self, theta: Tensor, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The derivatives of <slope, v> in theta (P,), x (B, C, H, W) and y (B, K), for a constant v (P,)."""
        parts = [self._call(_adjoint, theta, *part, v) for part in self._pieces(x, y)]
        d_theta, dx, dy = zip(*parts, strict=True)
        return _total(d_theta), torch.cat(dx)[: len(x)], torch.cat(dy)[: len(x)] / len(x)

    def descent(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `slope`, and the loss (a scalar); for training, where no further derivative is taken."""
        parts = [self._call(_slope_and_loss, theta, *part) for part in self._pieces(x, y)]
        slopes, losses = zip(*parts, strict=True)
        return _total(slopes), _total(losses)

    def descents(self, thetas: Tensor, x: Sequence[Tensor], y: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `descent` for several networks at once, thetas (N, P), each on its own batch: (N, P) and losses (N,)."""
        pieces = [self._pieces(*batch) for batch in zip(x, y, strict=True)]
        parts = [
            self._call(_slopes_and_losses, thetas, *(torch.stack(column) for column in zip(*cut, strict=True)))
            for cut in zip(*pieces, strict=True)
        ]
        slopes, losses = zip(*parts, strict=True)
        return _total(slopes), _total(losses)

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
        if not self._asked:
            return function(self.net, *arguments)
        arguments = tuple(argument.contiguous() for argument in arguments)  # as it was compiled for
        ready = COMPILER.ready(self._identity, self.net, function, *arguments)
        if ready is None:
            return function(self.net, *arguments)
        found = ready(*arguments)
        # a CUDA graph writes its next results to the place of these
        return tuple(part.clone() for part in found) if self.device.type == "cuda" else found


class Compiler:
    """Functions compiled for every network and shape they are asked for, once a process, whichever thread asks.

    Attributes:
        works: False once it is known that there is no compiler.
    """

    def __init__(self) -> None:
        self.works = True
        self._lock = threading.Lock()
        self._ready: dict[Any, Callable[..., Any]] = {}

    def ready(
        self, identity: str, net: Flat, function: Callable[..., Any], *arguments: Tensor
    ) -> Callable[..., Any] | None:
        """A function of a network, compiled for the shapes of these arguments and the caller's number of threads.

        None without a compiler, which is said once.
        """
        shapes = tuple((argument.shape, argument.dtype, argument.device) for argument in arguments)
        key = (function.__name__, identity, torch.get_num_threads(), shapes)
        with self._lock:
            if self.works and key not in self._ready:
                try:
                    self._ready[key] = _compile(net, function, *arguments)
                except (MemoryError, torch.OutOfMemoryError):
                    raise
                except Exception as error:
                    cause = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
                    log.warning("torch.compile does not work here (%s); going on without it, about half as fast", cause)
                    self.works = False
        return self._ready[key] if self.works else None


COMPILER = Compiler()


def _compile(net: Flat, function: Callable[..., Any], *arguments: Tensor) -> Callable[..., Any]:
    """Compile a function for the shapes of these arguments.

    It is traced first and given to torch.compile's backend as a graph of plain operations: nothing has to be
    looked up in Python at a call, and the graph stands alone, whatever objects the function is bound to.
    """
    options: dict[str, Any]
    if arguments[0].device.type == "cuda":
        options = {"triton.cudagraphs": True}
    else:
        net = net.for_compiler()
        # layers are channels-last already; C++ throughout lets other threads run Python meanwhile
        options = {"layout_optimization": False, "cpp_wrapper": True}
    # one tensor given twice would be one input of the graph, and the other would go unseen for ever
    apart = [argument.clone() for argument in arguments]
    graph = make_fx(lambda *inputs: function(net, *inputs))(*apart)
    for node in graph.graph.nodes:
        node.meta.clear()  # shapes as make_fx saw them, which the backend finds out for itself
    ready: Callable[..., Any] = torch._inductor.compile(graph, list(apart), options)
    ready(*arguments)
    return ready


def _total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of the pieces' contributions."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum(0)


def earns_compiling(net: Flat, images: float, cost: int = SLOPE_COST + ADJOINT_COST) -> bool:
    """Whether a run that computes so many slopes and adjoints of an image is long enough to earn compiling back.

    `cost` is what an image costs, in forward passes.

    A rule on the run's arithmetic and not on the clock, so that a run decides the same when it is repeated.
    """
    return images * cost * net.flops >= EARNS_COMPILING
