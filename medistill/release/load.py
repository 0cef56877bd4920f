"""Read a released folder: every file checked against SHA256SUMS, then every value; nothing is unpickled."""

import json
import math
import os
import re
import stat
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import Dataset

from medistill.config.net import misfit
from medistill.data.imageset import denormalise, normalise
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.files import sha256
from medistill.nets import NETWORKS, Architecture
from medistill.seeds import generator

SUMS = "SHA256SUMS"
IMAGES = "distilled.safetensors"
EVALUATION = "evaluation.json"
AUDIT = "audit.json"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_AGAIN = "fetch the release again from its source"


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


def load(folder: str | Path) -> ReleasedSet:
    """Read a folder that `write_release` wrote.

    Raises UserError naming the file that was changed, is missing, is not listed, or holds what none can.
    """
    folder = Path(folder)
    verify(folder)
    distilled = _distilled(folder / IMAGES)
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
        evaluation=_json(folder / EVALUATION),
        audit=_json(folder / AUDIT),
        folder=folder,
    )


def verify(folder: Path) -> None:
    """Raise a UserError naming a file unless a folder holds exactly those of its SHA256SUMS, unchanged.

    Only files found by walking the folder are opened, so no listed name can lead outside of it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that holds {SUMS}")
    found = _files(folder)
    if SUMS not in found:
        raise UserError(f"{folder}: no {SUMS} in it, so this is no release; {_AGAIN}")
    listed = _sums(folder / SUMS)
    for name in (IMAGES, EVALUATION, AUDIT, *listed):
        if name not in found:
            raise UserError(f"{name}: missing from the release; {_AGAIN}")
        if name not in listed:
            raise UserError(f"{name}: not listed in {SUMS}; {_AGAIN}")
    for name in found:
        if name != SUMS and name not in listed:
            raise UserError(f"{name}: not listed in {SUMS}; it does not belong to the release, move it away")
    for name, digest in listed.items():
        if sha256(folder / name) != digest:
            raise UserError(f"{name}: changed since the release was written (its SHA-256 differs); {_AGAIN}")


def _files(folder: Path) -> list[str]:
    """The names of all plain files under a folder, sorted; links and devices are refused."""
    names = []
    for root, directories, files in os.walk(folder, followlinks=False):
        for entry in (*directories, *files):
            path = Path(root, entry)
            name, mode = path.relative_to(folder).as_posix(), path.lstat().st_mode
            if stat.S_ISREG(mode):
                names.append(name)
            elif not stat.S_ISDIR(mode):
                raise UserError(f"{name}: neither a plain file nor a folder; a release holds no links; {_AGAIN}")
    return sorted(names)


def _sums(path: Path) -> dict[str, str]:
    """Names and digests of a file in the format of `sha256sum`."""
    listed: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if not match:
            raise UserError(f"{SUMS}: line {number} is not '<sha256>  <name>'; {_AGAIN}")
        digest, name = match.groups()
        if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")) or name == SUMS:
            raise UserError(f"{SUMS}: line {number} names {name!r}, which is no file of a release; {_AGAIN}")
        if name in listed:
            raise UserError(f"{SUMS}: line {number} names {name!r} a second time; {_AGAIN}")
        listed[name] = digest
    return listed


def _text(path: Path) -> str:
    """The text of a UTF-8 file."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: not a text file; {_AGAIN}") from error


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        value = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path.name}: not JSON; {_AGAIN}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path.name}: a {type(value).__name__} where a JSON object belongs; {_AGAIN}")
    return value


def _distilled(path: Path) -> Distilled:
    """The distilled set of a file from elsewhere, every value of it checked."""
    try:
        distilled = Distilled.load(path)
        problem = _problem(distilled)
    except (
        SafetensorError,
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise UserError(f"{path.name}: not a distilled set ({type(error).__name__}: {error}); {_AGAIN}") from error
    if problem:
        raise UserError(f"{path.name}: {problem}; {_AGAIN}")
    return distilled


def _problem(distilled: Distilled) -> str | None:
    """What is wrong with the values of a distilled set, or None."""
    images, labels, net = distilled.images, distilled.labels, distilled.architecture
    sizes = (net.channels, net.classes, net.size, net.width, net.depth)
    if distilled.zca is not None:
        return "a whitening, which no release carries"
    if net.name not in NETWORKS:
        return f"network {net.name!r} is not one of {', '.join(NETWORKS)}"
    if any(type(size) is not int or size < 1 for size in sizes):
        return f"no network can be built of the sizes {sizes}"
    if wrong := misfit(net.name, net.size, net.width, net.depth):
        return f"no network can be built: {wrong}"
    if images.dtype != torch.float32 or labels.dtype != torch.float32:
        return f"images are {images.dtype} and labels {labels.dtype} where float32 belongs"
    if images.ndim != 4 or len(images) < 1 or tuple(images.shape[1:]) != (net.channels, net.size, net.size):
        return f"images of shape {tuple(images.shape)} do not fit (M, {net.channels}, {net.size}, {net.size})"
    if tuple(labels.shape) != (len(images), net.classes) or len(distilled.classes) != net.classes:
        return f"labels {tuple(labels.shape)} or {len(distilled.classes)} names: not {net.classes} classes"
    if not all(isinstance(name, str) for name in (*distilled.classes, *distilled.augment)):
        return "a name that is no text"
    if not isinstance(distilled.provenance, dict):
        return "a provenance that is no JSON object"
    if not bool(images.isfinite().all()) or not bool(labels.isfinite().all()):
        return "images or labels hold values that are not finite"
    if bool((labels < 0).any()) or not torch.allclose(labels.sum(1), torch.ones(len(labels)), atol=1e-3):
        return "labels are no probabilities"
    return _sequence_problem(distilled) or _constants_problem(distilled)


def _sequence_problem(distilled: Distilled) -> str | None:
    """What is wrong with the order of an ordered set, or None."""
    if not distilled.sequence:
        return None
    counts, rates = zip(*distilled.sequence, strict=True)
    if counts[0] < 1 or counts[-1] != len(distilled.images) or any(n >= m for n, m in pairwise(counts)):
        return f"a sequence whose counts do not rise from 1 or more up to the {len(distilled.images)} images"
    if not all(math.isfinite(rate) and rate > 0 for rate in rates):
        return "a sequence with a learning rate that is not a finite number above zero"
    return None


def _constants_problem(distilled: Distilled) -> str | None:
    """What is wrong with the learning rate or the constants of the normalisation, or None."""
    channels = distilled.architecture.channels
    if len(distilled.mean) != channels or len(distilled.std) != channels:
        return f"{len(distilled.mean)} means and {len(distilled.std)} deviations for {channels} channels"
    numbers = (distilled.lr, *distilled.mean, *distilled.std)
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        return "a learning rate, mean or deviation that is not a finite number"
    if min(distilled.lr, *distilled.std) <= 0:
        return "a learning rate or deviation that is not above zero"
    return None
