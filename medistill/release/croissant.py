"""croissant.json: the set as ML Commons' Croissant 1.0 describes data sets, so that search engines and loaders find it.

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.files import sha256
from medistill.release import dicom, npz, pictures
from medistill.release.manifest import IMAGES
from medistill.release.metadata import OUT_OF_SCOPE, set_name

FILE = "croissant.json"
RECORDS = "images"
_ROWS = f"{pictures.FOLDER}/{pictures.METADATA}"

FILES = {
    IMAGES: ("application/octet-stream", "the master: images and soft labels as float32 (safetensors)"),
    _ROWS: ("application/jsonlines", "one line for each picture"),
    npz.FILE: ("application/zip", "pictures and labels as MedMNIST names its arrays"),
}

# Prescribed by the specification, appendix 1.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "conformsTo": "dct:conformsTo",
    **{
        name: f"cr:{name}"
        for name in [
            "citeAs",
            "column",
            "equivalentProperty",
            "extract",
            "field",
            "fileObject",
            "fileProperty",
            "fileSet",
            "format",
            "includes",
            "isLiveDataset",
            "jsonPath",
            "key",
            "md5",
            "parentField",
            "path",
            "recordSet",
            "references",
            "regex",
            "repeated",
            "replace",
            "samplingRate",
            "separator",
            "source",
            "subField",
            "transform",
        ]
    },
}

FIELDS = {
    "file_name": ("sc:Text", f"the picture, relative to {pictures.FOLDER}/"),
    "index": ("sc:Integer", "the image's place in the master"),
    "label": ("sc:Integer", "the most probable class, counted from 0"),
    "class": ("sc:Text", "the name of that class"),
    "probabilities": ("sc:Float", "the soft label: a probability for each class"),
    "learning_rate": ("sc:Float", "the learning rate that belongs to the images"),
}


def croissant(folder: Path, distilled: Distilled, overview: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a release whose master and views stand in a folder, of which each file is hashed."""
    files = {name: ((folder / name).stat().st_size, sha256(folder / name)) for name in FILES}
    return croissant_of(files, (folder / dicom.FOLDER).is_dir(), distilled, overview)


def croissant_of(
    held: Mapping[str, tuple[int, str]], slides: bool, distilled: Distilled, overview: Mapping[str, Any]
) -> dict[str, Any]:
    """The description of a release; there is no date, for none is known.

    Args:
        held: bytes and SHA-256 of each of `FILES`.
        slides: whether there is a DICOM view.
        distilled: the set.
        overview: the source, as `medistill.release.card.card` takes it.
    """
    files = [
        *(_file(name, *held[name], encoding, words) for name, (encoding, words) in FILES.items()),
        _set("pictures", f"{pictures.FOLDER}/*/*.png", "image/png", "the pictures, 8 bit, in class folders"),
    ]
    if slides:
        files.append(_set("slides", f"{dicom.FOLDER}/*/*.dcm", "application/dicom", "DICOM Secondary Capture, 16 bit"))
    known = {"license": overview.get("licence"), "citeAs": overview.get("citation")}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": set_name(overview),
        "description": (
            f"{len(distilled.images)} synthetic images in {len(distilled.classes)} classes, distilled from "
            f"{overview.get('name', 'chest X-rays')}; for research: {OUT_OF_SCOPE[0]}."
        ),
        "keywords": ["dataset distillation", "synthetic images", "not for diagnosis"],
        **{key: value for key, value in known.items() if value},
        "distribution": files,
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": RECORDS,
                "name": RECORDS,
                "description": "The images with their soft labels.",
                "key": {"@id": f"{RECORDS}/file_name"},
                "field": [_field(name, kind, words) for name, (kind, words) in FIELDS.items()],
            }
        ],
    }


def _file(name: str, size: int, digest: str, encoding: str, words: str) -> dict[str, Any]:
    """A FileObject."""
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": words,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": encoding,
        "sha256": digest,
    }


def _set(name: str, pattern: str, encoding: str, words: str) -> dict[str, Any]:
    """A FileSet."""
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": words,
        "includes": pattern,
        "encodingFormat": encoding,
    }


def _field(name: str, kind: str, words: str) -> dict[str, Any]:
    """A Field, taken from a column of the lines."""
    field = {
        "@type": "cr:Field",
        "@id": f"{RECORDS}/{name}",
        "name": name,
        "description": words,
        "dataType": kind,
        "source": {"fileObject": {"@id": _ROWS}, "extract": {"column": name}},
    }
    return field | ({"repeated": True} if name == "probabilities" else {})
