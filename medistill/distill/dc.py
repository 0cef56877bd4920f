"""DC: Dataset Condensation with Gradient Matching (Zhao, Mopuri and Bilen, ICLR 2021).

And DSA (Zhao and Bilen, ICML 2021): the same with differentiable siamese augmentation, and augmentation of the
network's training. Where paper and published code differ, it is the code's last version: plain SGD for the network.

What leaks: every step makes the synthetic images of a class move a network the way a batch of its real films does.
A gradient tells more of its films than a mean does, and gradients can be inverted (the attack of the audit's check on
inversion); here a film acts through the mean over a batch, and nothing bounds its part in a small class, where a
batch is the whole class. With a real start the images begin as patients' films and stay recognisable.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medistill import augment
from medistill.config import Distill, require
from medistill.config.surrogate import Dc
from medistill.distill.course import Given
from medistill.distill.surrogate import Pixels, Surrogate
from medistill.resources import watch

DAMPING = 1e-6
"""Added to the product of two rows' lengths, as in the published code: a row with next to no gradient has no say."""


def rows_distance(real: list[Tensor], synthetic: list[Tensor]) -> Tensor:
    """Sum over tensors (R, ...) and their rows of 1 - cosine of the angle between two gradients: DC's distance.

    A row is what leads to one output: an output channel of a convolution, an output of a linear layer.
    """
    total = synthetic[0].new_zeros(())
    for a, b in zip(real, synthetic, strict=True):
        a, b = a.flatten(1), b.flatten(1)  # (R, numbers)
        total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + DAMPING)).sum()
    return total


def distance_of_gradients(net: nn.Module, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
    """Distance of the gradients that films (B, C, H, W) and images (ipc, C, H, W) of a class give the network.

    Of biases and norms, whose parameters are vectors, nothing is compared, as in the published code.
    """
    parameters = [p for p in net.parameters() if p.dim() > 1]

    def gradients(x: Tensor, differentiable: bool) -> list[Tensor]:
        targets = torch.full((len(x),), label, device=x.device)
        return list(torch.autograd.grad(F.cross_entropy(net(x), targets), parameters, create_graph=differentiable))

    return rows_distance(gradients(real, False), gradients(synthetic, True))


class GradientMatching(Surrogate):
    """`outer` steps on the pixels an iteration, with a network that is trained on them in between.

    Args:
        given: with films.
        settings: of DC.
        name: dc or dsa.
        operations: of the augmentation, in matching and in training the network.

    Raises:
        UserError: when there would be no gradient to match.
    """

    def __init__(self, given: Given, settings: Dc, name: str, operations: list[str]):
        super().__init__(given, settings, name, operations, settings.networks)
        self.settings = settings
        require(
            settings.outer > 1 or given.architecture.name != "vit",
            f"distill.dc.outer is {settings.outer}, but a vit begins with a head of zero: before it is trained nothing "
            "below the head has a gradient to match; give 2 or more, or choose distill.method dm",
        )

    def iterate(self, pixels: Pixels, generator: torch.Generator) -> tuple[Pixels, float]:
        """One network; the loss is the sum over classes, its mean over the steps on the pixels."""
        net, total = self.network(generator), 0.0
        for number in range(self.settings.outer):
            if number:
                self.train(net, pixels.images, generator)
            pixels, loss = self.step(pixels, partial(distance_of_gradients, net), generator)
            total += loss
        return pixels, total / self.settings.outer

    def train(self, net: nn.Module, images: Tensor, generator: torch.Generator, epochs: int | None = None) -> None:
        """Train the network in place on images (M, C, H, W), each with numbers of its own in an augmentation."""
        optimizer, labels = torch.optim.SGD(net.parameters(), lr=self.settings.lr_net), self.given.labels
        for _ in range(self.settings.inner if epochs is None else epochs):
            for batch in torch.randperm(len(images), generator=generator).split(self.settings.batch):
                index = batch.to(images.device)
                x = augment.apply(images[index], augment.draw(self.operations, len(index), generator))
                optimizer.zero_grad()
                F.cross_entropy(net(x), labels[index]).backward()
                optimizer.step()

    def seconds(self, generator: torch.Generator) -> float:
        """Of one network, from one step on the pixels and one epoch of training."""
        net, device = self.network(generator), self.given.start.device
        with watch(device, memory=False) as matching:
            self.step(self.pixels, partial(distance_of_gradients, net), generator)
        with watch(device, memory=False) as training:
            self.train(net, self.pixels.images, generator, 1)
        outer, inner = self.settings.outer, self.settings.inner
        return outer * matching.seconds + (outer - 1) * inner * training.seconds


def dc(given: Given, settings: Distill) -> GradientMatching:
    """DC, which augments nothing."""
    return GradientMatching(given, settings.dc, "dc", [])


def dsa(given: Given, settings: Distill) -> GradientMatching:
    """DSA with the operations `settings.augment`."""
    return GradientMatching(given, settings.dc, "dsa", settings.augment)
