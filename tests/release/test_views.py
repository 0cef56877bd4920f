"""The views together, and metadata.json: what is written is what is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import medistill
from medistill.release.bundle import write_release
from medistill.release.views import KINDS, described, write_views

ACCURACY: dict[str, Any] = {
    "metric": "balanced_accuracy",
    "networks": 5,
    "master": {"mean": 0.8125, "sd": 0.01},
    "png": {"mean": 0.7, "sd": 0.02, "difference": -0.1125, "difference_sd": 0.015, "interval": [-0.12, -0.08]},
    "dicom": {"mean": 0.8125, "sd": 0.01, "difference": 0.0, "difference_sd": 0.0, "interval": None},
}
FEW = {"withheld": "a class has fewer than 10 test patients"}


def metadata_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metadata.json").read_text())


def test_each_view_is_measured_as_it_reads_back(tmp_path: Path, toy: dict[str, Any]) -> None:
    images = toy["distilled"].images.clone()
    images[3, 0, 2, 2] = (1.5 - 0.5) / 0.25  # a pixel of 1.5, which a clamped view shows as 1
    views = {view.kind.name: view for view in write_views(tmp_path, replace(toy["distilled"], images=images), "00")}
    assert list(views) == ["png", "npz", "dicom"] == [kind.name for kind in KINDS]
    assert views["png"].largest_error == views["npz"].largest_error == pytest.approx(0.5)
    assert 0 < views["dicom"].largest_error < 1e-4
    assert torch.equal(views["png"].pixels, views["npz"].pixels) and float(views["dicom"].pixels.max()) > 1.4
    assert views["npz"].bytes == (tmp_path / "distilled.npz").stat().st_size
    for name, place in (("png", "images"), ("dicom", "dicom")):
        files = [path for path in (tmp_path / place).rglob("*") if path.is_file()]
        assert views[name].bytes == sum(len(path.read_bytes()) for path in files)


def test_a_set_in_colour_has_the_views_that_hold_it(tmp_path: Path, toy: dict[str, Any]) -> None:
    images = toy["distilled"].images.repeat(1, 3, 1, 1)
    made = replace(toy["distilled"], images=images, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert [view.kind.name for view in write_views(tmp_path, made, "00")] == ["png", "npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["distilled.npz", "images"]


def test_views_of_the_same_pixels_share_one_measurement(tmp_path: Path, toy: dict[str, Any]) -> None:
    views = write_views(tmp_path, toy["distilled"], "00")
    (tmp_path / "master.bin").write_bytes(b"12345")
    rows = {row["name"]: row for row in described(tmp_path / "master.bin", views, ACCURACY)}
    assert rows["master"] == {
        "name": "master",
        "place": "master.bin",
        "bytes": 5,
        "largest_pixel_error": 0.0,
        "accuracy": ACCURACY["master"],
    }
    assert rows["npz"]["accuracy"] == rows["png"]["accuracy"] == ACCURACY["png"]
    assert [row["accuracy"] for row in described(tmp_path / "master.bin", views, FEW)] == [None] * 4


def test_metadata_says_what_the_set_is_and_is_not_for(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["distilled"] = replace(toy["distilled"], sequence=((3, 0.05), (6, 0.02)))
    said = metadata_of(write_release(tmp_path / "toy", **toy, view_accuracy=ACCURACY))
    assert said["format"] == 2 and said["name"] == "Distilled set of Toy films"
    assert any("not for diagnosis" in words for words in said["out_of_scope"]) and said["intended_use"]
    assert said["classes"] == ["COVID", "lung opacity", "normal"] == said["class_folders"]
    assert (said["images"], said["images_per_class"]) == (6, [2, 2, 2])
    assert said["size"] == {"channels": 1, "height": 16, "width": 16}
    assert said["normalisation"] == {"mean": [0.5], "std": [0.25], "rule": "(pixel - mean) / std"}
    assert said["training"] == {
        "learning_rate": 0.02,
        "sequence": [[3, 0.05], [6, 0.02]],
        "augmentation": ["flip", "crop"],
        "network": {"name": "convnet", "channels": 1, "classes": 3, "size": 16, "width": 4, "depth": 2},
    }
    assert (said["method"], said["start"]) == ("iadd", "noise")
    assert said["source"] == {"name": "Toy films", "citation": "Planted et al. 2021", "licence": "CC BY 4.0"}
    assert said["privacy"]["verdict"] == "pass" and said["privacy"]["decision"]["override"] is None
    assert [view["name"] for view in said["views"]] == ["master", "png", "npz", "dicom"]
    assert said["views"][1]["accuracy"] == ACCURACY["png"]
    assert said["views_accuracy"] == {"metric": "balanced_accuracy", "networks": 5, "withheld": None}


def test_metadata_names_who_answered(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["audit"]["verdict"] = toy["audit"]["checks"][0]["verdict"] = "inconclusive"
    said = metadata_of(write_release(tmp_path / "toy", **toy, accept="Dr. A: phantoms"))
    assert said["privacy"]["decision"]["accepted"] == {"name": "Dr. A", "reason": "phantoms"}
    assert said["source"]["name"] == "Toy films" and said["views"][0]["accuracy"] is None


def test_no_figure_of_patients_leaves_with_a_ledger(tmp_path: Path, toy: dict[str, Any]) -> None:
    """Whatever the caller hands over."""
    toy["audit"]["checks"][0]["number"], toy["audit"]["words"] = 1, ["Every check passed."]
    folder = write_release(tmp_path / "toy", **toy, ledger={"epsilon": 8.0}, view_accuracy=ACCURACY)
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".md", ".jsonl", ".yaml"):
            assert not any(number in path.read_text() for number in ("0.8125", "0.812", "0.1125", "0.113", "388"))
    said = metadata_of(folder)
    assert "outside epsilon" in said["views_accuracy"]["withheld"]
    assert all(view["accuracy"] is None for view in said["views"])
    assert (
        "Figures measured on real patients are outside epsilon and stay in the house."
        in ((folder / "README.md").read_text().split("## Views")[1].split("##")[0])
    )


def test_why_a_loss_is_withheld_stands_in_card_and_metadata(tmp_path: Path, toy: dict[str, Any]) -> None:
    folder = write_release(tmp_path / "toy", **toy, view_accuracy=FEW)
    assert metadata_of(folder)["views_accuracy"]["withheld"] == FEW["withheld"]
    assert "A class has fewer than 10 test patients." in (folder / "README.md").read_text()


def test_the_environment_names_no_machine(tmp_path: Path, toy: dict[str, Any]) -> None:
    import platform

    said = json.loads((write_release(tmp_path / "toy", **toy) / "environment.json").read_text())
    assert set(said) == {"medistill", "python", "system", "machine", "packages"}
    assert said["packages"]["torch"] == version("torch") and platform.node() not in json.dumps(said)


@pytest.mark.parametrize(
    "classes",
    [
        ("../../etc/passwd", "a/b\\c", "CON"),
        ("~", ".", ".."),
        ("normal", "Normal", "NORMAL"),
        ("肺 炎", "e\u0301", "\u00e9"),
        ("-rf *", "<b>|`x`", '"quo"te\''),
    ],
)
def test_classes_of_any_name_make_a_release_that_verifies(
    tmp_path: Path, toy: dict[str, Any], classes: tuple[str, ...]
) -> None:
    toy["distilled"] = replace(toy["distilled"], classes=classes)
    toy["evaluation"]["classes"] = list(classes)
    toy["overview"]["counts"] = {}
    folder = write_release(tmp_path / "deep" / "toy", **toy)
    assert medistill.load(folder).classes == classes and metadata_of(folder)["classes"] == list(classes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]
    assert len({path.parent for path in (folder / "images").glob("*/*.png")}) == 3
    rows = [json.loads(line) for line in (folder / "images" / "metadata.jsonl").read_text().splitlines()]
    assert [row["class"] for row in rows] == [*classes, *classes]


def test_the_whole_folder_is_the_same_years_later(
    tmp_path: Path, toy: dict[str, Any], years_later: Callable[[], None]
) -> None:
    one = write_release(tmp_path / "one", **toy, view_accuracy=ACCURACY)
    years_later()
    two = write_release(tmp_path / "two", **toy, view_accuracy=ACCURACY)
    assert (one / "SHA256SUMS").read_bytes() == (two / "SHA256SUMS").read_bytes()


def test_hugging_face_loads_the_release_by_its_card(
    tmp_path: Path, toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    toy["distilled"] = replace(toy["distilled"], classes=("test", "validation", "normal"))
    folder = write_release(tmp_path / "toy", **toy)
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"train"} and len(found["train"]) == 6
    assert sorted(row["class"] for row in found["train"]) == ["normal"] * 2 + ["test"] * 2 + ["validation"] * 2
