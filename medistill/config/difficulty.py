"""Settings of difficulty-aligned trajectory matching."""

from dataclasses import dataclass
from typing import Literal

from medistill.config.rules import require


@dataclass(frozen=True)
class Difficulty:
    """DATM (Guo et al., ICLR 2024): few images match early, easy epochs of the experts, many match late ones.

    Attributes:
        min_start_epoch: starts are drawn from this epoch on; T- of the paper.
        first_max: up to which epoch, exclusive, in the first iteration; it grows evenly to distill.max_start_epoch (T
            and T+ of the paper). 0: distill.max_start_epoch from the first on.
        widened_at: the iteration from which distill.max_start_epoch holds; 0: the last.
        labels: what learned labels start from: `class`, or the answers of the `expert` after its last epoch.
        correct: take as a real start only films that this expert classifies correctly.
    """

    min_start_epoch: int = 0
    first_max: int = 0
    widened_at: int = 0
    labels: Literal["class", "expert"] = "class"
    correct: bool = False

    @property
    def on(self) -> bool:
        """Whether anything differs from plain matching."""
        return self != Difficulty()

    def __post_init__(self) -> None:
        for name in ("min_start_epoch", "first_max", "widened_at"):
            value = getattr(self, name)
            require(value >= 0, f"distill.difficulty.{name} is {value}; give 0 or more")
        require(
            self.first_max == 0 or self.first_max > self.min_start_epoch,
            f"distill.difficulty.first_max is {self.first_max}, not above min_start_epoch {self.min_start_epoch}; "
            "give a later epoch, or 0",
        )
