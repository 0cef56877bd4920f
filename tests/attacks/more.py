"""Attacks that leave every pixel as it is: views with more in them than the master's images, and files besides."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from attacks.builders import Attack, chunk, edit_header, edit_text, first, hidden
from attacks.pixels import DCM, PNG, extended, slide
from PIL import Image, ImageOps
from pydicom import dcmread

SLIDE, PICTURE = r"dicom/COVID/0000\.dcm: ", r"images/COVID/0000\.png: "
MORE = PICTURE + "a PNG with more in it"


def bytes_of(pattern: str, change: Any) -> Any:
    """Changed bytes of the first file of a view."""

    def edit(folder: Path) -> None:
        path = first(folder, pattern)
        path.write_bytes(change(path.read_bytes()))

    return hidden(edit)


def element(tag: int, vr: str, value: Any) -> Any:
    """An element more in the first slide."""

    def add(folder: Path) -> None:
        file = dcmread(first(folder, DCM))
        file.add_new(tag, vr, value)
        file.save_as(first(folder, DCM), enforce_file_format=True)

    return hidden(add)


def behind_header(more: bytes) -> Any:
    """A chunk behind the header of a PNG, which takes 33 bytes."""
    return lambda data: data[:33] + more + data[33:]


def repacked(change: Any) -> Any:
    """Other packed pixels in a PNG of one IDAT."""

    def edit(data: bytes) -> bytes:
        at = data.index(b"IDAT") - 4
        length = int.from_bytes(data[at : at + 4], "big")
        return data[:at] + chunk(b"IDAT", change(data[at + 8 : at + 8 + length])) + data[at + 12 + length :]

    return edit


def inverted(folder: Path) -> None:
    """Pictures in a folder that data sets are often loaded from, to which the card's head leads the loader."""
    for path in (folder / "images").glob("*/*.png"):
        to = folder / "data" / path.parent.name / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            ImageOps.invert(image).save(to)
    edit_text("README.md", "images/**/*.png", "data/**/*.png")(folder)


def archive(data: bytes) -> bytes:
    """The same arrays with another archive before them: its end still tells of the right ones."""
    before = io.BytesIO()
    with zipfile.ZipFile(before, "w") as packed:
        packed.writestr("train_labels.npy", np.zeros((6, 1), np.int64).tobytes())
    return before.getvalue() + data


def commented(data: bytes) -> bytes:
    """A comment at the end of an archive."""
    return data[:-2] + struct.pack("<H", 4) + b"PK\3\4"


def hollow(data: bytes) -> bytes:
    """Bytes between the arrays and the list of them, to which the end points as before."""
    at = int.from_bytes(data[-6:-2], "little")
    return data[:at] + b"MZ" * 50 + data[at:-6] + (at + 100).to_bytes(4, "little") + data[-2:]


PREVIEW, NPZ = "preview.png", "distilled.npz"

ATTACKS = [
    Attack("pictures elsewhere", hidden(inverted), r"data/COVID/0000\.png: no part of a release"),
    *(
        Attack(f"{name} besides", hidden(lambda f, n=name: (f / n).write_bytes(b"{}")), rf"{name}: no part of a rel")
        for name in (".huggingface.yaml", "more.yaml", "dataset_infos.json", "train.jsonl", "slide.dcm", "more.npz")
    ),
    Attack(
        "keys in the header of the master",
        hidden(edit_header(lambda h: h["__metadata__"].update(format="pt"))),
        r"distilled\.safetensors: a header with more in it",
    ),
    *(
        Attack(f"{name} in a slide", hidden(slide(**{name: value})), f"{SLIDE}holds another {name}")
        for name, value in {
            "VOILUTFunction": "SIGMOID",
            "PatientName": "Doe^John",
            "SyntheticData": "NO",
            "PixelAspectRatio": ["1", "100000"],
            "ShutterShape": "CIRCULAR",
            "StudyInstanceUID": "1.2.3",
            "DerivationDescription": "A film",
            "DataSetTrailingPadding": bytes(1000),
            "EncapsulatedDocument": b"MZ" + bytes(50_000),
        }.items()
    ),
    Attack("second pixels in a slide", element(0x7FE00008, "OF", bytes(1024)), SLIDE + "holds another FloatPixelData"),
    *(
        Attack(
            f"{old} in a slide's comment", hidden(slide(ImageComments=lambda c, o=old, n=new: c.replace(o, n))), says
        )
        for old, new, says in (
            ("[1.0, 0.0, 0.0]", "[0.0, 0.0, 1.0]", SLIDE + "holds another ImageComments"),
            ("0.02", "20.0", SLIDE + "holds another ImageComments"),
            ('{"index"', '{"label": 2, "index"', SLIDE + "holds another ImageComments"),
        )
    ),
    Attack(
        "length of a slide's first group",
        bytes_of(DCM, lambda d: d[:140] + (int.from_bytes(d[140:144], "little") + 2).to_bytes(4, "little") + d[144:]),
        SLIDE,
    ),
    Attack(
        "software of a slide",
        bytes_of(DCM, lambda d: d.replace(b"LO\x0a\0medistill ", b"LO\x0a\0Siemens AG")),
        SLIDE + "holds another ContributingEquipmentSequence",
    ),
    Attack("text in a picture", bytes_of(PNG, behind_header(chunk(b"tEXt", b"x" * 60_000))), MORE),
    Attack("resolution of a picture", bytes_of(PNG, behind_header(chunk(b"pHYs", struct.pack(">IIB", 1, 9, 1)))), MORE),
    Attack(
        "data in the end of a picture",
        bytes_of(PNG, lambda d: d[:-12] + chunk(b"IEND", b"PK\3\4")),
        PICTURE + "a damaged PNG",
    ),
    Attack(
        "data behind the packed pixels", bytes_of(PNG, repacked(lambda z: z + b"PK\3\4")), PICTURE + "a PNG that holds"
    ),
    Attack(
        "rows too many",
        bytes_of(PNG, repacked(lambda z: zlib.compress(zlib.decompress(z) + bytes(17)))),
        PICTURE + "a PNG that holds more",
    ),
    Attack("checksum of a picture", bytes_of(PNG, lambda d: d[:-1] + b"\0"), PICTURE + "a damaged PNG"),
    Attack("archive behind the preview", hidden(extended(PREVIEW, b"PK\3\4")), r"preview\.png: a damaged PNG, or one"),
    Attack(
        "text in the preview",
        bytes_of(PREVIEW, behind_header(chunk(b"tEXt", b"Comment\0x"))),
        r"preview\.png: a PNG with more in it",
    ),
    Attack(
        "stretched preview",
        bytes_of(PREVIEW, behind_header(chunk(b"pHYs", struct.pack(">IIB", 1, 100_000, 1)))),
        r"preview\.png: a PNG with more in it",
    ),
    *(
        Attack(f"arrays {called}", bytes_of(NPZ, change), r"distilled\.npz: an \.npz with more in it")
        for called, change in {
            "behind others": archive,
            "with a comment": commented,
            "with a gap": hollow,
        }.items()
    ),
]
