"""PNG and JPEG files of public images as arrays of bytes; everything that is wrong with them told at once."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from medistill.data.benchmark import require_none

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


class PictureError(Exception):
    """A file that cannot be used; the text says why."""


def read_pictures(
    files: Mapping[str, Path], square: Callable[[Image.Image], Image.Image], advice: str
) -> NDArray[np.uint8]:
    """Decode files to (N, 3, S, S), gray ones with three equal channels.

    Args:
        files: what each file is called in messages, and where it is.
        square: from an upright RGB picture to one of S by S pixels; a PictureError where it has none.
        advice: the sentence after the list of bad files.

    Raises:
        UserError: a line for each file that is cut off, damaged, transparent, of 16 bits, or refused by `square`.
    """
    images, mistakes = [], []
    for name, path in files.items():
        try:
            images.append(np.ascontiguousarray(np.asarray(square(_upright(path))).transpose(2, 0, 1)))
        except PictureError as error:
            mistakes.append(f"{name}: {error}")
    require_none(mistakes, advice)
    return np.stack(images)


def _upright(path: Path) -> Image.Image:
    """The RGB picture in a file, turned as its EXIF tag says."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except Exception as error:  # a damaged file can raise whatever its decoder runs into
        raise PictureError(
            f"cut off, damaged, or no PNG or JPEG ({path.stat().st_size} bytes, {type(error).__name__})"
        ) from error
    if picture.mode not in MODES:
        raise PictureError(f"of PIL's mode {picture.mode}; save it as gray or RGB of 8 bits")
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise PictureError("transparent in parts; save it without transparency")
    return picture.convert("RGB")
