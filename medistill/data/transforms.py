"""The MONAI Compose that makes a film a tensor."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImage, Transform
from torch import Tensor
from torch.nn.functional import interpolate

from medistill.data.film import MODALITIES, VIEWS
from medistill.data.xray import FilmReader


@dataclass(frozen=True)
class FilmTensor:
    """A film ready for a network.

    Attributes:
        image: (1, size, size) float32 in [0, 1], a plain tensor.
        choices: what the reader decided (see `medistill.data.film.Film`).
        sha256: the digest of the film's pixels at full size.
    """

    image: Tensor
    choices: dict[str, Any]
    sha256: str


class CentreSquare(Transform):
    """Cut (1, rows, cols) to its centre square: padding or squashing would betray the source by its shape."""

    def __call__(self, film: Tensor) -> Tensor:
        """(1, rows, cols) to (1, side, side), side the smaller of both."""
        rows, cols = film.shape[-2:]
        side = min(rows, cols)
        top, left = (rows - side) // 2, (cols - side) // 2
        return film[..., top : top + side, left : left + side]


class Shrink(Transform):
    """Resize (1, side, side) by the triangle filter whose support grows with the factor (anti-aliasing).

    `monai.transforms.Resize` blurs over a border of zeros first, which darkens the edge of a shrunk film.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, film: Tensor) -> Tensor:
        """(1, side, side) to (1, size, size)."""
        size = (self.size, self.size)
        small = interpolate(film[None], size, mode="bilinear", antialias=True, align_corners=False)
        return small[0].clamp(0, 1)


class Plain(Transform):
    """Take off MONAI's MetaTensor, which costs a hundred times a tensor at every operation to come."""

    def __call__(self, film: MetaTensor) -> FilmTensor:
        """(1, size, size) with metadata to a FilmTensor."""
        image = film.as_tensor().contiguous().to(torch.float32)
        return FilmTensor(image, film.meta["choices"], film.meta["sha256"])


def film_transform(size: int, *, modalities: Sequence[str] = MODALITIES, views: Sequence[str] = VIEWS) -> Compose:
    """A Compose from a path to a FilmTensor of `size` pixels a side.

    MONAI wraps what goes wrong inside a Compose; the FilmError is the `__cause__` of its RuntimeError.
    """
    reader = FilmReader(modalities=modalities, views=views)
    return Compose([_load_image(reader), CentreSquare(), Shrink(size), Plain()])


def _load_image(reader: FilmReader) -> LoadImage:
    """MONAI's LoadImage, without its complaints about optional readers that no film ever reaches."""
    complaints = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = complaints.level
    complaints.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return LoadImage(reader=reader, image_only=True, ensure_channel_first=True)
    finally:
        complaints.setLevel(level)
