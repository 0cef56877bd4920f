"""Whether the views of a release show the master: every pixel within the view's rounding, every label the same.

Who trains on the PNG pictures never opens the master, so a view that differs is where a backdoor would be hidden.
"""

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.release import npz, pictures, strict_npz
from medistill.release.manifest import AGAIN, IMAGES, Manifest
from medistill.release.parse import parse_lines
from medistill.release.strict_png import read_png

SLIDES = "dicom"
ROWS = f"{pictures.FOLDER}/{pictures.METADATA}"

STEPS = 0.5 + 1e-3  # of rounding: half a step, and what float32 adds
PACKING = 64 << 10  # most bytes by which a file is larger than what it holds


def require_views(manifest: Manifest, distilled: Distilled, *, wording: bool) -> set[str]:
    """Raise a ReleaseError naming the first view that is not the master's; the names of the files that were compared.

    A view that a release does not have at all is none that could deceive; one that it has must be whole. With `wording`
    the headers of slides must be those that this version writes.
    """
    compared: set[str] = set()
    slides = partial(_require_slides, wording=wording)
    for place, check in ((pictures.FOLDER, _require_pictures), (npz.FILE, _require_npz), (SLIDES, slides)):
        there = {name for name in manifest.listed if name == place or name.startswith(f"{place}/")}
        if there:
            check(manifest, distilled, there)
            compared |= there
    return compared


def _require_pictures(manifest: Manifest, distilled: Distilled, there: set[str]) -> None:
    """The PNG pictures and the lines that tell their labels."""
    names = pictures.names(distilled, "png")
    _require_whole(pictures.FOLDER, there, [*names, pictures.METADATA])
    levels = _levels(distilled)
    for name, wanted in zip(names, levels, strict=True):
        path = f"{pictures.FOLDER}/{name}"
        found = read_png(path, manifest.read(path, wanted.size + PACKING), wanted.shape)
        _require_near(path, found, wanted, STEPS)
    rows = [pictures.row_of(distilled, index, name) for index, name in enumerate(names)]
    most = 2 * sum(len(json.dumps(row)) for row in rows) + PACKING
    said = parse_lines(ROWS, manifest.read(ROWS, most))
    if said != rows:
        same = [row == wanted for row, wanted in zip(said, rows, strict=False)]
        line = (same.index(False) if False in same else len(same)) + 1
        raise ReleaseError(f"{ROWS}: line {line} is not what the master says of its image; {AGAIN}")


def _require_npz(manifest: Manifest, distilled: Distilled, there: set[str]) -> None:
    """The arrays of the .npz: pixels within rounding, all else the same."""
    _require_whole(npz.FILE, there, [])
    wanted = {name: np.asarray(array) for name, array in npz.arrays(distilled).items()}
    found = strict_npz.read_npz(npz.FILE, manifest.read(npz.FILE, strict_npz.size_of(wanted)), wanted)
    images = _levels(distilled).reshape(wanted["train_images"].shape)
    _require_near(npz.FILE, found["train_images"], images, STEPS)
    for name, array in wanted.items():
        if name != "train_images" and not np.array_equal(found[name], array):
            raise ReleaseError(f"{npz.FILE}: its {name} are not the master's; {AGAIN}")


def _require_slides(manifest: Manifest, distilled: Distilled, there: set[str], *, wording: bool) -> None:
    """The DICOM slides."""
    from medistill.release import dicom, strict_dicom

    names = pictures.names(distilled, "dcm")
    _require_whole(SLIDES, there, names)
    if distilled.images.shape[1] != 1:
        raise ReleaseError(f"{SLIDES}: slides of a set in colour, which has none; {AGAIN}")
    values = distilled.pictures()[:, 0].double().numpy() * dicom.UNITS  # (M, H, W)
    # a slope as fine as 16 bits allow: a coarse one would make every pixel "within its rounding"
    finest = dicom.Rescale.covering(min(0.0, values.min()), max(float(dicom.UNITS), values.max()))
    window = ((dicom.UNITS + 1) / 2, float(dicom.UNITS + 1))
    for index, (name, wanted) in enumerate(zip(names, values, strict=True)):
        path, row = f"{SLIDES}/{name}", pictures.row_of(distilled, index, name)
        data = manifest.read(path, strict_dicom.size_of(wanted.shape))
        slide = strict_dicom.read_slide(path, data, wanted.shape)
        _require_near(path, slide.values, wanted, STEPS * float(finest.slope))
        if slide.window != window or _label(slide.comments) != _label(json.dumps(row)):
            raise ReleaseError(f"{path}: its window or label is not the master's; {AGAIN}")
        if wording:
            own = dicom.slide_of(distilled, index, manifest.listed[IMAGES], slide.rescale, slide.stored)
            strict_dicom.require_own(path, data, slide, own)


def _label(comments: str) -> list[Any]:
    """What the comments of a slide say of its class; nothing where they are no JSON object."""
    try:
        said = json.loads(comments)
        return [said[key] for key in ("index", "label", "class")]
    except (LookupError, TypeError, ValueError, RecursionError):
        return []


def _require_whole(place: str, there: set[str], names: Iterable[str]) -> None:
    """Raise a ReleaseError naming a file that a view lacks, or has besides those of the master's images."""
    wanted = {f"{place}/{name}" for name in names} or {place}
    for name in sorted(wanted - there):
        raise ReleaseError(f"{name}: missing, though the master has this image; {AGAIN}")
    for name in sorted(there - wanted):
        raise ReleaseError(f"{name}: shows no image of the master; {AGAIN}")


def _levels(distilled: Distilled) -> NDArray[np.float32]:
    """(M, H, W, C) the pictures in steps of 8 bits, clamped, not rounded."""
    return (distilled.pictures().clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()


def _require_near(name: str, found: NDArray[Any], wanted: NDArray[Any], most: float) -> None:
    """Raise a ReleaseError where a pixel is further from the master's than rounding takes it."""
    far = np.abs(found.astype(np.float64) - wanted) > most
    if not np.isfinite(found).all() or far.any():
        raise ReleaseError(f"{name}: {int(far.sum())} of its pixels are not the master's; {AGAIN}")
