"""A distillation under way, by whichever method: what is needed to run it, to stop it and to go on with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill.errors import UserError
from medistill.experts.trajectory import Trajectories
from medistill.files import read_metadata, write_tensors
from medistill.nets import Architecture
from medistill.resources import Used


@dataclass(frozen=True)
class Films:
    """The training films, for methods that look at them.

    Attributes:
        images: (N, C, H, W) as the networks see them, on the device.
        labels: (N,) int64, likewise.
    """

    images: Tensor
    labels: Tensor

    def of_class(self, label: int) -> Tensor:
        """(n, C, H, W) the films of a class."""
        return self.images[self.labels == label]


@dataclass(frozen=True)
class Share:
    """Which segments of an iteration this process matches, and how it learns of the others'.

    Attributes:
        first: number of its first segment.
        every: its next one is that many further on; the number of processes.
        total: the sum of a tensor over all processes, the same in each.
    """

    first: int = 0
    every: int = 1
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor


@dataclass(frozen=True)
class Given:
    """What a method is given to start from; it takes what it needs.

    Attributes:
        start: (M, C, H, W) start images, class after class.
        labels: (M, K) their one-hot labels.
        architecture: the network to distil on.
        seed: every random number of the method comes from it.
        trajectories: of the experts; None for a method that needs none.
        films: the training films; None for a method that does not look at them.
        weight: (P,) importance weights that are known beforehand; None: 1 each.
        compiles: whether to use torch.compile, given whether the work is long enough to earn it.
        share: this process's share of the work.
    """

    start: Tensor
    labels: Tensor
    architecture: Architecture
    seed: int
    trajectories: Trajectories | None = None
    films: Films | None = None
    weight: Tensor | None = None
    compiles: Callable[[bool], bool] = lambda earned: False
    share: Share = field(default_factory=Share)

    def experts(self) -> Trajectories:
        """The trajectories, which a method that asks for them is always given."""
        assert self.trajectories is not None
        return self.trajectories

    def real(self) -> Films:
        """The films, which a method that asks for them is always given."""
        assert self.films is not None
        return self.films


@dataclass(frozen=True)
class Made:
    """What a method ends with.

    Attributes:
        images: (M, C, H, W) as the networks see them.
        labels: (M, K) probabilities.
        lr: the step size that belongs to the images.
        sequence: (n, lr) pairs where the order matters: a student first learns from the first n images at that step
            size, then from the first n of the next pair, and so on; empty: from all images at `lr`.
        provenance: what the method has to tell of itself.
        weights: by parameter tensor the importance it ended with; empty where there is none.
        also: tensors that were learned on the way and are kept beside the set, by name.
    """

    images: Tensor
    labels: Tensor
    lr: float
    sequence: tuple[tuple[int, float], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    also: dict[str, Tensor] = field(default_factory=dict)


class Course(ABC):
    """One distillation; a method is a subclass and a line in `medistill.distill.methods`.

    Attributes:
        columns: names of the numbers that every iteration leaves, the loss first.
        total: iterations from the first to the last.
        history: (iterations done, columns) float64 on the CPU.
        compiled: whether torch.compile is used; it is remembered, for it rounds differently.
    """

    columns: tuple[str, ...]
    total: int
    history: Tensor
    compiled: bool = False

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history)

    def record(self, *line: float) -> None:
        """Append what an iteration leaves to the history."""
        self.history = torch.cat([self.history, torch.tensor([line], dtype=torch.float64)])

    @abstractmethod
    def run(self) -> Iterator[None]:
        """Do the iterations that are left; it stops after each, when the state is whole.

        What an iteration draws depends on the seed and its number alone.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that changes from one iteration to the next, `history` with it, untouched by later ones."""

    @abstractmethod
    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, whose tensors are on the CPU now."""

    @abstractmethod
    def made(self) -> Made:
        """The distilled set, when the last iteration is done."""

    def rehearse(self) -> Used | None:
        """What all iterations that are left will take, from a few steps of them; None when that is not known."""
        return None


def empty_history(columns: tuple[str, ...]) -> Tensor:
    """(0, columns) of before the first iteration."""
    return torch.zeros(0, len(columns), dtype=torch.float64)


def save_checkpoint(path: Path, state: dict[str, Tensor], key: str) -> None:
    """Write a state; the key names the settings it belongs to, the threads its rounding."""
    write_tensors(path, state, {"key": key, "threads": torch.get_num_threads()})


def load_checkpoint(path: Path, key: str) -> dict[str, Tensor] | None:
    """Read a state and restore its number of threads; None when there is none of this key."""
    if not path.exists():
        return None
    metadata = read_metadata(path)
    if metadata["key"] != key:
        return None
    torch.set_num_threads(metadata["threads"])
    found: dict[str, Tensor] = load_file(path)
    return found


def require_finite(value: float, where: str, advice: str) -> None:
    """Raise a UserError for a loss that is no longer finite."""
    if not abs(value) < float("inf"):
        raise UserError(f"distill: {where} is not finite any more; {advice}")
