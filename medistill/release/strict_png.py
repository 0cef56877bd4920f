"""Pixels of a PNG from elsewhere: only the plain kind a release holds, its claimed size held against ours first."""

import re
import struct
import zlib
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medistill.errors import ReleaseError
from medistill.release.manifest import AGAIN
from medistill.release.parse import DAMAGED
from medistill.release.pictures import NOTICE

MAGIC = b"\x89PNG\r\n\x1a\n"
GRAY, COLOUR = 0, 2  # colour types (PNG 11.2.1)
CHANNELS = {GRAY: 1, COLOUR: 3, 6: 4}
SIDE, AREA = 20_000, 50_000_000  # most pixels of a picture that is only looked at
STEP = 1 << 20  # bytes that are unpacked at a time

PLAIN = (b"IHDR", b"IDAT", b"IEND")
# Besides those (PNG 11.3) a picture of the set bears our notice, and one to look at its resolution, which is square.
# Others could show a program what another does not see, or hold anything at all.
NOTED = {b"tEXt": re.compile(re.escape(b"Comment\0" + NOTICE.encode()))}
DRAWN = {b"pHYs": re.compile(rb"(.{4})\1\x01", re.DOTALL)}


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
    _require_plain(name, data, NOTED)
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, EOFError, *DAMAGED) as error:
        raise ReleaseError(f"{name}: a damaged PNG; {AGAIN}") from error
    return pixels.reshape(shape)


def require_drawn(name: str, data: bytes) -> None:
    """Raise a ReleaseError for a PNG that would take much memory to show, or holds more than a drawing."""
    width, height, depth, colour, _, _, interlace = _header(name, data)
    if max(width, height) > SIDE or width * height > AREA:
        raise ReleaseError(f"{name}: declares {width} x {height} pixels, more than a picture of a release has; {AGAIN}")
    if depth != 8 or colour not in CHANNELS or interlace:
        raise ReleaseError(f"{name}: no plain 8-bit picture; {AGAIN}")
    _require_plain(name, data, DRAWN)


def _header(name: str, data: bytes) -> tuple[int, int, int, int, int, int, int]:
    """Width, height, bit depth, colour type, compression, filter and interlace as the first chunk declares them."""
    if data[:8] != MAGIC or data[8:16] != struct.pack(">I4s", 13, b"IHDR") or len(data) < 33:
        raise ReleaseError(f"{name}: not a PNG; {AGAIN}")
    width, height, depth, colour, compression, filtered, interlace = struct.unpack(">IIBBBBB", data[16:29])
    return width, height, depth, colour, compression, filtered, interlace


def _require_plain(name: str, data: bytes, allowed: Mapping[bytes, re.Pattern[bytes]]) -> None:
    """Raise a ReleaseError unless a file is its header, these chunks, its pixels, its end, and nothing else."""
    packed: list[bytes] = []
    kinds: list[bytes] = []
    at = 8
    while at + 12 <= len(data) and kinds[-1:] != [b"IEND"]:
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body, check = data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        if kind not in PLAIN and not (kind in allowed and allowed[kind].fullmatch(body)):
            raise ReleaseError(f"{name}: a PNG with more in it than a picture of a release has; {AGAIN}")
        if check != struct.pack(">I", zlib.crc32(kind + body)) or (kind == b"IEND" and body):
            raise ReleaseError(f"{name}: a damaged PNG; {AGAIN}")
        packed += [body] if kind == b"IDAT" else []
        kinds.append(kind)
        at += 12 + length
    if kinds[-1:] != [b"IEND"] or at != len(data):
        raise ReleaseError(f"{name}: a damaged PNG, or one with something behind its end; {AGAIN}")
    once = [kind for kind in kinds if kind != b"IDAT"]
    pixels = [place for place, kind in enumerate(kinds) if kind == b"IDAT"]
    if len(set(once)) < len(once) or not pixels or pixels != list(range(pixels[0], len(kinds) - 1)):
        raise ReleaseError(f"{name}: a PNG with more in it than a picture of a release has; {AGAIN}")
    _require_filled(name, data, b"".join(packed))


def _require_filled(name: str, data: bytes, packed: bytes) -> None:
    """Raise a ReleaseError unless what is packed are the rows that the header declares, to the last byte."""
    width, height, _, colour, _, _, _ = _header(name, data)
    wanted = (1 + width * CHANNELS[colour]) * height
    inflater, found = zlib.decompressobj(), 0
    try:
        while found <= wanted and not inflater.eof and (part := inflater.decompress(packed, STEP)):
            found, packed = found + len(part), inflater.unconsumed_tail
        if found == wanted and not inflater.eof:  # what is left are the checksum and no pixel
            found += len(inflater.decompress(packed, 1))
    except zlib.error as error:
        raise ReleaseError(f"{name}: a damaged PNG; {AGAIN}") from error
    if found != wanted or not inflater.eof or inflater.unused_data:
        raise ReleaseError(f"{name}: a PNG that holds more or less than the pixels it declares; {AGAIN}")
