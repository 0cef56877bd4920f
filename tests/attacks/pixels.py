"""Attacks on what networks learn from: pixels, labels, and the views that show them."""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from attacks.builders import Attack, chunk, edit_pixels, edit_text, first, hidden, hide, png, trigger
from pydicom import dcmread
from pydicom.uid import RLELossless

PNG, DCM = "images/COVID/*.png", "dicom/COVID/*.dcm"
ROW = b"\0" + bytes(16)


def resigned(folder: Path) -> None:
    """A backdoor under the attacker's own signature."""
    from attacks.builders import STRANGER

    from medistill.release.signature import write_signature

    edit_pixels(trigger)(folder)
    hide(folder)
    write_signature(folder, STRANGER)


def rewritten(folder: Path) -> None:
    """A backdoor with sums that fit, under the owner's signature of the sums as they were."""
    edit_pixels(trigger)(folder)
    hide(folder, signature=True)


def dotted(folder: Path) -> None:
    """A picture of the same kind and size with a trigger in its corner."""
    from PIL import Image

    path = first(folder, PNG)
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[:3, :3] = 255
    Image.fromarray(pixels).save(path)


def replaced(pattern: str, data: bytes) -> Any:
    """Another file in place of the first of a view."""
    return lambda folder: first(folder, pattern).write_bytes(data)


def extended(pattern: str, data: bytes) -> Any:
    """More bytes behind the first file of a view."""

    def extend(folder: Path) -> None:
        path = first(folder, pattern)
        path.write_bytes(path.read_bytes() + data)

    return extend


def slide(**changes: Any) -> Any:
    """Changed elements in the first DICOM file."""

    def change(folder: Path) -> None:
        file = dcmread(first(folder, DCM))
        for name, value in changes.items():
            setattr(file, name, value(getattr(file, name)) if callable(value) else value)
        file.save_as(first(folder, DCM), enforce_file_format=True)

    return change


def overlaid(folder: Path) -> None:
    """An overlay plane, which viewers draw over the pixels."""
    file = dcmread(first(folder, DCM))
    file.add_new(0x60000010, "US", 16)
    file.add_new(0x60003000, "OW", bytes(32))
    file.save_as(first(folder, DCM), enforce_file_format=True)


def scaled_by_nan(folder: Path) -> None:
    """A slope that is not a number, which no comparison finds too far."""
    path = first(folder, DCM)
    data = path.read_bytes()
    at = data.index(b"DS", data.index(bytes.fromhex("28005310"))) + 4
    length = int.from_bytes(data[at - 2 : at], "little")
    path.write_bytes(data[:at] + b"nan".ljust(length) + data[at + length :])


def odd(folder: Path) -> None:
    """Its High Bit, a 16-bit number, has three bytes."""
    path, element = first(folder, DCM), b"\x28\x00\x02\x01US"
    path.write_bytes(path.read_bytes().replace(element + b"\x02\0", element + b"\x03\0\x0f"))


def doubled(folder: Path) -> None:
    """Other pixels before the right ones: some programs take the first element of a kind, some the last."""
    path = first(folder, DCM)
    data = path.read_bytes()
    at = data.index(bytes.fromhex("e07f1000"))
    path.write_bytes(data[: at + 12] + bytes(512) + data[at:])


def deflated(folder: Path) -> None:
    """A deflated data set of a gigabyte, which `dcmread` would inflate whole."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(1 << 20)
    packed = b"".join([*(deflater.compress(block) for _ in range(60)), deflater.flush()])
    syntax = b"1.2.840.10008.1.2.1.99"
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element)) + element
    first(folder, DCM).write_bytes(bytes(128) + b"DICM" + meta + packed)


def arrays(change: Any, method: int = zipfile.ZIP_STORED) -> Any:
    """The .npz packed again with changed members (bytes by name)."""

    def repack(folder: Path) -> None:
        path = folder / "distilled.npz"
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        change(members)
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return repack


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """An array as a member of an .npz; objects are pickled."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=True)
    return file.getvalue()


def dot(members: dict[str, bytes]) -> None:
    """A bright pixel in the first image."""
    data = bytearray(members["train_images.npy"])
    data[-6 * 256] = 255 if data[-6 * 256] < 128 else 0
    members["train_images.npy"] = bytes(data)


def flip(members: dict[str, bytes]) -> None:
    """Another label for the first image."""
    data = bytearray(members["train_labels.npy"])
    data[-6 * 8] ^= 1
    members["train_labels.npy"] = bytes(data)


def huge(members: dict[str, bytes]) -> None:
    """A header that declares a terabyte."""
    data = members["train_images.npy"]
    members["train_images.npy"] = data.replace(b"(6, 16, 16), }" + b" " * 9, b"(6000000, 4096, 4096), }")


def moved(folder: Path) -> None:
    """A picture in the folder of another class, from which ImageFolder takes the label."""
    path = first(folder, PNG)
    path.rename(folder / "images" / "normal" / path.name)


def relabelled(folder: Path) -> None:
    """Another class in the line of the first picture."""
    path = folder / "images" / "metadata.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["label"], lines[0]["class"] = 2, "normal"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def pickled(members: dict[str, bytes]) -> None:
    """An array of objects, which numpy keeps as a pickle."""
    members["classes.npy"] = npy(np.array([{"a": 1}] * 3, dtype=object))


COLOURED = chunk(b"gAMA", struct.pack(">I", 1))

ATTACKS = [
    Attack("master, sums left", edit_pixels(trigger), r"distilled\.safetensors: changed since the release was written"),
    Attack(
        "master, sums rewritten",
        rewritten,
        r"SHA256SUMS: rewritten since it was signed \(changed: distilled\.safetensors\)",
    ),
    Attack("master, signed by a stranger", resigned, r"signature\.json: signed by another key", keyed=True),
    Attack("master, signature gone", hidden(edit_pixels(trigger)), r"signature\.json: missing", keyed=True),
    Attack("master, against its views", hidden(edit_pixels(trigger)), r"images/COVID/0000\.png: \d of its pixels"),
    Attack("picture", hidden(dotted), r"images/COVID/0000\.png: 9 of its pixels"),
    Attack("picture in another class", hidden(moved), r"images/COVID/0000\.png: missing"),
    Attack(
        "picture too many",
        hidden(lambda folder: (folder / "images" / "COVID" / "9999.png").write_bytes(png(16, 16, ROW * 16))),
        r"images/COVID/9999\.png: shows no image of the master",
    ),
    Attack("label of a picture", hidden(relabelled), r"images/metadata\.jsonl: line 1 is not what the master says"),
    Attack(
        "learning rate of the pictures",
        hidden(edit_text("images/metadata.jsonl", '"learning_rate": 0.02', '"learning_rate": 20')),
        r"images/metadata\.jsonl: line 1 is not",
    ),
    Attack(
        "picture of 100,000 pixels a side",
        hidden(replaced(PNG, png(100_000, 100_000, ROW))),
        r"images/COVID/0000\.png: declares 100000 x 100000 pixels, the set has 16 x 16",
        bomb=True,
    ),
    Attack(
        "preview of 100,000 pixels a side",
        hidden(lambda folder: (folder / "preview.png").write_bytes(png(100_000, 100_000, ROW))),
        r"preview\.png: declares 100000 x 100000 pixels",
        bomb=True,
    ),
    Attack(
        "picture that unpacks to more",
        hidden(replaced(PNG, png(16, 16, bytes(50_000_000)))),
        r"images/COVID/0000\.png: a PNG that holds more or less",
        bomb=True,
    ),
    Attack(
        "picture shown in other colours",
        hidden(replaced(PNG, png(16, 16, ROW * 16, COLOURED))),
        r"images/COVID/0000\.png: a PNG with more in it",
    ),
    Attack("file behind a picture", hidden(extended(PNG, b"PK\3\4")), r"images/COVID/0000\.png: a damaged PNG, or one"),
    Attack(
        "picture cut off",
        hidden(replaced(PNG, png(16, 16, ROW * 3))),
        r"images/COVID/0000\.png: a PNG that holds more or less",
    ),
    Attack("picture that is none", hidden(replaced(PNG, b"GIF89a")), r"images/COVID/0000\.png: not a PNG"),
    Attack(
        "slide",
        hidden(slide(PixelData=lambda data: bytes(64) + data[64:])),
        r"dicom/COVID/0000\.dcm: \d+ of its pixels are not the master's",
    ),
    Attack(
        "slide on a coarse scale",
        hidden(slide(RescaleSlope=500, PixelData=lambda data: bytes(len(data)))),
        r"dicom/COVID/0000\.dcm: \d+ of its pixels",
    ),
    Attack(
        "slide on a scale of no numbers",
        hidden(scaled_by_nan),
        r"dicom/COVID/0000\.dcm: \d+ of its pixels are not the master's",
    ),
    Attack(
        "slide of two pixel data", hidden(doubled), r"dicom/COVID/0000\.dcm: a DICOM file whose elements are not in"
    ),
    Attack("slide in another window", hidden(slide(WindowCenter=5000)), r"dicom/COVID/0000\.dcm: its window or label"),
    Attack(
        "label of a slide",
        hidden(slide(ImageComments=lambda text: text.replace('"COVID"', '"normal"'))),
        r"dicom/COVID/0000\.dcm: its window or label",
    ),
    Attack("overlay on a slide", hidden(overlaid), r"dicom/COVID/0000\.dcm: no plain 16-bit gray slide"),
    Attack(
        "inverted slide",
        hidden(slide(PresentationLUTShape="INVERSE")),
        r"dicom/COVID/0000\.dcm: no plain 16-bit gray slide \(PresentationLUTShape\)",
    ),
    Attack(
        "slide of 60,000 pixels a side",
        hidden(slide(Rows=60_000, Columns=60_000)),
        r"dicom/COVID/0000\.dcm: declares 60000 x 60000 pixels in 512 bytes",
        bomb=True,
    ),
    Attack("deflated slide", hidden(deflated), r"dicom/COVID/0000\.dcm: ", bomb=True),
    Attack(
        "compressed slide",
        hidden(
            lambda folder: (
                file := dcmread(first(folder, DCM)),
                file.compress(RLELossless),
                file.save_as(first(folder, DCM), enforce_file_format=True),
            )
        ),
        r"dicom/COVID/0000\.dcm: ",
    ),
    Attack("slide with a number of three bytes", hidden(odd), r"dicom/COVID/0000\.dcm: a damaged DICOM file"),
    Attack("slide that is none", hidden(replaced(DCM, b"MZ" + bytes(200))), r"dicom/COVID/0000\.dcm: not a DICOM file"),
    Attack(
        "slide that is a program as well",
        hidden(lambda f: first(f, DCM).write_bytes(b"MZ" + first(f, DCM).read_bytes()[2:])),
        r"dicom/COVID/0000\.dcm: not a DICOM file",
    ),
    Attack(
        "pickle before the arrays",
        hidden(lambda f: (f / "distilled.npz").write_bytes(b"\x80\x04." + (f / "distilled.npz").read_bytes())),
        r"distilled\.npz: not an \.npz",
    ),
    Attack("array", hidden(arrays(dot)), r"distilled\.npz: 1 of its pixels are not the master's"),
    Attack("labels of the array", hidden(arrays(flip)), r"distilled\.npz: its train_labels are not the master's"),
    Attack(
        "array of another type",
        hidden(arrays(lambda m: m.update({"train_labels.npy": npy(np.zeros((6, 1), np.float64))}))),
        r"distilled\.npz: train_labels is float64 \(6, 1\) where int64 \(6, 1\) belongs",
    ),
    Attack("array that declares a terabyte", hidden(arrays(huge)), r"distilled\.npz: train_images is uint8", bomb=True),
    Attack("pickle among the arrays", hidden(arrays(pickled)), r"distilled\.npz: classes (declares|is object)"),
    Attack(
        "array besides",
        hidden(arrays(lambda m: m.update({"more.npy": npy(np.zeros(3))}))),
        r"distilled\.npz: holds other arrays",
    ),
    Attack(
        "zip bomb",
        hidden(arrays(lambda m: m.update({"train_images.npy": bytes(30_000_000)}), zipfile.ZIP_DEFLATED)),
        r"distilled\.npz: train_images is compressed",
        bomb=True,
    ),
    Attack(
        "zip that asks for a dictionary of its own",
        hidden(arrays(lambda m: None, zipfile.ZIP_LZMA)),
        r"distilled\.npz: train_images is compressed",
    ),
    Attack(
        "array of another size",
        hidden(arrays(lambda m: m.update({"train_labels.npy": npy(np.zeros((600, 1), np.int64))}))),
        r"distilled\.npz: train_labels declares \d+ bytes where 48 belong",
    ),
]
