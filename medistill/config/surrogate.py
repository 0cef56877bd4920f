"""Settings of the methods that match gradients or mean features instead of trajectories."""

from dataclasses import dataclass

from medistill.config.rules import require


@dataclass(frozen=True)
class Dm:
    """DM (Zhao and Bilen, WACV 2023): match the mean features of real and synthetic images.

    Attributes:
        iterations: steps on the pixels, each with a network of its own.
    """

    iterations: int = 1000

    def __post_init__(self) -> None:
        require(self.iterations >= 1, f"distill.dm.iterations is {self.iterations}; give at least 1")


@dataclass(frozen=True)
class Dc:
    """DC (Zhao et al., ICLR 2021) and DSA (Zhao and Bilen, ICML 2021): match the gradients of a network in training.

    Attributes:
        networks: fresh networks, one after another.
    """

    networks: int = 100

    def __post_init__(self) -> None:
        require(self.networks >= 1, f"distill.dc.networks is {self.networks}; give at least 1")
