"""What the students of an arm answer to the films of validation and test; all that is measured is computed from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill.data.imageset import ImageSet, require_classes
from medistill.errors import UserError
from medistill.evaluate.student import Recipe, fit_all, predict
from medistill.files import write_tensors
from medistill.nets import Architecture
from medistill.resources import Used
from medistill.seeds import generator


@dataclass(frozen=True)
class Predictions:
    """Class probabilities by S networks. They are answers to patients' films and stay in the house.

    Attributes:
        val: (S, Nv, K) float32.
        test: (S, Nt, K) float32.
    """

    val: Tensor
    test: Tensor

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        write_tensors(path, {"val": self.val, "test": self.test}, {})

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote."""
        return cls(**load_file(path))


def predictions(
    images: Tensor,
    targets: Tensor,
    lr: float,
    architecture: Architecture,
    recipe: Recipe,
    val: ImageSet,
    test: ImageSet,
    numbers: Sequence[int],
    base_seed: int,
    device: torch.device,
    progress: Callable[[int], None] = lambda steps: None,
    compiled: bool | None = None,
    of: int = 0,
    told: Callable[[Used], None] | None = None,
    sequence: Sequence[tuple[int, float]] = (),
) -> Predictions:
    """Train one student a number on normalised images (N, C, H, W), targets (N, K) or (N,), and ask it.

    Arms with the same base seed share each number's initial network, so their differences are paired.
    `progress`, `compiled`, `of`, `told` and `sequence` are those of `fit_all`.

    Raises:
        UserError: a class without a film in `val` or `test`, or a loss that diverges.
    """
    for split in (val, test):
        require_classes(split)
    pixels = {"val": val.pixels(), "test": test.pixels()}
    found = {name: torch.zeros(len(numbers), len(asked), len(test.classes)) for name, asked in pixels.items()}
    generators = [generator(base_seed, "student", number) for number in numbers]
    for place, student in fit_all(
        images, targets, architecture, lr, recipe, generators, device, progress, compiled, of, told, sequence
    ):
        for name, asked in pixels.items():
            found[name][place] = predict(student, asked, device)
    return Predictions(**found)


def require_finite(found: Predictions, name: str, lr: float) -> None:
    """Raise a UserError when a network of the arm `name`, trained at `lr`, gives a film no probability."""
    wrong = [
        not (val.isfinite().all() and test.isfinite().all()) for val, test in zip(found.val, found.test, strict=True)
    ]
    if any(wrong):
        raise UserError(
            f"evaluation: {sum(wrong)} of {len(wrong)} networks of the arm {name!r}, trained at learning rate {lr:g}, "
            "answer a film with NaN, for their weights have grown beyond what a number can hold; lower evaluate.lr, or "
            "distill.alpha where the arm is a distilled set, and run the same command again"
        )


def require_positive(images: ImageSet, positive: str) -> None:
    """Raise a UserError when the class to be detected is none of the set's."""
    if positive not in images.classes:
        raise UserError(
            f"evaluation: the positive class {positive!r} is not among the classes "
            f"{', '.join(images.classes)}; name one of these"
        )
