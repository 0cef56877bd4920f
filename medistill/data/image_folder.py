"""Labelled pictures in folders: train/CLASS/FILE and test/CLASS/FILE, and val/CLASS/FILE where there is one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from medistill.data.benchmark import Benchmark, packed, require_none
from medistill.data.pictures import read_pictures
from medistill.errors import UserError

SPLITS = ("train", "val", "test")
ENDINGS = (".png", ".jpg", ".jpeg")
MEAN, STD = 0.5, 0.5  # constants, no statistics of the data

_LEFT_BEHIND = ("thumbs.db", "desktop.ini")  # by systems, in any folder


def files(source: Path) -> list[Path]:
    """The pictures, split by split and class by class.

    Raises:
        UserError: a line for each file or folder that stands in the wrong place, is no picture, or is missing.
    """
    if not (source / "train").is_dir() and (archive := packed(source)):
        raise UserError(f"{archive.name}: still packed; unpack it, and let data.cohort name the folder")
    if not source.is_dir():
        raise UserError(f"{source.name}: a file; let data.cohort name the folder that holds train/ and test/")
    mistakes = [f"{name}/: missing" for name in ("train", "test") if not (source / name).is_dir()]
    mistakes += [f"{name}/: empty" for name in SPLITS if (source / name).is_dir() and not _visible(source / name)]
    mistakes += [f"{path.name}: no folder of a split" for path in _visible(source) if path.name not in SPLITS]
    pictures = []
    for split in SPLITS:
        for folder in _visible(source / split):
            if not folder.is_dir():
                mistakes.append(f"{split}/{folder.name}: no folder of a class")
                continue
            inside = _visible(folder)
            wrong = [path for path in inside if not path.is_file() or path.suffix.lower() not in ENDINGS]
            mistakes += [f"{path.relative_to(source).as_posix()}: no PNG or JPEG" for path in wrong]
            mistakes += [] if inside else [f"{split}/{folder.name}/: empty"]
            pictures += [path for path in inside if path not in wrong]
    require_none(
        mistakes,
        f"{source.name}: an image folder holds train/CLASS/FILE and test/CLASS/FILE, PNG or JPEG (val/CLASS/FILE if "
        "there is a validation split), and nothing else; move the rest away",
    )
    return pictures


def read(paths: list[Path], classes: Sequence[str], size: int) -> Benchmark:
    """The pictures, cut to their centre square, which is shrunk or enlarged to `size` (bilinear, anti-aliased).

    Where every picture is gray, the images have one channel, else three.

    Args:
        paths: what `files` returned.
        classes: empty (the folders' names, sorted), or these names in another order.
        size: the side of an image, pixels.

    Raises:
        UserError: splits with other classes, other class names, and a line for each picture that cannot be read.
    """
    root = paths[0].parents[2]
    found = {path.relative_to(root).as_posix(): path for path in paths}
    split = [path.parents[1].name for path in paths]
    label = [path.parent.name for path in paths]
    names = tuple(classes) or tuple(sorted(set(label)))
    if len(names) < 2:
        raise UserError(f"{root.name}: one class, {names[0]}; a classifier needs a folder each of two or more")
    here = {name: set(np.array(label)[np.array(split) == name].tolist()) for name in sorted({*split})}
    require_none(
        [f"{name}/: no class {', '.join(sorted({*names} - has))}" for name, has in here.items() if {*names} - has]
        + [
            f"{name}/: {', '.join(sorted(has - {*names}))}, not a class" for name, has in here.items() if has - {*names}
        ],
        f"{root.name}: every split needs a folder of each class, named as in data.classes where that is given",
    )
    images = read_pictures(
        found, partial(_square, size=size), f"{root.name}: some pictures cannot be used; mend or remove them"
    )
    if (images == images[:, :1]).all():
        images = images[:, :1]
    channels = images.shape[1]
    return Benchmark(
        images=np.ascontiguousarray(images),
        labels=np.array([names.index(name) for name in label], dtype=np.int64),
        split=np.array(split),
        names=list(found),
        classes=names,
        mean=(MEAN,) * channels,
        std=(STD,) * channels,
        notes=(
            f"{root.name}: each image counts as a person of its own; films of patients belong in data.adapter films, "
            "which keeps a patient's films together",
        ),
    )


def _square(picture: Image.Image, size: int) -> Image.Image:
    """The centre square of a picture; what is cut away does not bleed into its edges."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without what systems leave behind; nothing where it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _LEFT_BEHIND)
