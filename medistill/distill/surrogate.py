"""What DM, DC and DSA share: the synthetic images of a class are set against a batch of its real films.

Each iteration has a fresh network, which stands in (a surrogate) for those that will be trained on the images.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medistill import augment, seeds
from medistill.config.surrogate import Dc, Dm
from medistill.distill.course import Course, Given, Made, empty_history, require_finite
from medistill.resources import Used, watch

Distance = Callable[[Tensor, Tensor, int], Tensor]
"""A scalar of the real films (B, C, H, W) and the synthetic images (ipc, C, H, W) of a class, and its number."""


@dataclass(frozen=True)
class Pixels:
    """Images (M, C, H, W) and their velocity in SGD, of the same shape; a step makes new ones."""

    images: Tensor
    velocity: Tensor

    def stepped(self, slope: Tensor, lr: float, momentum: float) -> "Pixels":
        """After a step of torch.optim.SGD without dampening."""
        velocity = momentum * self.velocity + slope
        return Pixels(self.images - lr * velocity, velocity)


def siamese(x: Tensor, drawn: augment.Drawn) -> Tensor:
    """Apply one operation to images x (B, C, H, W), with the same numbers (1, 3) for each."""
    return augment.apply(x, replace(drawn, numbers=drawn.numbers.expand(len(x), -1)))


class Surrogate(Course):
    """Pixels that follow the gradient of a distance between real films and synthetic images, class by class.

    Args:
        given: with films; a class without any keeps its start images.
        settings: of the method.
        name: of the method; its random numbers come from it.
        operations: of the siamese augmentation; none: films and images as they are.
        total: iterations.
    """

    columns = ("loss",)

    def __init__(self, given: Given, settings: Dm | Dc, name: str, operations: list[str], total: int):
        self.given, self.name, self.operations, self.total = given, name, operations, total
        self._shared = settings
        self.pixels = Pixels(given.start, torch.zeros_like(given.start))
        self.history = empty_history(self.columns)
        films, own = given.real(), given.labels.argmax(1)
        members = [(films.labels == k).nonzero().squeeze(1) for k in range(given.labels.shape[1])]
        self._classes = [(k, real, (own == k).nonzero().squeeze(1)) for k, real in enumerate(members) if len(real)]

    @abstractmethod
    def iterate(self, pixels: Pixels, generator: torch.Generator) -> tuple[Pixels, float]:
        """The pixels after an iteration, and its loss; nothing is changed in place."""

    @abstractmethod
    def seconds(self, generator: torch.Generator) -> float:
        """What an iteration takes, from trying it."""

    def network(self, generator: torch.Generator) -> nn.Module:
        """A fresh one where the images are."""
        return self.given.architecture.build(generator).to(self.given.start)

    def slope(self, distance: Distance, images: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
        """Derivative (M, C, H, W) of the distance, summed over classes, in the images; and the distance.

        The augmentation is siamese: one operation with one set of numbers is drawn for a class, and every film and
        every image of it goes through that very same one, as in the published code of DSA. With numbers for each
        sample the two batches, of different sizes, could not agree.
        """
        slope, losses = torch.zeros_like(images), []
        for label, members, own in self._classes:
            batch = torch.randperm(len(members), generator=generator)[: self._shared.batch].to(members.device)
            drawn = augment.draw(self.operations, 1, generator)
            x = images[own].requires_grad_()
            loss = distance(siamese(self.given.real().images[members[batch]], drawn), siamese(x, drawn), label)
            (slope[own],) = torch.autograd.grad(loss, x)
            losses.append(loss.detach().double())
        total = torch.stack(losses).sum().item()  # a GPU waits once
        require_finite(total, f"the loss of iteration {self.iteration + 1}", self._advice())
        return slope, total

    def step(self, pixels: Pixels, distance: Distance, generator: torch.Generator) -> tuple[Pixels, float]:
        """The pixels after one step down the slope, and the distance before it."""
        slope, loss = self.slope(distance, pixels.images, generator)
        return pixels.stepped(slope, self._shared.lr, self._shared.momentum), loss

    def run(self) -> Iterator[None]:
        """The iterations that are left."""
        while self.iteration < self.total:
            generator = seeds.generator(self.given.seed, self.name, self.iteration)
            self.pixels, loss = self.iterate(self.pixels, generator)
            self.record(loss)
            yield

    def state(self) -> dict[str, Tensor]:
        """Images and their velocity, which steps replace and leave as they are."""
        return {"images": self.pixels.images, "velocity": self.pixels.velocity, "history": self.history}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from them."""
        device = self.given.start.device
        self.pixels = Pixels(state["images"].to(device), state["velocity"].to(device))
        self.history = state["history"]

    def made(self) -> Made:
        """The images; labels and step size are as given, for neither is learned."""
        lr, told = self._shared.lr_students, {"networks": self.total}
        return Made(self.pixels.images, self.given.labels, lr, provenance=told)

    def rehearse(self) -> Used:
        """One iteration, times all that are left."""
        generator = seeds.generator(self.given.seed, self.name, "rehearsal")
        with watch(self.given.start.device) as used:
            self.seconds(generator)  # warms up
            each = self.seconds(generator)
        return Used(each * (self.total - self.iteration), used.bytes)

    def _advice(self) -> str:
        group = "dm" if isinstance(self._shared, Dm) else "dc"
        return f"lower distill.{group}.lr, which is {self._shared.lr:g}"
