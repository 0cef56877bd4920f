"""A release that a network learns in a second, and films of the same kind on disk."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from release.conftest import CLASSES, films, toy_audit, toy_distilled, toy_evaluation

from medistill.data.mask import blank_border
from medistill.release.bundle import write_release

RECIPE = {"steps": 80, "batch": 4, "momentum": 0.8, "weight_decay": 1e-3, "augment": ["crop"]}


def release_of(
    folder: Path, mask: float = 0.125, verdict: str = "pass", name: str = "toy films", **changes: Any
) -> Path:
    """A release whose films had a mask, with changes to its distilled set."""
    distilled = toy_distilled()
    pictures = blank_border(distilled.pictures(), mask)
    distilled = replace(distilled, images=(pictures - distilled.mean[0]) / distilled.std[0], **changes)
    size = distilled.architecture.size
    data = {"name": name, "size": size, "mask": mask, "modalities": ["DX"], "views": ["PA", ""]}
    data |= {"positive": "COVID", "licence": "CC BY 4.0", "citation": "Planted et al. 2021"}
    audit = toy_audit()
    audit["verdict"] = audit["checks"][0]["verdict"] = verdict
    return write_release(
        folder,
        distilled=distilled,
        config_yaml=yaml.safe_dump({"data": data, "evaluate": RECIPE}),
        evaluation=toy_evaluation(),
        audit=audit,
        overview={"name": "toy films"},
        accept="tester: toys" if verdict == "inconclusive" else "",
    )


def write_films(folder: Path, count: int, place: str) -> list[str]:
    """PNG films in a folder and its table films.csv, two films a patient; their file names."""
    folder.mkdir(parents=True)
    pictures, labels = films(count, place)
    names = [f"film_{number}.png" for number in range(count)]
    rows = ["path,label,patient_id"]
    for number, (name, picture) in enumerate(zip(names, pictures, strict=True)):
        Image.fromarray((picture[0].numpy() * 255).round().astype(np.uint8)).save(folder / name)
        # films of one class are three apart, so that a patient's two are six films apart at most
        patient = f"P{number // 6}-{number % 3}"
        rows.append(f"{name},{CLASSES[labels[number]]},{patient}")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return names
