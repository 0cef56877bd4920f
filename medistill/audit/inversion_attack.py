"""The attack of check 11: films reconstructed from the way networks move.

A distilled set makes networks move as the experts moved on the films, so the displacement of a network trained on it
stands for a sum of gradients of films ("Turning Black Box into White Box: Dataset Distillation Leaks", Chen et al.,
arXiv 2603.01053: the set encodes the weight trajectories of the networks it was distilled with). It is inverted as
gradients are (Geiping et al., "Inverting Gradients", NeurIPS 2020): images are sought, from noise, whose gradient
points against the displacement of several networks at once (cosine distance), with total variation as the prior,
by Adam on the sign of the slope, in [0, 1].

The gradient is taken half way between a network's two ends: it stands for the mean gradient of the steps. Two images
of a class are sought at once, which a sum of two films asks for; where they turn out as twins, their mean has less
noise than either. Chosen on single films, one a class (8 real ones at 64 px, 20 steps of .01 on networks of width 32
and depth 4): with 8 networks and 75 iterations all were recognised, with 4 networks .62 of them; at 32 px (9 phantom
films) the means raised the score from .50 to .83, more iterations with 4 networks nothing. Of two films a class ZNCC
was .70 to .94, of single ones .93, so films that share a class are found less often than the power says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit.check import Candidate, Private
from medistill.data.imageset import normalise
from medistill.kernels import Kernels
from medistill.nets import Flat, flatten
from medistill.seeds import generator

NETWORKS = 8
PER_CLASS = 2
"""Images sought of each class."""
ITERATIONS = 75
STEP = 0.05
"""Of Adam, in pixel units, falling to 0 with the cosine."""
SMOOTHNESS = 2.0
"""Weight of the total variation beside the cosine distance."""
START_SD = 0.1


@dataclass(frozen=True)
class Moved:
    """A network's parameters (P,) before and after some training."""

    start: Tensor
    end: Tensor

    @property
    def displacement(self) -> Tensor:
        """(P,)."""
        return self.end - self.start

    @property
    def middle(self) -> Tensor:
        """(P,) half way."""
        return self.start.lerp(self.end, 0.5)


@dataclass(frozen=True)
class Reconstruction:
    """What an inversion found.

    Attributes:
        images: (R, C, H, W) in [0, 1].
        explained: the cosine of the displacement and the images' negative gradient, the mean over the networks.
    """

    images: Tensor
    explained: float


def move(kernels: Kernels, start: Tensor, images: Tensor, labels: Tensor, lr: float, steps: int) -> Moved:
    """Train a network for some plain full-batch steps of size lr.

    Args:
        kernels: the network.
        start: its parameters, (P,).
        images: (M, C, H, W) as networks see them.
        labels: (M, K) probabilities.
        lr: step size.
        steps: their number.
    """
    theta = start
    for _ in range(steps):
        theta = theta - lr * kernels.slope(theta, images, labels)
    return Moved(start, theta)


def reconstruct(
    kernels: Kernels,
    moved: Sequence[Moved],
    labels: Tensor,
    shape: tuple[int, ...],
    seen: Callable[[Tensor], Tensor],
    source: torch.Generator,
) -> Reconstruction:
    """Images of given classes that would have moved the networks alike.

    Args:
        kernels: the networks' kind.
        moved: their ends.
        labels: (R, K) probabilities of the images sought.
        shape: (C, H, W) of an image.
        seen: from pixels in [0, 1] to what networks see.
        source: draws the noise they start from.
    """
    noise = torch.randn(len(labels), *shape, generator=source).to(labels)
    pixels = (0.5 + START_SD * noise).clamp(0, 1)
    optimiser = torch.optim.Adam([pixels], lr=STEP)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, ITERATIONS)
    total = 0.0
    for _ in range(ITERATIONS):
        gradient, total = torch.func.grad(roughness)(pixels) * SMOOTHNESS, 0.0
        x, pull = torch.func.vjp(seen, pixels)[:2]
        for network in moved:
            cosine, v = cosine_slope(-kernels.slope(network.middle, x, labels), network.displacement)
            # the loss is 1 - cosine and u the negative gradient: two signs that cancel
            gradient += pull(kernels.adjoint(network.middle, x, labels, v)[1])[0] / len(moved)
            total += cosine.item() / len(moved)
        pixels.grad = gradient.sign()
        optimiser.step()
        schedule.step()
        pixels.clamp_(0, 1)
    return Reconstruction(pixels, total)


def roughness(images: Tensor) -> Tensor:
    """Total variation: the mean absolute difference of neighbours, downwards plus rightwards, (B, C, H, W)."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def cosine_slope(u: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine of u (P,) with a displacement (P,), and its derivative in u; 0 where either is 0."""
    norms = (u.norm() * displacement.norm()).clamp_min(torch.finfo(u.dtype).tiny)
    cosine = F.cosine_similarity(u, displacement, dim=0)
    return cosine, displacement / norms - cosine * u / u.square().sum().clamp_min(torch.finfo(u.dtype).tiny)


class Inverter:
    """The attacker: networks, learning rate and number of steps, to be turned on any set of images of its classes.

    Attributes:
        net: the network that the set was distilled on.
        courses: (expert, first epoch, last epoch) whose start each network has; empty for fresh networks.
    """

    def __init__(self, candidate: Candidate, private: Private):
        final, config = candidate.distilled, private.config
        self.lr, self.steps = final.lr, config.distill.inner_steps
        self.classes, self.shape = len(final.classes), tuple(final.images.shape[1:])
        self.seen = partial(normalise, mean=final.mean, std=final.std, zca=final.zca)
        self.net = Flat(final.architecture).to(private.device, torch.float32)
        self.courses: list[tuple[int, int, int]] = []
        self._seed, self._device, self._say = config.seed, private.device, private.say
        self._trajectories = private.trajectories
        if self._trajectories is not None:
            first = [n * config.distill.max_start_epoch // NETWORKS for n in range(NETWORKS)]
            last = [epoch + config.distill.expert_epochs for epoch in first]
            self.courses = list(zip((n % len(self._trajectories) for n in range(NETWORKS)), first, last, strict=True))
            self._starts = [way.start for way in self.experts()]
        else:
            drawn = [generator(self._seed, "audit", "inversion", "network", n) for n in range(NETWORKS)]
            self._starts = [flatten(final.architecture.build(source)).to(self._device) for source in drawn]

    def experts(self) -> list[Moved]:
        """The experts' own ways on the films, in the order of `courses`."""
        ways = []
        if self._trajectories is not None:
            for expert, first, last in self.courses:
                rows = self._trajectories.rows(expert, first, last)
                ways.append(Moved(*(row.float().to(self._device) for row in rows)))
        return ways

    def moved_by(self, images: Tensor, labels: Tensor) -> list[Moved]:
        """The networks, trained on images (M, C, H, W) as they see them with labels (M, K), probabilities."""
        images, labels = images.float().to(self._device), labels.float().to(self._device)
        kernels = Kernels(self.net, self._device, len(images))
        return [move(kernels, start, images, labels, self.lr, self.steps) for start in self._starts]

    def moved_by_films(self, films: Tensor, classes: Tensor) -> list[Moved]:
        """The same for films (M, C, H, W) in [0, 1] of classes (M,)."""
        return self.moved_by(self.seen(films), F.one_hot(classes, self.classes))

    def invert(self, moved: Sequence[Moved], *name: str | int) -> Reconstruction:
        """`PER_CLASS` images of each class, class after class; the name decides the noise they start from."""
        self._say("inverting the displacement of networks trained on " + " ".join(map(str, name)))
        wanted = torch.arange(self.classes).repeat_interleave(PER_CLASS)
        labels = F.one_hot(wanted, self.classes).float().to(self._device)
        kernels = Kernels(self.net, self._device, len(labels))
        source = generator(self._seed, "audit", "inversion", *name)
        return reconstruct(kernels, moved, labels, self.shape, self.seen, source)
