"""Trajectories on disk: one safetensors file an expert, a row of parameters an epoch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from medistill.errors import UserError
from medistill.files import read_metadata, write_tensors
from medistill.nets import Architecture, Flat


def save_trajectory(path: Path, rows: Tensor, architecture: Architecture, **metadata: Any) -> None:
    """Write rows (T+1, P), the parameters before training and after every epoch, atomically."""
    write_tensors(path, {"theta": rows}, {"architecture": asdict(architecture), **metadata})


@dataclass(frozen=True)
class Trajectories:
    """The experts' parameters, read row by row.

    Attributes:
        files: one file an expert.
        architecture: the network they belong to.
        epochs: T; rows 0 to T exist.
        size: P, parameters of a row.
    """

    files: tuple[Path, ...]
    architecture: Architecture
    epochs: int
    size: int

    @classmethod
    def open(cls, files: list[Path]) -> "Trajectories":
        """Open expert files and check that they belong together."""
        if not files:
            raise UserError("experts: there is no trajectory; run `medistill experts` first")
        found = set()
        for file in files:
            architecture = Architecture(**read_metadata(file)["architecture"])
            with safe_open(file, framework="pt") as opened:
                found.add((architecture, *opened.get_slice("theta").get_shape()))
        if len(found) > 1:
            raise UserError(f"experts: the trajectories differ in shape ({sorted(map(str, found))}); train them again")
        architecture, rows, size = found.pop()
        return cls(tuple(files), architecture, rows - 1, size)

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, expert: int, *epochs: int) -> list[Tensor]:
        """Parameters (P,) of an expert at the given epochs, read without loading the rest."""
        with safe_open(self.files[expert], framework="pt") as file:
            theta = file.get_slice("theta")
            return [torch.as_tensor(theta[epoch]).clone() for epoch in epochs]

    def answers(self, images: Tensor, expert: int = 0) -> Tensor:
        """(N, K) the logits that an expert gives images (N, C, H, W) after its last epoch."""
        net = Flat(self.architecture).to(images.device, images.dtype)
        theta = self.rows(expert, self.epochs)[0].to(images)
        with torch.no_grad():
            return torch.cat([net(theta, part) for part in images.split(256)])
