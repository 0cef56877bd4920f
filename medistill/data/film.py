"""One door for every film, DICOM or picture file: a path goes in, what a viewer shows comes out."""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
)

from medistill.data.grayscale import modality_values, percentile_window, shown_values
from medistill.errors import UserError
from medistill.foreign import reason, shown

MODALITIES = ("CR", "DX")
VIEWS = ("PA", "AP", "")
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
MAX_BYTES = 2**30
MAX_PIXELS = 2**26  # 8192 x 8192: larger than any chest film, small enough for the memory of a worker
GRAY_SPREAD = 8  # of 255: lossy compression parts a gray film's channels by less, annotations by far more


class FilmError(UserError):
    """A film that cannot be used: one sentence with the file's name, what was found and what to do."""


@dataclass(frozen=True)
class Film:
    """A decoded film.

    Attributes:
        pixels: (rows, cols) float32 in [0, 1], row-major as displayed, bone white.
        choices: what was decided on the way: format, modality, view ("" when the file names none), body_part,
            photometric, inverted, window with window_centre and window_width, pixel_spacing ([row, column] in
            mm or None), rows, cols, syntax. JSON-able.
    """

    pixels: NDArray[np.float32]
    choices: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the shape and the pixels at 16 bits: equal for one film in two file formats."""
        quantised = np.rint(self.pixels * 65535).astype("<u2")
        return hashlib.sha256(repr(quantised.shape).encode() + quantised.tobytes()).hexdigest()


def read_film(path: Path, *, modalities: Sequence[str] = MODALITIES, views: Sequence[str] = VIEWS) -> Film:
    """Read one film by its content, whatever its extension.

    Args:
        path: a DICOM file, with or without preamble, or a PNG, JPEG or WebP picture of a film.
        modalities: the values of Modality (0008,0060) to accept; SC and OT only on request.
        views: the values of View Position (0018,5101) to accept; "" accepts a file that names none.

    Raises:
        FilmError: the file is no film, or none that can be used; nothing else is raised. A decoder in C may end the
            whole process at a broken file, which is why `medistill.data.decode` reads films in workers.
    """
    name = shown(path.name)
    try:
        head = _head(path, name)
        if head.startswith((PNG, JPEG)) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP"):
            return _read_picture(path, name)
        if head[128:132] == b"DICM" or _bare_dicom(head):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _read_dicom(path, name, tuple(modalities), tuple(views))
    except FilmError:
        raise
    except MemoryError as error:
        raise FilmError(
            f"{name}: decoding needs more memory than is allowed; leave it out or raise the memory limit"
        ) from error
    except Exception as error:
        raise FilmError(f"{name}: cannot be read ({reason(error)}); export the film again or leave it out") from error
    raise FilmError(f"{name}: neither DICOM, PNG, JPEG nor WebP by its content; export the film again")


def _head(path: Path, name: str) -> bytes:
    """The first 132 bytes of a regular file of bearable size."""
    if not path.is_file():
        raise FilmError(f"{name}: no such file; check the path in the table")
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        found = "the file is empty" if size == 0 else f"the file has {size / 2**20:.0f} MiB"
        raise FilmError(f"{name}: {found}; a film has 1 byte to {MAX_BYTES // 2**20} MiB, leave the file out")
    with path.open("rb") as file:
        return file.read(132)


def _bare_dicom(head: bytes) -> bool:
    """Whether a file without preamble starts as a data set: group 0002 or 0008, then a VR or a length."""
    if len(head) < 132 or head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08"):
        return False
    return head[4:6].isalpha() or int.from_bytes(head[4:8], "little") <= 64


def _require_size(name: str, rows: int, cols: int) -> None:
    """Refuse a declared size before anything is allocated for it."""
    if rows < 1 or cols < 1 or rows * cols > MAX_PIXELS:
        raise FilmError(f"{name}: {rows} x {cols} pixels declared; a film has 1 to {MAX_PIXELS:,} pixels, leave it out")


def _read_picture(path: Path, name: str) -> Film:
    """A PNG, JPEG or WebP film: gray in truth, whatever the colour mode it is stored in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            form, mode = str(image.format), image.mode
            _require_size(name, image.height, image.width)
            frames = int(getattr(image, "n_frames", 1))
            if frames != 1:
                raise FilmError(f"{name}: holds {frames} frames; a film has one, export it as a still image")
            values = _gray_values(name, ImageOps.exif_transpose(image))
    rows, cols = values.shape
    try:
        gray, window = percentile_window(values, np.ones(values.shape, bool))
    except ValueError as error:
        raise FilmError(f"{name}: {error}; leave the file out") from error
    choices = {
        "format": form, "modality": "", "view": "", "body_part": "", "photometric": mode, "inverted": False,
        "window": window.kind, "window_centre": window.centre, "window_width": window.width,
        "pixel_spacing": None, "rows": rows, "cols": cols, "syntax": form,
    }  # fmt: skip
    return Film(gray.astype(np.float32), choices)


def _gray_values(name: str, image: Image.Image) -> NDArray[np.float64]:
    """(rows, cols) gray values of a picture; a colour picture passes when its channels agree."""
    if image.mode in ("1", "L", "I;16", "I;16B", "I", "F"):
        return np.asarray(image).astype(np.float64)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        raise FilmError(f"{name}: is partly transparent; export the film without an alpha channel")
    channels = np.asarray(image.convert("RGB")).astype(np.int16)  # (rows, cols, 3)
    coloured = float(np.mean(np.ptp(channels, axis=2) > GRAY_SPREAD))
    if coloured > 0:
        raise FilmError(f"{name}: {max(coloured, 1e-4):.2%} of the pixels are coloured; export the film without colour")
    return channels.mean(axis=2)


def _read_dicom(path: Path, name: str, modalities: tuple[str, ...], views: tuple[str, ...]) -> Film:
    """A DICOM film by the rules of PS3.3 C.7.6.3 (pixels) and C.11 (grayscale), inverted at most once."""
    header = dcmread(path, force=True)
    modality = _text(header, "Modality").upper()
    if modality not in modalities:
        raise FilmError(
            f"{name}: Modality is {modality or 'absent'}, accepted are "
            f"{', '.join(one or 'absent' for one in modalities)}; "
            "leave the file out or add its modality to data.modalities"
        )
    view = _view(header)
    if view not in views:
        raise FilmError(
            f"{name}: View Position is {view or 'absent'}, accepted are "
            f"{', '.join(one or 'absent' for one in views)}; leave it out or add its view to data.views"
        )
    photometric = _require_one_gray_frame(name, header)
    syntax = _transfer_syntax(header)
    stored = _decode(name, header, syntax)
    valid = ~_padding(stored, header)
    try:
        gray, window = shown_values(modality_values(stored, header), header, valid)
    except ValueError as error:
        raise FilmError(f"{name}: {error}; export the film again or leave it out") from error
    inverted = photometric == "MONOCHROME1" or _text(header, "PresentationLUTShape").upper() == "INVERSE"
    pixels = (1 - gray if inverted else gray).astype(np.float32)
    pixels[~valid] = 0
    choices = {
        "format": "DICOM", "modality": modality, "view": view, "body_part": _text(header, "BodyPartExamined"),
        "photometric": photometric, "inverted": inverted,
        "window": window.kind, "window_centre": window.centre, "window_width": window.width,
        "pixel_spacing": _spacing(header), "rows": stored.shape[0], "cols": stored.shape[1],
        "syntax": syntax.name,
    }  # fmt: skip
    return Film(pixels, choices)


def _text(header: Dataset, keyword: str) -> str:
    """An element as printable text without padding; "" when absent or empty."""
    return shown(header.get(keyword) or "", 64)


def _whole(name: str, header: Dataset, keyword: str, words: str) -> int:
    """An element that has to be a whole number."""
    try:
        return int(header[keyword].value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FilmError(
            f"{name}: {words} is absent or no whole number; export the film again or leave it out"
        ) from error


def _view(header: Dataset) -> str:
    """The view: View Position, else the meaning of the View Code Sequence (PS3.3 C.8.11.5), else ""."""
    view = _text(header, "ViewPosition").upper()
    if view or not header.get("ViewCodeSequence"):
        return view
    meaning = _text(header.ViewCodeSequence[0], "CodeMeaning").upper()
    return {"POSTERO-ANTERIOR": "PA", "ANTERO-POSTERIOR": "AP"}.get(meaning, meaning)


def _spacing(header: Dataset) -> list[float] | None:
    """[row, column] spacing in mm: Pixel Spacing, else Imager Pixel Spacing, else None; zeros say nothing."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        value = header.get(keyword)
        if isinstance(value, MultiValue) and len(value) == 2:
            spacing = [float(value[0]), float(value[1])]
            if min(spacing) > 0 and all(map(math.isfinite, spacing)):
                return spacing
    return None


def _require_one_gray_frame(name: str, header: Dataset) -> str:
    """The photometric interpretation of a header that declares one gray frame with pixel data."""
    if "PixelData" not in header or not header.PixelData:
        raise FilmError(f"{name}: a DICOM header without Pixel Data; fetch the image itself from the archive")
    photometric = _text(header, "PhotometricInterpretation").upper()
    if header.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise FilmError(
            f"{name}: Photometric Interpretation is {photometric or 'absent'}, a film is MONOCHROME1 or "
            "MONOCHROME2; export the film in gray or leave it out"
        )
    frames = _whole(name, header, "NumberOfFrames", "Number of Frames") if header.get("NumberOfFrames") else 1
    if frames != 1:
        raise FilmError(f"{name}: holds {frames} frames; a film has one, leave the file out")
    _require_size(name, _whole(name, header, "Rows", "Rows"), _whole(name, header, "Columns", "Columns"))
    _require_depth(name, header)
    return photometric


def _require_depth(name: str, header: Dataset) -> None:
    """Refuse a depth that no film has (PS3.3 C.8.1.1.3, C.8.11.3): some decoders abort the process at it."""
    allocated, stored = (_whole(name, header, f"Bits{what}", f"Bits {what}") for what in ("Allocated", "Stored"))
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise FilmError(
            f"{name}: {stored} bits stored in {allocated} allocated; a film has up to 8 in 8 or up to 16 in 16, "
            "export it again or leave it out"
        )


def _transfer_syntax(header: Dataset) -> UID:
    """The transfer syntax; a file without meta header (as in ACR-NEMA) is native, coded as it was parsed."""
    meta = getattr(header, "file_meta", None)
    if meta is not None and "TransferSyntaxUID" in meta:
        return meta.TransferSyntaxUID
    implicit, little = header.original_encoding
    native = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else native
    return header.file_meta.TransferSyntaxUID


def _decode(name: str, header: Dataset, syntax: UID) -> NDArray[Any]:
    """Stored values (rows, cols), signed as Pixel Representation says."""
    if not syntax.is_compressed:
        declared = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
        if len(header.PixelData) < declared:
            raise FilmError(
                f"{name}: {declared:,} bytes of pixels declared, {len(header.PixelData):,} found; the file "
                "is cut short, fetch it again"
            )
    twelve_bit = syntax == JPEGExtended12Bit and int(header.BitsStored) > 8
    extended = "12-bit JPEG Extended needs a decoder under the GPL: pip install pylibjpeg-libjpeg"
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as error:
        raise FilmError(
            f"{name}: transfer syntax {shown(syntax.name)} is no still image; export the film as another"
        ) from error
    if not available:
        remedy = extended if twelve_bit else "pip install 'medistill[dicom]'"
        raise FilmError(f"{name}: no decoder for {syntax.name} is installed; {remedy}")
    try:
        pixels = header.pixel_array
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # decoders in Rust panic with what is no Exception
        remedy = extended if twelve_bit else "fetch the file again or leave it out"
        raise FilmError(f"{name}: {syntax.name} pixels cannot be decoded ({reason(error)}); {remedy}") from error
    if pixels.ndim != 2:
        raise FilmError(f"{name}: decodes to an array of shape {pixels.shape}, a film is one gray frame; leave it out")
    return pixels


def _padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_]:
    """(rows, cols) True where a stored value is Pixel Padding Value or within its limit (C.7.5.1.1.2)."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit", value)
    low, high = sorted((int(value), int(limit)))
    return (stored >= low) & (stored <= high)
