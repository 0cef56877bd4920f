"""A released folder as a set ready to train on; verified before it is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from medistill.data.imageset import denormalise, normalise
from medistill.errors import UserError
from medistill.nets import Architecture
from medistill.release.manifest import AUDIT, EVALUATION, IMAGES, SUMS, release_digest
from medistill.release.verify import verify
from medistill.seeds import generator

__all__ = ["AUDIT", "EVALUATION", "IMAGES", "SUMS", "ReleasedSet", "load", "release_digest", "verify"]


@dataclass(frozen=True, eq=False)
class ReleasedSet(Dataset[tuple[Tensor, Tensor]]):
    """A released set, ready to train on; item i is (image (C, H, W) normalised, soft label (K,)).

    Attributes:
        images: (M, C, H, W) float32 as the networks see them: (pixel - mean) / std.
        labels: (M, K) float32, a probability distribution a row.
        lr: the learning rate that belongs to these images.
        sequence: (n, lr) pairs where the order of the images matters: a student first learns from the first n at that
            learning rate, then from the first n of the next pair, and so on; empty: from all at `lr`.
        classes: the K class names.
        mean: the constants of the normalisation, one a channel.
        std: likewise.
        architecture: the network it was distilled on.
        augment: the augmentation operations it was distilled with.
        provenance: how it was made.
        evaluation: what networks trained on it reached on real films.
        audit: what was attacked, and with which result.
        config: the settings it was made with, paths and people withheld.
        digest: the release's, SHA-256 of its SHA256SUMS.
        images_sha256: of its distilled.safetensors.
        fingerprint: of the key that signed the release; None: nobody did.
        folder: where it was read from.
    """

    images: Tensor
    labels: Tensor
    lr: float
    sequence: tuple[tuple[int, float], ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    architecture: Architecture
    augment: tuple[str, ...]
    provenance: dict[str, Any]
    evaluation: dict[str, Any]
    audit: dict[str, Any]
    config: dict[str, Any]
    digest: str
    images_sha256: str
    fingerprint: str | None
    folder: Path

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    @property
    def targets(self) -> Tensor:
        """(M,) int64, the most probable class of each image."""
        return self.labels.argmax(1)

    def normalise(self, x: Tensor) -> Tensor:
        """Real films x (B, C, H, W) or (C, H, W) in [0, 1] as the networks see them; same shape.

        Raises UserError for another size, or for pixels outside [0, 1].
        """
        expected = tuple(self.images.shape[1:])
        if tuple(x.shape[-3:]) != expected or x.ndim not in (3, 4):
            raise UserError(f"films: shape {tuple(x.shape)}; resize them to (B, C, H, W) = (B, {expected})")
        if not x.is_floating_point() or not bool(((x >= 0) & (x <= 1)).all()):
            raise UserError("films: pixels must be floats in [0, 1]; divide by the largest grey value first")
        return normalise(x.reshape(-1, *expected), self.mean, self.std).reshape(x.shape)

    def pictures(self) -> Tensor:
        """(M, C, H, W) the images to look at, [0, 1] for most pixels; not clamped."""
        return denormalise(self.images, self.mean, self.std)

    def network(self, seed: int) -> nn.Module:
        """A freshly initialised network of the architecture the set was distilled on."""
        return self.architecture.build(generator(seed, "network"))


def load(folder: str | Path, pub: str | Path | None = None) -> ReleasedSet:
    """Read a folder that `write_release` wrote; with `pub`, the file of a public key, only one that this key signed.

    Raises:
        UserError: there is no such folder, or no such key.
        ReleaseError: the release is not what it claims to be, see `medistill.release.verify.verify`.
    """
    verified = verify(Path(folder), pub)
    distilled = verified.distilled
    return ReleasedSet(
        images=distilled.images,
        labels=distilled.labels,
        lr=distilled.lr,
        sequence=distilled.sequence,
        classes=distilled.classes,
        mean=distilled.mean,
        std=distilled.std,
        architecture=distilled.architecture,
        augment=distilled.augment,
        provenance=distilled.provenance,
        evaluation=verified.evaluation,
        audit=verified.audit,
        config=verified.config,
        digest=verified.digest,
        images_sha256=verified.images_sha256,
        fingerprint=verified.fingerprint,
        folder=verified.folder,
    )
