"""The view as pictures: what ImageFolder and the imagefolder builder find in it is the set."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medistill.distill.distilled import Distilled
from medistill.release.pictures import read_pictures, write_pictures

SOFT = torch.tensor(
    [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.1, 0.4], [1 / 3, 0.5, 1 / 6], [0, 0, 1], [0.2, 0.5, 0.3]]
)
CLASSES = ("b/é\u2028", "a b", "..")
FOLDERS = ("b_é_", "a b", "class_")


@pytest.fixture
def soft(toy: dict[str, Any]) -> Distilled:
    """Labels that are no one-hot vectors, pixels far outside [0, 1], names that no folder can have."""
    images = toy["distilled"].images * 2.5
    images[0, 0, 0, :4] = torch.tensor([-20.0, 20.0, 0.0, (0.25 + 1 / 510 - 0.5) / 0.25])
    return replace(toy["distilled"], images=images, labels=SOFT, classes=CLASSES)


def coloured(distilled: Distilled) -> Distilled:
    return replace(
        distilled,
        images=torch.cat([distilled.images, -distilled.images, distilled.images / 2], 1),
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.2, 0.1),
    )


def expected(distilled: Distilled) -> np.ndarray:
    """(M, C, H, W) bytes by hand, in double precision."""
    images = distilled.images.double().numpy()
    mean, std = (np.array(part)[None, :, None, None] for part in (distilled.mean, distilled.std))
    return np.floor(np.clip(images * std + mean, 0, 1) * 255 + 0.5)


@pytest.mark.parametrize("colour", [False, True])
def test_the_pixels_are_the_masters_at_eight_bits(tmp_path: Path, soft: Distilled, colour: bool) -> None:
    made = coloured(soft) if colour else soft
    write_pictures(tmp_path / "images", made)
    wanted = expected(made)
    for index, label in enumerate((0, 2, 0, 1, 2, 1)):
        with Image.open(tmp_path / "images" / FOLDERS[label] / f"{index:04d}.png") as image:
            assert image.mode == ("RGB" if colour else "L") and "not for diagnosis" in image.text["Comment"]
            found = np.asarray(image)
        # at the very middle of a step, float32 may round to the other side
        assert np.abs(np.atleast_3d(found).transpose(2, 0, 1) - wanted[index]).max() <= 1
        assert (np.atleast_3d(found).transpose(2, 0, 1) != wanted[index]).mean() < 0.01
    assert len(list((tmp_path / "images").rglob("*.png"))) == 6
    back = read_pictures(tmp_path / "images")
    assert back.dtype == torch.float32 and tuple(back.shape) == tuple(made.images.shape)
    assert (back - made.pictures().clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    assert float(back.min()) == 0 and float(back.max()) == 1


def test_labels_and_learning_rate_survive(tmp_path: Path, soft: Distilled) -> None:
    write_pictures(tmp_path, soft)
    text = (tmp_path / "metadata.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["file_name"] for row in rows[:3]] == ["b_é_/0000.png", "class_/0001.png", "b_é_/0002.png"]
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["label"] for row in rows] == [0, 2, 0, 1, 2, 1]
    assert [row["class"] for row in rows] == [CLASSES[label] for label in (0, 2, 0, 1, 2, 1)]
    assert torch.equal(torch.tensor([row["probabilities"] for row in rows]), SOFT)
    assert {row["learning_rate"] for row in rows} == {0.02}
    assert set(rows[0]) == {"file_name", "index", "label", "class", "probabilities", "learning_rate"}


def test_image_folder_of_torchvision_loads_it(tmp_path: Path, soft: Distilled) -> None:
    from torchvision.datasets import ImageFolder

    write_pictures(tmp_path / "images", soft)
    found = ImageFolder(str(tmp_path / "images"))
    assert found.classes == sorted(FOLDERS) and len(found) == 6
    wanted = expected(soft)
    for (path, label), (image, _) in zip(found.samples, found, strict=True):
        index = int(Path(path).stem)
        assert FOLDERS[int(SOFT[index].argmax())] == found.classes[label]
        assert np.abs(np.asarray(image.convert("L")) - wanted[index, 0]).max() <= 1


def test_imagefolder_of_hugging_face_loads_it(tmp_path: Path, soft: Distilled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    write_pictures(tmp_path / "images", soft)
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "images"), cache_dir=str(tmp_path / "cache"), split="train"
    )
    wanted = expected(soft)
    assert len(found) == 6
    for row in found:
        index = row["index"]
        assert row["label"] == int(SOFT[index].argmax()) and row["class"] == CLASSES[row["label"]]
        assert torch.equal(torch.tensor(row["probabilities"]), SOFT[index]) and row["learning_rate"] == 0.02
        assert np.abs(np.asarray(row["image"].convert("L")) - wanted[index, 0]).max() <= 1


def test_the_same_set_has_the_same_bytes(tmp_path: Path, soft: Distilled) -> None:
    for name in ("one", "two"):
        write_pictures(tmp_path / name, soft)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_more_than_ten_thousand_images_keep_their_order(tmp_path: Path, soft: Distilled) -> None:
    from medistill.release.pictures import names

    many = replace(soft, labels=SOFT[:1].expand(10_001, 3), images=soft.images[:1].expand(10_001, 1, 16, 16))
    found = names(many, "png")
    assert found[9_999] == "b_é_/9999.png" and found[10_000] == "b_é_/10000.png"
