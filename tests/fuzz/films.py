"""Films built by code, in every format the door takes, and mutators that know DICOM's elements."""

import io
from collections.abc import Iterator
from collections.abc import Sequence as Several
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from medistill.seeds import generator


def noise(rows: int, cols: int, top: int = 4096, dtype: type = np.uint16) -> np.ndarray:
    import torch

    return torch.randint(0, top, (rows, cols), generator=generator(0, "fuzz", rows, cols)).numpy().astype(dtype)


def dicom(stored: np.ndarray, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A DICOM film with `stored` (rows, cols) pixels."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.Modality, header.ViewPosition, header.BodyPartExamined = "DX", "PA", "CHEST"
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    header.PhotometricInterpretation, header.SamplesPerPixel = "MONOCHROME1", 1
    header.Rows, header.Columns = stored.shape
    header.BitsAllocated = header.BitsStored = 8 * stored.itemsize
    header.HighBit, header.PixelRepresentation = header.BitsStored - 1, int(stored.dtype.kind == "i")
    header.PixelSpacing = [0.2, 0.2]
    header.PixelData = stored.tobytes()
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    if syntax == RLELossless:
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.compress(RLELossless)
    elif syntax == JPEGBaseline8Bit:
        header.PixelData = encapsulate([picture(stored, "JPEG")])
        header["PixelData"].is_undefined_length = True
    whole = io.BytesIO()
    header.save_as(whole, enforce_file_format=True)
    return whole.getvalue()


def picture(stored: np.ndarray, form: str, mode: str = "", **options: Any) -> bytes:
    """A picture file of (rows, cols) pixels."""
    whole, image = io.BytesIO(), Image.fromarray(stored)
    (image.convert(mode) if mode else image).save(whole, form, **options)
    return whole.getvalue()


def look_up_table(entries: int, first: int, bits: int, word: bool) -> Sequence:
    """A sequence of one LUT, its entries as words or as numbers."""
    item = Dataset()
    item.LUTDescriptor = [entries, first, bits]
    data = np.linspace(0, 2**bits - 1, entries).astype("<u2")
    item.add_new("LUTData", "OW" if word else "US", data.tobytes() if word else data.tolist())
    return Sequence([item])


def built() -> list[bytes]:
    """One film of each kind that the door takes."""
    deep, flat = noise(40, 50), noise(48, 32, 256, np.uint8)
    window = {"WindowCenter": 2048, "WindowWidth": 3000}
    return [
        dicom(deep, **window, RescaleSlope="1.5", RescaleIntercept="-100", BitsStored=12, HighBit=11),
        dicom(deep, ImplicitVRLittleEndian, WindowCenter=[2048, 100], WindowWidth=[3000, 50]),
        dicom((deep - 2048).astype(np.int16), PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1900),
        dicom(deep, **window, VOILUTFunction="SIGMOID", PresentationLUTShape="INVERSE"),
        dicom(deep, VOILUTSequence=look_up_table(4096, 0, 12, word=True)),
        dicom(deep, ModalityLUTSequence=look_up_table(256, 0, 16, word=False), **window),
        dicom(deep, RLELossless, **window),
        dicom(flat, JPEGBaseline8Bit),
        dicom(flat)[132:],
        picture(flat, "PNG"),
        picture(deep, "PNG"),
        picture(flat, "PNG", "P"),
        picture(flat, "PNG", "LA"),
        picture(flat, "JPEG"),
        picture(flat, "JPEG", "RGB", progressive=True),
        picture(flat, "WEBP"),
        picture(flat, "WEBP", lossless=True),
    ]


SHORTS = (0, 1, 2, 7, 8, 12, 15, 16, 17, 32, 64, 255, 2048, 8192, 32767, 32768, 65534, 65535)
NUMBERS = (
    "0", "1", "-1", "1A", "", "nan", "inf", "-inf", "1e308", "-1e308", "1e400", "1e-320", "1\\2", "\\", "0x10",
    "1e5000", "9" * 5000, "½", "\x1b[31m1", "1,5", "0.0000001", "99999999999999999999",
)  # fmt: skip
TEXTS = (
    "", "DX", "dx", "CR\\DX", "\x1b[2J", "PA", "LL", "X" * 70000, "\0\0", "a\nb", "\xff\xfe", "MONOCHROME2", "RGB",
    "PALETTE COLOR", "LINEAR", "LINEAR_EXACT", "SIGMOID", "INVERSE", "ISO_IR 192", "ISO 2022 IR 87", "\\x00", "DOE^X",
)  # fmt: skip
SYNTAXES = (
    "", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.201", "1.2.3.4", "JPEG", "\x1b[2J", "1" * 300,
)  # fmt: skip
DESCRIPTOR = (0x0028, 0x3002)  # of a LUT: three numbers
VALUES: dict[tuple[int, int], tuple[Any, ...]] = {
    **{(0x0028, element): SHORTS for element in (0x02, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103, 0x120, 0x121)},
    **{(0x0028, element): NUMBERS for element in (0x08, 0x1050, 0x1051, 0x1052, 0x1053, 0x30)},
    **{(0x0028, element): TEXTS for element in (0x04, 0x1056)},
    (0x0008, 0x0005): TEXTS,
    (0x0008, 0x0060): TEXTS,
    (0x0018, 0x5101): TEXTS,
    (0x0018, 0x0015): TEXTS,
    (0x2050, 0x0020): TEXTS,
    DESCRIPTOR: SHORTS,
    (0x0002, 0x0010): SYNTAXES,
}
SHORT_FORM = {"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST"}
SHORT_FORM |= {"TM", "UI", "UL", "US"}


def tag_bytes(tag: tuple[int, int]) -> bytes:
    """A tag as little-endian files write it."""
    return tag[0].to_bytes(2, "little") + tag[1].to_bytes(2, "little")


def set_value(body: bytes, chance: Random, others: Several[bytes]) -> bytes:
    """Give an element that decides what is shown another value."""
    here = [tag for tag in VALUES if body.find(tag_bytes(tag)) > 0]
    if not here:
        return body
    tag = chance.choice(here)
    several = [chance.choice(SHORTS).to_bytes(2, "little") for _ in range(3)]
    return with_value(body, tag, b"".join(several) if tag == DESCRIPTOR else as_bytes(chance.choice(VALUES[tag])))


def every_value() -> Iterator[bytes]:
    """Each of those elements with each of its values, in every kind of film that has it."""
    for body in built():
        for tag, values in VALUES.items():
            if body.find(tag_bytes(tag)) > 0 and tag != DESCRIPTOR:
                yield from (with_value(body, tag, as_bytes(value)) for value in values)


def as_bytes(value: int | str) -> bytes:
    """A value as a file holds it: a 16-bit number, or a text."""
    return value.to_bytes(2, "little") if isinstance(value, int) else value.encode("utf-8", "replace")


def with_value(body: bytes, tag: tuple[int, int], value: bytes) -> bytes:
    """A film whose first element of a tag has another value and its length."""
    start = body.find(tag_bytes(tag)) + 4
    explicit = body[start : start + 2].decode("latin-1") in SHORT_FORM
    width = 2 if explicit else 4  # of the length; an implicit file writes no VR
    start += 2 if explicit else 0
    length = int.from_bytes(body[start : start + width], "little")
    value = (value + b" " * (len(value) % 2))[: 2 ** (8 * width) - 2]
    return body[:start] + len(value).to_bytes(width, "little") + value + body[start + width + length :]


def swap_tags(body: bytes, chance: Random, others: Several[bytes]) -> bytes:
    """Let one element pass for another."""
    first, second = (tag_bytes(tag) for tag in chance.sample(sorted(VALUES), 2))
    return body.replace(first, b"\0" * 4, 1).replace(second, first, 1).replace(b"\0" * 4, second, 1)


def inflate_length(body: bytes, chance: Random, others: Several[bytes]) -> bytes:
    """Let an element claim to be longer, shorter or of unknown length."""
    start = body.find(tag_bytes(chance.choice([*VALUES, (0x7FE0, 0x0010), (0xFFFE, 0xE000)])))
    if start < 0:
        return body
    start += chance.choice((4, 6, 8))
    run = chance.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff\xff", b"\0\0\0\0", chance.randbytes(4)))
    return body[:start] + run + body[start + len(run) :]


DICOM_MUTATORS = (set_value, set_value, set_value, swap_tags, inflate_length)
