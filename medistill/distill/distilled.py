"""The result of every distillation method, and its one file."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from medistill.data.imageset import denormalise
from medistill.data.zca import Zca
from medistill.errors import UserError
from medistill.files import read_metadata, write_tensors
from medistill.nets import Architecture


@dataclass(frozen=True)
class Distilled:
    """A distilled set and everything needed to train on it.

    Attributes:
        images: (M, C, H, W) float32 as the networks see them: (pixel - mean) / std, then whitened by `zca` if
            there is one; not clamped.
        labels: (M, K) float32, a probability distribution a row; one-hot unless labels were learned.
        lr: the learned inner learning rate alpha, the step size that fits these images.
        classes: the K class names.
        mean: the constants of the normalisation, one a channel.
        std: likewise.
        architecture: the network it was distilled on.
        augment: the augmentation operations it was distilled with.
        provenance: method, start, iteration and whatever else tells how it was made.
        zca: the whitening of the data it was distilled from.
        sequence: (n, lr) pairs where the order of the images matters: a student first learns from the first n at that
            step size, then from the first n of the next pair, and so on; empty: from all at `lr`.
    """

    images: Tensor
    labels: Tensor
    lr: float
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    architecture: Architecture
    augment: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    zca: Zca | None = None
    sequence: tuple[tuple[int, float], ...] = ()

    @property
    def targets(self) -> Tensor:
        """(M,) int64, the most probable class of each image."""
        return self.labels.argmax(1)

    def pictures(self) -> Tensor:
        """(M, C, H, W) the images in the units of the source's pixels, [0, 1] for most; not clamped."""
        return denormalise(self.images, self.mean, self.std, self.zca)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        metadata = {name: getattr(self, name) for name in ("lr", "classes", "mean", "std", "augment", "provenance")}
        metadata |= {"architecture": asdict(self.architecture), "format": 1}
        if self.sequence:
            metadata["sequence"] = self.sequence
        tensors = {"images": self.images, "labels": self.labels}
        if self.zca is not None:
            metadata["zca"] = self.zca.digest
            tensors |= {f"zca_{name}": tensor for name, tensor in self.zca.tensors().items()}
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> "Distilled":
        """Read a file that `save` wrote."""
        return cls.of(path.name, read_metadata(path), load_file(path))

    @classmethod
    def of(cls, name: str, metadata: dict[str, Any], parts: dict[str, Any]) -> "Distilled":
        """The set of the metadata and the tensors that stand in a file of this name."""
        metadata, tensors = dict(metadata), dict(parts)
        if (version := metadata.pop("format")) != 1:
            raise UserError(f"{name}: format {version}, this version reads format 1; update medistill")
        for field_ in ("classes", "mean", "std", "augment"):
            metadata[field_] = tuple(metadata[field_])
        metadata["sequence"] = tuple((int(n), float(lr)) for n, lr in metadata.get("sequence", ()))
        metadata["architecture"] = Architecture(**metadata["architecture"])
        if "zca" in metadata:
            whitening = {part: tensors.pop(f"zca_{part}") for part in ("mean", "forward", "backward")}
            metadata["zca"] = Zca(**whitening, digest=metadata["zca"])
        return cls(**tensors, **metadata)
