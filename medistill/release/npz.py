"""The view as one .npz, named as MedMNIST names its arrays."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from medistill.distill.distilled import Distilled
from medistill.files import atomic
from medistill.release.pictures import eight_bit

FILE = "distilled.npz"


def arrays(distilled: Distilled) -> dict[str, NDArray[np.generic]]:
    """What the file holds.

    As in MedMNIST (Yang et al., Scientific Data 2023): `train_images` (M, H, W) or (M, H, W, 3) uint8 and
    `train_labels` (M, 1); val and test are there and empty. Beside them stand `train_probabilities` (M, K) float32,
    `classes` (K,) text, `learning_rate`, `mean` and `std` (C,), and the order of an ordered set: `sequence_images` and
    `sequence_rates` (S,).
    """
    pixels = eight_bit(distilled).permute(0, 2, 3, 1).numpy()  # (M, H, W, C)
    images = pixels[..., 0] if pixels.shape[3] == 1 else pixels
    labels = distilled.targets.numpy()[:, None]
    counts, rates = ([pair[part] for pair in distilled.sequence] for part in (0, 1))
    empty = {f"{s}_images": images[:0] for s in ("val", "test")} | {f"{s}_labels": labels[:0] for s in ("val", "test")}
    return {
        "train_images": images,
        "train_labels": labels,
        **empty,
        "train_probabilities": distilled.labels.numpy(),
        "classes": np.array(distilled.classes, dtype=np.str_),
        "learning_rate": np.array(distilled.lr, dtype=np.float64),
        "sequence_images": np.array(counts, dtype=np.int64),
        "sequence_rates": np.array(rates, dtype=np.float64),
        "mean": np.array(distilled.mean, dtype=np.float64),
        "std": np.array(distilled.std, dtype=np.float64),
    }


def write_npz(path: Path, distilled: Distilled) -> None:
    """Write `arrays` uncompressed: another zlib would give other bytes, and nothing can swell on reading."""
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays(distilled).items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3  # Unix, wherever it is written
            member.external_attr = 0o644 << 16
            with archive.open(member, "w") as file:
                npy.write_array(file, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)


def read_npz(path: Path) -> Tensor:
    """(M, C, H, W) float32 in [0, 1], the pixels of what `write_npz` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        images = torch.from_numpy(archive["train_images"])
    channels_last = images[..., None] if images.ndim == 3 else images
    return channels_last.permute(0, 3, 1, 2).float() / 255
