"""DM: Dataset Condensation with Distribution Matching (Zhao and Bilen, WACV 2023).

What leaks: every step draws real films of each class and pulls the mean of the synthetic images' features towards
theirs, under thousands of random networks. The films act through means over batches of 256 and no network is trained
on them, so that no single film is singled out; but nothing bounds its part in a small class, where a batch is the
whole class, and with a real start the images begin as patients' films and stay recognisable.
"""

from functools import partial

import torch
from torch import Tensor, nn

from medistill.config import Distill
from medistill.distill.course import Given
from medistill.distill.surrogate import Pixels, Surrogate
from medistill.nets.embedding import embedding
from medistill.resources import watch


def distance_of_means(net: nn.Module, real: Tensor, synthetic: Tensor, _label: int) -> Tensor:
    """Squared distance of the mean features of films (B, C, H, W) and images (ipc, C, H, W) of a class.

    Features are what the last linear layer receives; the gradient flows to the images only.
    """
    with torch.no_grad():
        target = embedding(net, real).mean(0)  # (F,)
    return (target - embedding(net, synthetic).mean(0)).square().sum()


class DistributionMatching(Surrogate):
    """One step on the pixels an iteration, each under a random network of its own."""

    def iterate(self, pixels: Pixels, generator: torch.Generator) -> tuple[Pixels, float]:
        """One step on the pixels; the loss is the sum over classes, before it."""
        net = self.network(generator).requires_grad_(False)
        return self.step(pixels, partial(distance_of_means, net), generator)

    def seconds(self, generator: torch.Generator) -> float:
        """Of one step."""
        with watch(self.given.start.device, memory=False) as used:
            self.iterate(self.pixels, generator)
        return used.seconds


def dm(given: Given, settings: Distill) -> DistributionMatching:
    """DM with the siamese augmentation `settings.augment`."""
    return DistributionMatching(given, settings.dm, "dm", settings.augment, settings.dm.iterations)
