"""Pixels of a PNG from elsewhere: only the plain kind a release holds, its claimed size held against ours first."""

import struct
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medistill.errors import ReleaseError
from medistill.release.manifest import AGAIN
from medistill.release.parse import DAMAGED

MAGIC = b"\x89PNG\r\n\x1a\n"
GRAY, COLOUR = 0, 2  # colour types (PNG 11.2.1)
SIDE, AREA = 20_000, 50_000_000  # most pixels of a picture that is only looked at

# Chunks that neither colour nor move a picture (PNG 11.3): others could show a program what another does not see.
PLAIN = (b"IHDR", b"IDAT", b"IEND", b"tEXt", b"pHYs")


def read_png(name: str, data: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The levels (H, W, C) of an 8-bit PNG that must have this shape.

    Raises:
        ReleaseError: it is another kind of picture or of another size, which is seen before a pixel is unpacked.
    """
    width, height, depth, colour, _, _, interlace = _header(name, data)
    kind = GRAY if shape[2] == 1 else COLOUR
    if (height, width) != shape[:2]:
        raise ReleaseError(f"{name}: declares {width} x {height} pixels, the set has {shape[1]} x {shape[0]}; {AGAIN}")
    if (depth, colour, interlace) != (8, kind, 0):
        raise ReleaseError(f"{name}: no plain 8-bit picture of {shape[2]} channels; {AGAIN}")
    _require_plain(name, data)
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, EOFError, *DAMAGED) as error:
        raise ReleaseError(f"{name}: a damaged PNG; {AGAIN}") from error
    return pixels.reshape(shape)


def require_small(name: str, data: bytes) -> None:
    """Raise a ReleaseError for a PNG that would take much memory to show."""
    width, height, *_ = _header(name, data)
    if max(width, height) > SIDE or width * height > AREA:
        raise ReleaseError(f"{name}: declares {width} x {height} pixels, more than a picture of a release has; {AGAIN}")


def _header(name: str, data: bytes) -> tuple[int, int, int, int, int, int, int]:
    """Width, height, bit depth, colour type, compression, filter and interlace as the first chunk declares them."""
    if data[:8] != MAGIC or data[8:16] != struct.pack(">I4s", 13, b"IHDR") or len(data) < 33:
        raise ReleaseError(f"{name}: not a PNG; {AGAIN}")
    width, height, depth, colour, compression, filtered, interlace = struct.unpack(">IIBBBBB", data[16:29])
    return width, height, depth, colour, compression, filtered, interlace


def _require_plain(name: str, data: bytes) -> None:
    """Raise a ReleaseError unless the file is a run of plain chunks and nothing else."""
    at, kind = 8, b""
    while at + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind not in PLAIN or (kind == b"IHDR" and at > 8):
            raise ReleaseError(f"{name}: a PNG with more in it than a picture of a release has; {AGAIN}")
        at += 12 + length
    if kind != b"IEND" or at != len(data):
        raise ReleaseError(f"{name}: a damaged PNG, or one with something behind its end; {AGAIN}")
