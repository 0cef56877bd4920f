"""Tiny ImageNet in its official layout: JPEG files of 64 px, and lists of their classes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medistill.data.benchmark import NOT_OFFICIAL, Benchmark, packed, require_none
from medistill.data.pictures import PictureError, read_pictures
from medistill.errors import UserError

FOLDER = "tiny-imagenet-200"
IDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
SIDE = 64
OFFICIAL = (200, 500, 50)  # classes; training and test images of each

# ImageNet's constants, with which the published figures of dataset distillation are made (MTT's code).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_AGAIN = "fetch Tiny ImageNet again from its project page (CS231n of Stanford University) and unpack it"


def files(source: Path) -> list[Path]:
    """The lists, then every training and validation image, of the folder tiny-imagenet-200 or its parent.

    Raises:
        UserError: parts of the layout that are missing, or an archive that is still packed.
    """
    root = source / FOLDER if (source / FOLDER).is_dir() else source
    parts = [IDS, WORDS, ANNOTATIONS, "train", "val/images"]
    missing = [part for part in parts if not (root / part).exists()]
    if missing and (archive := packed(root)):
        raise UserError(f"{archive.name}: still packed; unpack it, and let data.cohort name the folder {FOLDER}")
    if missing:
        raise UserError(
            f"{source.name}: no {', '.join(missing)} in it; let data.cohort name the unpacked folder {FOLDER} of "
            "Tiny ImageNet"
        )
    train = sorted((root / "train").glob("*/images/*.JPEG"))
    val = sorted((root / "val" / "images").glob("*.JPEG"))
    return [root / IDS, root / WORDS, root / ANNOTATIONS, *train, *val]


def read(paths: list[Path], classes: Sequence[str]) -> Benchmark:
    """The training images, and val as the test split, for the images of test/ have no labels.

    The classes stand in the order of their sorted WordNet ids, as torchvision's ImageFolder has them.

    Args:
        paths: what `files` returned.
        classes: empty, or the names of the classes in this order.

    Raises:
        UserError: lists that do not go with the images, a line a mistake; images that are cut off; other classes.
    """
    root = paths[0].parent
    ids = sorted(set(paths[0].read_text(encoding="utf-8", errors="replace").split()))
    names = _class_names(ids, paths[1])
    if classes and tuple(classes) != names:
        raise UserError(
            f"data.classes: {root.name} has {len(names)} classes from {names[0]} to {names[-1]}, in the order of their "
            "WordNet ids; leave data.classes out"
        )
    annotated, mistakes = _annotations(paths[2])
    found = {path.relative_to(root).as_posix(): path for path in paths[3:]}
    of_train = {name: path.parent.parent.name for name, path in found.items() if name.startswith("train")}
    of_val = {name: annotated.get(path.name, "") for name, path in found.items() if name not in of_train}
    mistakes += [f"{IDS}: {len(ids)} classes"] if len(ids) < 2 else []
    mistakes += [f"{name}: no row in {ANNOTATIONS}" for name, wnid in of_val.items() if not wnid]
    gone = annotated.keys() - {Path(name).name for name in of_val}
    mistakes += [f"{ANNOTATIONS}: no file {name} in val/images" for name in sorted(gone)]
    counts = [Counter(of_train.values()), Counter(filter(None, of_val.values()))]
    mistakes += [f"{wnid}: has images, but is not in {IDS}" for wnid in sorted({*counts[0], *counts[1]} - {*ids})]
    mistakes += [f"{wnid}: in {IDS}, but without training images" for wnid in ids if wnid not in counts[0]]
    require_none(mistakes, f"{root.name}: its lists and images do not go together; {_AGAIN}")
    official = len(ids) == OFFICIAL[0] and all((counts[0][i], counts[1][i]) == OFFICIAL[1:] for i in ids)
    note = "the official number of images; its authors publish no checksum" if official else NOT_OFFICIAL
    return Benchmark(
        images=read_pictures(found, _square, f"{root.name}: some images cannot be read; {_AGAIN}"),
        labels=np.array([ids.index(wnid) for wnid in (*of_train.values(), *of_val.values())], dtype=np.int64),
        split=np.array(["train"] * len(of_train) + ["test"] * len(of_val)),
        names=list(found),
        classes=names,
        mean=MEAN,
        std=STD,
        notes=(f"{root.name}: {note}",),
    )


def _square(picture: Image.Image) -> Image.Image:
    """The picture itself, which must be of 64 px."""
    if picture.size != (SIDE, SIDE):
        raise PictureError(f"{picture.width} by {picture.height} pixels instead of {SIDE} by {SIDE}")
    return picture


def _class_names(ids: Sequence[str], words: Path) -> tuple[str, ...]:
    """The first name that words.txt gives each WordNet id; the id goes with a name that two of them share."""
    rows = (line.partition("\t") for line in words.read_text(encoding="utf-8", errors="replace").splitlines())
    known = {wnid: text.split(",")[0].strip() for wnid, _, text in rows}
    short = [known.get(wnid) or wnid for wnid in ids]
    twice = {name for name, count in Counter(short).items() if count > 1}
    return tuple(f"{name} ({wnid})" if name in twice else name for name, wnid in zip(short, ids, strict=True))


def _annotations(path: Path) -> tuple[dict[str, str], list[str]]:
    """The WordNet id of each validation image, and the rows that are none."""
    annotated: dict[str, str] = {}
    mistakes = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, wnid, *_ = [*line.split("\t"), "", ""]
        if not name or not wnid or name in annotated:
            mistakes.append(f"{ANNOTATIONS} line {number}: no image and class, or an image named before")
        annotated[name] = wnid
    return annotated, mistakes
