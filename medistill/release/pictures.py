"""The view as pictures: PNG in class folders with one line of metadata each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from medistill.distill.distilled import Distilled
from medistill.files import write_text
from medistill.release.folders import class_folders

FOLDER = "images"
METADATA = "metadata.jsonl"
NOTICE = "Synthetic image, distilled from a data set; not for diagnosis"


def eight_bit(distilled: Distilled) -> Tensor:
    """(M, C, H, W) uint8, the pictures clamped to [0, 1] and rounded to 255 steps."""
    return (distilled.pictures().clamp(0, 1) * 255).round().to(torch.uint8)


def names(distilled: Distilled, ending: str) -> list[str]:
    """CLASS/0003.ENDING of each image, where 0003 is its index in the master; its class is the most probable one."""
    folders = class_folders(distilled.classes)
    return [f"{folders[label]}/{index:04d}.{ending}" for index, label in enumerate(distilled.targets.tolist())]


def write_pictures(folder: Path, distilled: Distilled) -> None:
    """Write CLASS/0003.png and metadata.jsonl into a new folder.

    torchvision's ImageFolder and Hugging Face's `imagefolder` read it. A line of the metadata is {"file_name",
    "index", "label", "class", "probabilities", "learning_rate"}; `label` counts the set's classes, whereas ImageFolder
    counts folders by their names.
    """
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", NOTICE)
    lines = []
    for row, (name, image) in enumerate(zip(names(distilled, "png"), eight_bit(distilled), strict=True)):
        pixels = image.permute(1, 2, 0).squeeze(2).numpy()  # (H, W) or (H, W, 3)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format="PNG", pnginfo=note)
        lines.append(json.dumps(row_of(distilled, row, name)) + "\n")
    write_text(folder / METADATA, "".join(lines))


def row_of(distilled: Distilled, index: int, name: str) -> dict[str, Any]:
    """What the metadata say of one image."""
    label = int(distilled.targets[index])
    return {
        "file_name": name,
        "index": index,
        "label": label,
        "class": distilled.classes[label],
        "probabilities": distilled.labels[index].tolist(),
        "learning_rate": distilled.lr,
    }


def read_picture(path: Path) -> Tensor:
    """(C, H, W) float32 in [0, 1], the pixels of one PNG."""
    with Image.open(path, formats=("PNG",)) as image:
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def read_pictures(folder: Path) -> Tensor:
    """(M, C, H, W) float32 in [0, 1], the pixels of what `write_pictures` wrote, in the order of the master."""
    lines = (folder / METADATA).read_text(encoding="utf-8").splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: row["index"])
    return torch.stack([read_picture(folder / row["file_name"]) for row in rows])
