"""The views of a set: the same images in forms that other programs read, and how far each is from the master."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from medistill.distill.distilled import Distilled
from medistill.release import dicom, npz, pictures

MASTER = "master"
"""The name of the master where views are compared with it."""


@dataclass(frozen=True)
class Kind:
    """A form in which a set is written.

    Attributes:
        name: as `accuracy` of `metadata` keys it.
        place: its file or folder in the release.
        write: from that path, the set and the master's SHA-256.
        read: from that path to pixels (M, C, H, W) float32 in the units of the source's, in the master's order.
        gray: it holds one channel alone.
        same: the view whose very pixels it holds.
    """

    name: str
    place: str
    write: Callable[[Path, Distilled, str], None]
    read: Callable[[Path], Tensor]
    gray: bool = False
    same: str = ""


KINDS = (
    Kind("png", pictures.FOLDER, lambda path, made, _: pictures.write_pictures(path, made), pictures.read_pictures),
    Kind("npz", npz.FILE, lambda path, made, _: npz.write_npz(path, made), npz.read_npz, same="png"),
    Kind("dicom", dicom.FOLDER, dicom.write_dicom, dicom.read_dicom, gray=True),
)


@dataclass(frozen=True, eq=False)
class View:
    """A view that was written and read back.

    Attributes:
        kind: its form.
        pixels: (M, C, H, W) float32, as read back.
        bytes: of its files.
        largest_error: the largest difference to a pixel of the master, in units of the source's pixels.
    """

    kind: Kind
    pixels: Tensor
    bytes: int
    largest_error: float


def write_views(folder: Path, distilled: Distilled, digest: str) -> tuple[View, ...]:
    """Write each view that the set has into a folder, and read it back; `digest` is the master's SHA-256."""
    wanted, channels = distilled.pictures(), distilled.images.shape[1]
    views = []
    for kind in KINDS:
        if kind.gray and channels != 1:
            continue
        path = folder / kind.place
        kind.write(path, distilled, digest)
        pixels = kind.read(path)
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        error = float((pixels - wanted).abs().max())
        views.append(View(kind, pixels, sum(file.stat().st_size for file in files), error))
    return tuple(views)


def described(master: Path, views: Sequence[View], accuracy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The master's file and the views as metadata.json has them, each with what is known of its accuracy."""
    rows = [(MASTER, master.name, master.stat().st_size, 0.0, MASTER)]
    rows += [(v.kind.name, v.kind.place, v.bytes, v.largest_error, v.kind.same or v.kind.name) for v in views]
    return [
        {
            "name": name,
            "place": place,
            "bytes": size,
            "largest_pixel_error": error,
            "accuracy": accuracy.get(measured),
        }
        for name, place, size, error, measured in rows
    ]
