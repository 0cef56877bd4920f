"""ImageSet: the one form in which data reach experts, evaluation and audit; memory-mapped from disk."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill.data.setfile import set_identity
from medistill.data.zca import Zca
from medistill.errors import UserError
from medistill.files import read_metadata, write_tensors

PART = 1024
"""Images brought to a device at a time."""


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
        std: one constant a channel. Constants, not statistics of a patient's data.
        citation: how to cite the data.
        licence: under which terms they stand.
        zca: whitening that follows the normalisation, fitted on the train split; it has a file of its own.
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
    zca: Zca | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """Images per class."""
        return torch.bincount(self.labels, minlength=len(self.classes)).tolist()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over pixels, labels, patients, class names and whitening: the identity of the data."""
        state = hashlib.sha256(set_identity(self.classes, tuple(self.images.shape), self.mean, self.std))
        for tensor in (self.images, self.labels, self.groups):
            state.update(tensor.contiguous().numpy().data)
        if self.zca is not None:
            state.update(self.zca.digest.encode())
        return state.hexdigest()

    def pixels(self) -> Tensor:
        """(N, C, H, W) float32 as the networks see them: (image - mean) / std, whitened where the set is."""
        return self.as_seen(self.images)

    def as_seen(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1], of this set or not, as the networks see them."""
        return normalise(images, self.mean, self.std, self.zca)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically; without the whitening."""
        tensors = {"images": self.images, "labels": self.labels, "groups": self.groups}
        metadata = {
            name: getattr(self, name) for name in ("classes", "name", "split", "mean", "std", "citation", "licence")
        }
        write_tensors(path, tensors, metadata | {"digest": self.digest})

    @classmethod
    def load(cls, path: Path) -> "ImageSet":
        """Map a file that `save` or `write_set` wrote; pages are read from disk when touched."""
        metadata = read_metadata(path)
        metadata.pop("digest")
        for name in ("classes", "mean", "std"):
            metadata[name] = tuple(metadata[name])
        tensors: dict[str, Any] = load_file(path)
        return cls(**tensors, **metadata)


@dataclass(frozen=True)
class Seen:
    """A set's images as the networks see them, made a batch at a time: the rest stays in the set's file.

    Each number is that of `ImageSet.pixels`, for normalising looks at one pixel alone; a whitened set, whose sums
    would round differently in parts, is refused.

    Attributes:
        whole: the set.
        device: where a batch goes.
    """

    whole: ImageSet
    device: torch.device

    def __post_init__(self) -> None:
        if self.whole.zca is not None:
            raise ValueError("a whitened set is not read in batches")

    @property
    def dtype(self) -> torch.dtype:
        """The type of a batch."""
        return self.whole.images.dtype

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """(B, C, H, W) of the images at these indices, on the device."""
        batch = self.whole.as_seen(self.whole.images[index])
        if self.device.type != "cuda":
            return batch.to(self.device)
        return batch.pin_memory().to(self.device, non_blocking=True)

    def held(self) -> Tensor:
        """(N, C, H, W) all of them on the device, brought there in parts."""
        images = torch.empty(self.whole.images.shape, dtype=self.dtype, device=self.device)
        for start in range(0, len(self), PART):
            images[start : start + PART] = self[start : start + PART]
        return images


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], zca: Zca | None = None) -> Tensor:
    """(image - mean) / std for images (N, C, H, W) and one constant a channel, then whitened if `zca` is given."""
    shape = (1, -1, 1, 1)
    scaled = (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)
    return scaled if zca is None else zca.apply(scaled)


def denormalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...], zca: Zca | None = None) -> Tensor:
    """The inverse of `normalise`, not clamped."""
    shape = (1, -1, 1, 1)
    scaled = pixels if zca is None else zca.invert(pixels)
    return scaled * scaled.new_tensor(std).view(shape) + scaled.new_tensor(mean).view(shape)


def require_classes(images: ImageSet) -> None:
    """Raise a UserError when a class has no image in the set."""
    empty = [name for name, count in zip(images.classes, images.counts, strict=True) if count == 0]
    if empty:
        raise UserError(
            f"data: the {images.split} split has no film of {', '.join(empty)}; "
            "add films, or leave the class out of data.classes"
        )
