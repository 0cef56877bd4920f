"""A saved classifier: the same answers after reading, and a folder from elsewhere is believed in nothing."""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medistill.errors import UserError
from medistill.nets import Architecture
from medistill.release.model import USE, Model, card, load_model, write_model
from medistill.release.reading import Reading
from medistill.seeds import generator

NET = Architecture("convnet", 1, 3, 16, 4, 2)
CLASSES = ("COVID", "lung opacity", "normal")
READING = Reading(size=16, mask=0.25, modalities=("DX",), views=("PA", ""))
FACTS = {
    "positive": "COVID",
    "training": {"images": 6},
    "release": {"name": "toy", "digest": "ab", "verdict": "pass", "licence": "", "citation": "Planted 2021"},
}


def model(count: int = 2, architecture: Architecture = NET) -> Model:
    students = tuple(architecture.build(generator(number, "test")).eval() for number in range(count))
    classes = tuple(f"class {n}" for n in range(architecture.classes)) if architecture.classes != 3 else CLASSES
    return Model(architecture, classes, (0.4,), (0.2,), READING, students, dict(FACTS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "model", model(), {"synthetic": {}}, "card\n")
    return tmp_path / "model"


def change(folder: Path, **values: Any) -> None:
    """Change model.json; ... deletes."""
    facts = json.loads((folder / "model.json").read_text()) | values
    text = json.dumps({name: value for name, value in facts.items() if value is not ...})
    (folder / "model.json").write_text(text)


def repack(folder: Path, do: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights, with an honest digest."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    do(tensors)
    save_file(tensors, path)
    change(folder, weights=hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_model_answers_the_same_after_reading_and_as_its_networks_do(folder: Path) -> None:
    films = torch.rand(5, 1, 16, 16, generator=generator(1, "films"))
    made, cpu = model(), torch.device("cpu")
    read = load_model(folder)
    assert torch.equal(read.probabilities(films, cpu), made.probabilities(films, cpu))
    assert (read.architecture, read.classes, read.mean, read.std, read.reading) == (
        made.architecture,
        made.classes,
        made.mean,
        made.std,
        made.reading,
    )
    seen = torch.full_like(films, 0.5)
    seen[..., 4:12, 4:12] = films[..., 4:12, 4:12]  # a quarter of 16 pixels is grey on each side
    expected = [torch.softmax(student((seen - 0.4) / 0.2), 1) for student in made.students]
    assert torch.allclose(read.probabilities(films, cpu), torch.stack(expected), atol=1e-6)


def test_the_folder_says_what_it_is_of_and_what_it_is_not_for(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "metrics.json",
        "model.json",
        "model.safetensors",
    ]
    facts = json.loads((folder / "model.json").read_text())
    assert facts["use"] == USE and "not for diagnosis" in USE
    assert facts["architecture"] == asdict(NET) and facts["students"] == 2 and facts["positive"] == "COVID"
    assert facts["films"] == {"adapter": "films", "size": 16, "mask": 0.25, "modalities": ["DX"], "views": ["PA", ""]}
    text = card(FACTS, CLASSES)
    assert "**Not for diagnosis.**" in text and "6 synthetic images and no film" in text
    assert "Licence of the release's source: not stated. Cite: Planted 2021." in text
    assert len(text.splitlines()) == 9


def test_nothing_half_written_stays_and_nothing_is_overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="exists already; name another folder with --out"):
        write_model(folder, model(), {}, "")
    monkeypatch.setattr("medistill.release.model.write_text", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_model(folder.parent / "second", model(), {}, "")
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_set_that_no_model_file_could_hold_is_not_written(tmp_path: Path) -> None:
    from dataclasses import replace

    for classes in (("a", "a", "b"), ("a", "b", "c\x1b[2J"), ("a", "b", "")):
        with pytest.raises(UserError, match=r"^train: classes: "):
            write_model(tmp_path / "model", replace(model(), classes=classes), {}, "")
    assert not list(tmp_path.iterdir())


NET_FACTS = asdict(NET)
FILMS = {"adapter": "films", "size": 16, "mask": 0.25, "modalities": ["DX"], "views": ["PA"]}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"format": 2}, "format '2', this version reads 1"),
        ({"classes": ...}, "classes: no list"),
        ({"classes": ["a", "b", 3]}, "classes: a name"),
        ({"classes": ["a", "b", "b"]}, "twice"),
        ({"classes": ["a", "b"]}, "and 2 classes"),
        ({"students": 0}, "students"),
        ({"students": 10**9}, "students"),
        ({"students": True}, "students"),
        ({"students": 1}, "holds a stranger, '1."),
        ({"students": 3}, "lacks '2."),
        ({"weights": ...}, "weights"),
        ({"weights": "0" * 64}, "their SHA-256 differs"),
        ({"architecture": "convnet"}, "architecture: not made of"),
        ({"architecture": NET_FACTS | {"hook": "os.system"}}, "architecture: not made of"),
        ({"architecture": NET_FACTS | {"name": ["convnet"]}}, "is not one of convnet"),
        ({"architecture": NET_FACTS | {"name": "eval"}}, "'eval' is not one of convnet"),
        ({"architecture": NET_FACTS | {"width": 4.0}}, "whole number above zero"),
        ({"architecture": NET_FACTS | {"width": 10**9}}, "net.width is 1000000000"),
        ({"architecture": NET_FACTS | {"size": 10**6}}, "512 pixels"),
        ({"architecture": NET_FACTS | {"channels": 2}}, "1 or 3 channels"),
        ({"architecture": NET_FACTS | {"depth": 5}}, "halves"),
        ({"architecture": NET_FACTS | {"name": "vit", "width": 32, "depth": 10**6}}, "1000000 blocks"),
        ({"architecture": NET_FACTS | {"width": 5}}, "belongs"),
        ({"mean": [0.5, 0.5]}, "mean: no list of 1"),
        ({"mean": [float("nan")]}, "mean: a value"),
        ({"mean": [10**400]}, "mean: a value"),
        ({"std": [float("inf")]}, "std: a value"),
        ({"std": [0.0]}, "std: a value that is not above zero"),
        ({"std": ["1"]}, "std: a value"),
        ({"films": None}, "films: not how"),
        ({"films": FILMS | {"size": 32}}, "size: 32, but the images have 16"),
        ({"films": FILMS | {"mask": 0.5}}, "mask"),
        ({"films": FILMS | {"mask": float("nan")}}, "mask"),
        ({"films": FILMS | {"mask": -0.1}}, "mask"),
        ({"films": FILMS | {"views": "PA"}}, "views: no list"),
        ({"films": FILMS | {"views": ["x" * 65]}}, "views: a code"),
        ({"films": FILMS | {"modalities": ["\x1b"]}}, "modalities: a code"),
        ({"films": FILMS | {"modalities": ["DX"] * 101}}, "modalities: no list"),
    ],
)
def test_every_false_value_is_named(folder: Path, values: dict[str, Any], reason: str) -> None:
    change(folder, **values)
    with pytest.raises(UserError) as refused:
        load_model(folder)
    assert reason in str(refused.value) and str(refused.value).startswith(("model.json: ", "model.safetensors: "))


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (lambda t: t.update({"0.0.weight": torch.full((4, 1, 3, 3), torch.nan)}), "not finite"),
        (lambda t: t.update({"0.0.weight": torch.zeros(4, 1, 3, 3).double()}), "F64"),
        (lambda t: t.update({"0.0.weight": torch.zeros(4, 1, 3, 5)}), r"\(4, 1, 3, 5\), where F32 \(4, 1, 3, 3\)"),
        (lambda t: t.pop("0.0.weight"), "lacks '0.0.weight'"),
        (lambda t: t.update({"2.0.weight": torch.zeros(1)}), "holds a stranger, '2.0.weight'"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(folder: Path, do: Any, reason: str) -> None:
    repack(folder, do)
    with pytest.raises(UserError, match=f"^model.safetensors: .*{reason}"):
        load_model(folder)


def test_a_header_that_declares_terabytes_and_a_damaged_file_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    head = json.dumps({"0.0.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}})
    for data in (struct.pack("<Q", len(head)) + head.encode(), whole[:-7], b"", os.urandom(64)):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"^model.safetensors: not a file of weights"):
            load_model(folder)


def test_what_is_no_model_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "absent")
    for text, reason in (("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "a list"), (" " * 2**21, "bytes")):
        (folder / "model.json").write_text(text)
        with pytest.raises(UserError, match=f"^model.json: .*{reason}"):
            load_model(folder)
    (folder / "model.json").unlink()
    with pytest.raises(UserError, match=r"no model\.json in it"):
        load_model(folder)
    os.mkfifo(folder / "model.json")  # reading a pipe would wait for ever
    with pytest.raises(UserError, match=r"^model\.json: not a plain file"):
        load_model(folder)
    (folder / "model.json").unlink()
    (folder / "model.json").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"^model\.json: not a plain file"):
        load_model(folder)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "alexnet", "densenet121", "vit"])
def test_every_network_is_kept_whole(tmp_path: Path, name: str) -> None:
    width = 32 if name == "vit" else 4
    architecture = Architecture(name, 1, 3, 32, width, 1 if name == "vit" else 4)
    from dataclasses import replace

    made = replace(model(1, architecture), reading=Reading(size=32))
    write_model(tmp_path / "model", made, {}, "")
    films, cpu = torch.rand(2, 1, 32, 32, generator=generator(1, "films")), torch.device("cpu")
    assert torch.equal(load_model(tmp_path / "model").probabilities(films, cpu), made.probabilities(films, cpu))
