"""Settings of the methods that match gradients or mean features instead of trajectories."""

from dataclasses import dataclass

from medistill.config.rules import require


@dataclass(frozen=True)
class Dm:
    """DM (Zhao and Bilen, WACV 2023): match the mean features of real and synthetic images.

    Attributes:
        iterations: steps on the pixels, each with a random network of its own (published: 20,000).
        batch: films of a class in each; a class with no more is taken whole. Memory grows with it.
        lr: step size on the pixels.
        momentum: SGD momentum on the pixels.
        lr_students: step size that goes with the images, for students; DM learns none.
    """

    iterations: int = 1000
    batch: int = 256
    lr: float = 1.0
    momentum: float = 0.5
    lr_students: float = 0.01

    def __post_init__(self) -> None:
        require(self.iterations >= 1, f"distill.dm.iterations is {self.iterations}; give at least 1")
        _check("dm", self)


@dataclass(frozen=True)
class Dc:
    """DC (Zhao et al., ICLR 2021) and DSA (Zhao and Bilen, ICML 2021): match the gradients of a network in training.

    Attributes:
        networks: fresh networks, one after another (published: 1,000).
        outer: steps on the pixels with each of them (published: 1 for one image a class, 10 for ten, 50 for fifty).
        inner: epochs on the synthetic images by which the network is trained between two of those steps (published:
            50 for ten images a class, 10 for fifty); with one step there is nothing in between.
        batch: films of a class in each step, and synthetic images in a step of the network; a class with no more is
            taken whole. Memory grows with it.
        lr: step size on the pixels.
        momentum: SGD momentum on the pixels.
        lr_net: step size of the network.
        lr_students: step size that goes with the images, for students; DC and DSA learn none.
    """

    networks: int = 100
    outer: int = 1
    inner: int = 1
    batch: int = 256
    lr: float = 0.1
    momentum: float = 0.5
    lr_net: float = 0.01
    lr_students: float = 0.01

    def __post_init__(self) -> None:
        for name in ("networks", "outer", "inner"):
            require(getattr(self, name) >= 1, f"distill.dc.{name} is {getattr(self, name)}; give at least 1")
        require(self.lr_net > 0, f"distill.dc.lr_net is {self.lr_net}; give a positive number")
        _check("dc", self)


def _check(group: str, settings: Dm | Dc) -> None:
    """What both share."""
    require(settings.batch >= 1, f"distill.{group}.batch is {settings.batch}; give at least 1")
    for name in ("lr", "lr_students"):
        value = getattr(settings, name)
        require(value > 0, f"distill.{group}.{name} is {value}; give a positive number")
    require(0 <= settings.momentum < 1, f"distill.{group}.momentum is {settings.momentum}; give 0 up to below 1")
