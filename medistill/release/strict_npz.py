"""Arrays of an .npz from elsewhere: only those that are expected, of the shapes and types that are expected."""

import struct
import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medistill.errors import ReleaseError
from medistill.foreign import shown
from medistill.release.manifest import AGAIN
from medistill.release.parse import DAMAGED

LOCAL, LISTED, END = 30, 46, 22  # bytes of a zip's fixed headers (APPNOTE 4.3.7, 4.3.12, 4.3.16)
HEADER = 4096  # most bytes that the header of an array takes


def size_of(expected: Mapping[str, NDArray[Any]]) -> int:
    """The most bytes that a file of these arrays takes, none of them compressed."""
    return sum(array.nbytes + HEADER for array in expected.values()) + HEADER


def read_npz(name: str, data: bytes, expected: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of a file, each of the type and shape of the one that is expected by its name.

    Nothing is unpacked: a release stores its arrays as they are, so a bomb has no room.

    Raises:
        ReleaseError: the file holds other arrays, compressed ones, or is no .npz.
    """
    if not data.startswith(b"PK\3\4"):  # numpy would take what stands before an archive for a pickle
        raise ReleaseError(f"{name}: not an .npz; {AGAIN}")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            if fault := _fault(archive, data):
                raise ReleaseError(f"{name}: {fault}; {AGAIN}")
            if sorted(member.filename for member in members) != sorted(f"{key}.npy" for key in expected):
                raise ReleaseError(f"{name}: holds other arrays than a release's; {AGAIN}")
            return {key: _array(f"{name}: {key}", archive, f"{key}.npy", like) for key, like in expected.items()}
    except (zipfile.BadZipFile, struct.error, OSError, EOFError, NotImplementedError, *DAMAGED) as error:
        raise ReleaseError(f"{name}: a damaged .npz; {AGAIN}") from error


def _fault(archive: zipfile.ZipFile, data: bytes) -> str | None:
    """What an archive holds besides its members, one after another from the first byte to the last, or None."""
    at = 0
    for member in archive.infolist():
        name = member.filename.encode()
        local = struct.unpack("<4s5H3L2H", data[at : at + LOCAL])
        sizes = (member.CRC, member.compress_size, member.file_size, len(name), 0)
        told = data[at + LOCAL : at + LOCAL + len(name)]
        if member.header_offset != at or local[3] != member.compress_type or local[6:] != sizes or told != name:
            return "an .npz with more in it than its arrays"
        at += LOCAL + len(name) + member.compress_size
    listed = sum(LISTED + len(member.filename.encode()) for member in archive.infolist())
    extra = any(member.extra or member.comment for member in archive.infolist())
    if extra or archive.comment or archive.start_dir != at or len(data) != at + listed + END:
        return "an .npz with more in it than its arrays"
    return None


def _array(what: str, archive: zipfile.ZipFile, member: str, like: NDArray[Any]) -> NDArray[Any]:
    """One array of an archive."""
    entry = archive.getinfo(member)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ReleaseError(f"{what} is compressed, as no release has it; {AGAIN}")
    if not like.nbytes <= entry.file_size <= like.nbytes + HEADER:
        raise ReleaseError(f"{what} declares {entry.file_size} bytes where {like.nbytes} belong; {AGAIN}")
    with archive.open(entry) as file:
        stream = BytesIO(file.read(like.nbytes + HEADER))
    if npy.read_magic(stream) != (1, 0):
        raise ReleaseError(f"{what} is written in a way no release uses; {AGAIN}")
    shape, by_columns, dtype = npy.read_array_header_1_0(stream, max_header_size=HEADER)
    # numpy writes a number as an array of one
    if dtype != like.dtype or (shape or (1,)) != (like.shape or (1,)) or (by_columns and like.ndim > 1):
        found = shown(f"{dtype} {shape}", 60)
        raise ReleaseError(f"{what} is {found} where {like.dtype} {like.shape} belongs; {AGAIN}")
    return np.frombuffer(stream.read(), dtype=dtype).reshape(like.shape)
