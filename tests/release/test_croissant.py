"""croissant.json: valid to ML Commons' own library, which reads the rows from it, offline."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from medistill.release.bundle import write_release


@pytest.fixture
def folder(tmp_path: Path, toy: dict[str, Any]) -> Path:
    return write_release(tmp_path / "toy", **toy)


def test_it_says_what_is_known_and_no_date(folder: Path) -> None:
    said = json.loads((folder / "croissant.json").read_text())
    assert said["name"] == "Distilled set of Toy films" and said["license"] == "CC BY 4.0"
    assert said["citeAs"] == "Planted et al. 2021" and "not for diagnosis" in said["description"]
    assert said["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert not any("date" in key.lower() for key in said)
    files = {part["@id"]: part for part in said["distribution"]}
    assert set(files) == {"distilled.safetensors", "images/metadata.jsonl", "distilled.npz", "pictures", "slides"}
    for name in ("distilled.safetensors", "images/metadata.jsonl", "distilled.npz"):
        data = (folder / name).read_bytes()
        assert files[name]["sha256"] == hashlib.sha256(data).hexdigest()
        assert files[name]["contentSize"] == f"{len(data)} B" and files[name]["contentUrl"] == name
    fields = said["recordSet"][0]["field"]
    assert [field["name"] for field in fields if field.get("repeated")] == ["probabilities"]
    assert len(list(folder.glob(files["pictures"]["includes"]))) == 6
    assert len(list(folder.glob(files["slides"]["includes"]))) == 6


def test_what_is_not_known_is_not_said(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["overview"] = {}
    said = json.loads((write_release(tmp_path / "toy", **toy) / "croissant.json").read_text())
    assert "license" not in said and "citeAs" not in said


def test_mlcroissant_validates_it_and_reads_the_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)
    found = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    assert found.metadata.ctx.issues.errors == set()
    rows = list(found.records(record_set="images"))
    lines = [json.loads(line) for line in (folder / "images" / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    for row, line in zip(rows, lines, strict=True):
        texts = {name: row[f"images/{name}"].decode() for name in ("file_name", "class")}
        numbers = {name: row[f"images/{name}"] for name in ("index", "label", "learning_rate")}
        soft = {"probabilities": list(row["images/probabilities"])}
        assert texts | numbers | soft == line
