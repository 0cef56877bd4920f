"""Settings of MGDD."""

from dataclasses import dataclass

from medistill.config.rules import require


@dataclass(frozen=True)
class Mgdd:
    """MGDD (Liu and Wang, NeurIPS 2023): a meta-trained generator that a few steps adapt to a data set.

    Attributes:
        adapt: steps that adapt the generator to the films.
    """

    adapt: int = 100

    def __post_init__(self) -> None:
        require(self.adapt >= 1, f"distill.mgdd.adapt is {self.adapt}; give at least 1")
