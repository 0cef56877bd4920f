"""Pixels of a DICOM file from elsewhere: only the uncompressed kind a release holds, with nothing laid over it."""

import re
import struct
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.datadict import keyword_for_tag
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian

from medistill.errors import ReleaseError
from medistill.foreign import shown
from medistill.release.dicom import Rescale
from medistill.release.manifest import AGAIN
from medistill.release.parse import DAMAGED

_OURS = re.compile(r"-?\d\.\d{8}e[+-]\d\d")
_VERSION = re.compile(r"\d[\w.+!-]{0,39}", re.ASCII)

UNDEFINED = 0xFFFFFFFF
HEADER = 64 << 10  # most bytes of a file besides its pixels

FIXED: dict[str, Any] = {
    "SamplesPerPixel": 1,
    "PixelRepresentation": 0,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
}
# What would let a viewer show other pixels than the stored ones (PS3.3 C.7.6.5, C.7.9, C.9.2, C.11).
OVER = (
    "IconImageSequence",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "PixelPaddingValue",
    "PresentationLUTShape",
    "VOILUTSequence",
)


def size_of(shape: tuple[int, int]) -> int:
    """The most bytes that a file of so many rows and columns takes."""
    return 2 * shape[0] * shape[1] + HEADER


@dataclass(frozen=True, eq=False)
class Slide:
    """What is compared of a file.

    Attributes:
        values: (H, W) modality values.
        window: centre and width.
        comments: the Image Comments.
        stored: (H, W) the values in the file.
        rescale: how they become modality values.
        software: the version of medistill that wrote it, as it says.
    """

    values: NDArray[np.float64]
    window: tuple[float, float]
    comments: str
    stored: NDArray[np.uint16]
    rescale: Rescale
    software: str


def read_slide(name: str, data: bytes, shape: tuple[int, int]) -> Slide:
    """A 16-bit gray file that must have this shape.

    Read by pydicom as explicit little endian whatever its header says: `dcmread` would inflate a deflated file without
    a bound.

    Raises:
        ReleaseError: it is another kind of DICOM file.
    """
    # a preamble that is not empty can make the same file a program (CVE-2019-11687)
    if data[:132] != bytes(128) + b"DICM":
        raise ReleaseError(f"{name}: not a DICOM file; {AGAIN}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of values that are none: they are refused by their sentence
            return _slide(name, read_dataset(BytesIO(data[132:]), False, True, stop_when=_Ascending(name)), shape)
    except (OSError, EOFError, NotImplementedError, struct.error, BytesLengthException, *DAMAGED) as error:
        raise ReleaseError(f"{name}: a damaged DICOM file; {AGAIN}") from error


def _slide(name: str, file: Dataset, shape: tuple[int, int]) -> Slide:
    """What is compared of a data set."""
    if file[0x00020010].value != ExplicitVRLittleEndian:
        raise ReleaseError(f"{name}: a compressed DICOM file, which no release holds; {AGAIN}")
    plain = all(file[key].value == value for key, value in FIXED.items())
    laid = [key for key in OVER if key in file]
    if not plain or laid or any(0x5000 <= tag.group < 0x6100 or tag.group % 2 for tag in file.keys()):  # noqa: SIM118
        raise ReleaseError(f"{name}: no plain 16-bit gray slide{f' ({laid[0]})' if laid else ''}; {AGAIN}")
    stored = file[0x7FE00010].value
    if (file.Rows, file.Columns) != shape or len(stored) != 2 * shape[0] * shape[1]:
        raise ReleaseError(
            f"{name}: declares {shown(file.Columns, 20)} x {shown(file.Rows, 20)} pixels in {len(stored)} bytes, the "
            f"set has {shape[1]} x {shape[0]}; {AGAIN}"
        )
    pixels = np.frombuffer(stored, dtype="<u2").reshape(shape)
    slope, intercept = file.RescaleSlope, file.RescaleIntercept
    return Slide(
        pixels.astype(np.float64) * float(slope) + float(intercept),
        (float(file.WindowCenter), float(file.WindowWidth)),
        str(file.ImageComments),
        pixels,
        Rescale(str(slope), str(intercept)),
        str(file.ContributingEquipmentSequence[0].SoftwareVersions),
    )


def require_own(name: str, data: bytes, slide: Slide, wanted: Dataset) -> None:
    """Raise a ReleaseError unless a file is, byte for byte, the one that `wanted` is written as.

    Args:
        name: of the file.
        data: its bytes.
        slide: what was read from them.
        wanted: what we write of these stored values; the version of medistill is taken from the file.
    """
    if not all(_OURS.fullmatch(text) for text in (slide.rescale.slope, slide.rescale.intercept)):
        raise ReleaseError(f"{name}: a scale that no release is written with; {AGAIN}")
    if not _VERSION.fullmatch(slide.software):
        raise ReleaseError(f"{name}: written by {shown(slide.software, 40)!r}, which is no medistill; {AGAIN}")
    wanted.ContributingEquipmentSequence[0].SoftwareVersions = slide.software
    written = BytesIO()
    wanted.save_as(written, enforce_file_format=True)
    if written.getvalue() != data:
        with warnings.catch_warnings(action="ignore"):
            why = _different(data, written.getvalue())
        raise ReleaseError(f"{name}: holds {why} than the slide of this image; {AGAIN}")


def _different(data: bytes, own: bytes) -> str:
    """Which element of a file is another; none where that is not seen in a single one."""
    found, wanted = (read_dataset(BytesIO(file[132:]), False, True) for file in (data, own))
    for tag in sorted({*wanted.keys(), *found.keys()}):
        # undecoded, for what stands there may be of no kind at all
        values = [getattr(file.get_item(tag), "value", None) for file in (found, wanted)]
        if values[0] != values[1]:
            return f"another {keyword_for_tag(tag) or tag}"
    return "other bytes"


class _Ascending:
    """Refuses a file whose elements do not ascend (PS3.5 7.1), so that each is there once, or have no length."""

    def __init__(self, name: str) -> None:
        self.name, self.last = name, -1

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        if tag <= self.last or vr is None or length == UNDEFINED:
            raise ReleaseError(f"{self.name}: a DICOM file whose elements are not in order; {AGAIN}")
        self.last = tag
        return False
