"""ZCA whitening and its inverse: the preprocessing under which trajectory matching reports its CIFAR figures."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill.files import read_metadata, write_tensors

EPS = 0.1
"""Added to every eigenvalue, as MTT does on images in [0, 1] (Cazenavette et al., CVPR 2022)."""

BLOCK = 4096


@dataclass(frozen=True)
class Zca:
    """Whitening of images (N, C, H, W), D = C H W values each, that stay as near to themselves as whitening permits.

    With the eigenvalues S and eigenvectors U of the training images' covariance X^T X / (N - 1), an image
    becomes (x - mean) U (S + eps)^-1/2 U^T, and U (S + eps)^1/2 U^T leads back: kornia's `ZCAWhitening`, which
    MTT uses. Both matrices and the mean are statistics of the training images.

    Attributes:
        mean: (D,) the mean training image.
        forward: (D, D), symmetric.
        backward: (D, D), its inverse.
        digest: SHA-256 of eps and the images it was fitted on, the same on every machine.
    """

    mean: Tensor
    forward: Tensor
    backward: Tensor
    digest: str

    @classmethod
    def fit(cls, images: Tensor, eps: float = EPS) -> "Zca":
        """The whitening of training images (N, C, H, W), N at least 2; computed in float64, 8 D² bytes a matrix."""
        flat = images.flatten(1)
        mean = torch.stack([part.double().sum(0) for part in flat.split(BLOCK)]).sum(0) / len(flat)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for part in flat.split(BLOCK):
            centred = part.double() - mean
            covariance.addmm_(centred.T, centred)
        values, vectors = torch.linalg.eigh(covariance / (len(flat) - 1))
        # rounding leaves eigenvalues of a singular covariance a little below zero
        scale = (values.clamp_min(0) + eps).sqrt()
        state = hashlib.sha256(repr((eps, tuple(images.shape))).encode())
        state.update(images.contiguous().numpy().data)
        return cls(mean, (vectors / scale) @ vectors.T, (vectors * scale) @ vectors.T, state.hexdigest())

    def apply(self, images: Tensor) -> Tensor:
        """Whitened images (N, C, H, W), of the same type as the images."""
        flat = (images.flatten(1) - self.mean.to(images)) @ self.forward.to(images)
        return flat.view_as(images)

    def invert(self, images: Tensor) -> Tensor:
        """The inverse of `apply`."""
        flat = images.flatten(1) @ self.backward.to(images) + self.mean.to(images)
        return flat.view_as(images)

    def tensors(self) -> dict[str, Tensor]:
        """What a file stores, float32: half the space, and images are float32 too."""
        return {name: getattr(self, name).float() for name in ("mean", "forward", "backward")}

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        write_tensors(path, self.tensors(), {"digest": self.digest})

    @classmethod
    def load(cls, path: Path) -> "Zca":
        """Read a file that `save` wrote."""
        metadata = read_metadata(path)
        tensors: dict[str, Any] = load_file(path)
        return cls(**tensors, digest=metadata["digest"])
