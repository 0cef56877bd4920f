"""ImageSet: the one form in which data reach experts, evaluation and audit; memory-mapped from disk."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill.errors import UserError
from medistill.files import read_metadata, write_tensors


@dataclass(frozen=True)
class ImageSet:
    """Images with labels and patients.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, an index into `classes`.
        groups: (N,) int64, the patient as a number without meaning outside this file.
        classes: the class names, in the order of the labels.
        name: the data set's name, shown in MLflow and reports.
        split: train, val or test.
        mean: one constant a channel; networks see (image - mean) / std.
        std: one constant a channel. Constants, not statistics of the data.
        citation: how to cite the data.
        licence: under which terms they stand.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    classes: tuple[str, ...]
    name: str
    split: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    citation: str = ""
    licence: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """Images per class."""
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over pixels, labels, patients and class names: the identity of the data."""
        state = hashlib.sha256(repr((self.classes, tuple(self.images.shape), self.mean, self.std)).encode())
        for tensor in (self.images, self.labels, self.groups):
            state.update(tensor.contiguous().numpy().data)
        return state.hexdigest()

    def pixels(self) -> Tensor:
        """(N, C, H, W) float32 as the networks see them: (image - mean) / std."""
        return normalise(self.images, self.mean, self.std)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {"images": self.images, "labels": self.labels, "groups": self.groups}
        metadata = {
            name: getattr(self, name) for name in ("classes", "name", "split", "mean", "std", "citation", "licence")
        }
        write_tensors(path, tensors, metadata | {"digest": self.digest})

    @classmethod
    def load(cls, path: Path) -> "ImageSet":
        """Map a file that `save` wrote; pages are read from disk when touched."""
        metadata = read_metadata(path)
        metadata.pop("digest")
        for name in ("classes", "mean", "std"):
            metadata[name] = tuple(metadata[name])
        tensors: dict[str, Any] = load_file(path)
        return cls(**tensors, **metadata)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(image - mean) / std for images (N, C, H, W) and one constant a channel."""
    shape = (1, -1, 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)


def denormalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The inverse of `normalise`, not clamped."""
    shape = (1, -1, 1, 1)
    return pixels * pixels.new_tensor(std).view(shape) + pixels.new_tensor(mean).view(shape)


def require_classes(images: ImageSet) -> None:
    """Raise a UserError when a class has no image in the set."""
    empty = [name for name, count in zip(images.classes, images.counts, strict=True) if count == 0]
    if empty:
        raise UserError(
            f"data: the {images.split} split has no film of {', '.join(empty)}; "
            "add films, or leave the class out of data.classes"
        )
