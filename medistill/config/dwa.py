"""Settings of DWA."""

from dataclasses import dataclass

from medistill.config.rules import require


@dataclass(frozen=True)
class Dwa:
    """DWA (Du et al., NeurIPS 2024): squeeze the films into a teacher, recover images from it, relabel them.

    Attributes:
        teacher_epochs: passes of the teacher over the training films.
        iterations: steps on the pixels of each image.
    """

    teacher_epochs: int = 30
    iterations: int = 200

    def __post_init__(self) -> None:
        for name in ("teacher_epochs", "iterations"):
            require(getattr(self, name) >= 1, f"distill.dwa.{name} is {getattr(self, name)}; give at least 1")
