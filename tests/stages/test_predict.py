"""`medistill predict`: a row for each film, prepared as the release's films were; a bad film never stops the others."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from stages.toy_release import release_of, write_films

from medistill.cli import main
from medistill.data.film import read_film
from medistill.release.model import load_model
from medistill.stages.predict import plain_cell

CLASSES = ("COVID", "lung opacity", "normal")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of two students, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = release_of(tmp_path / "toy", mask=0.25)
    main(["train", str(folder), "--steps", "8", "--students", "2", "--out", "model", "--track", "false"])
    return Path("model")


def rows(path: str = "predictions.csv") -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *map(str, words)])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_each_film_is_masked_normalised_and_asked_and_a_bad_one_told(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against the networks called by hand on what the one door for films returns."""
    names = write_films(Path("films/inner"), 5, "asked")
    Path("films/a, b.png").write_bytes(Path("films/inner/film_0.png").read_bytes())
    Path("films/.hidden.png").write_text("left alone")
    capsys.readouterr()
    main(["predict", "model", "films", "--workers", "2"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Not for diagnosis")
    assert "predict: 6 of 7 films -> predictions.csv, which speaks of patients: keep it in the house" in said
    assert "note: 1 files could not be read; the column error says why" in said
    found = {row["file"]: row for row in rows()}
    assert list(found) == ["a, b.png", *(f"inner/{name}" for name in names), "inner/films.csv"]
    assert found["inner/films.csv"]["error"].startswith("films.csv: neither DICOM, PNG")
    assert found["inner/films.csv"]["class"] == found["inner/films.csv"]["p(COVID)"] == ""
    students = load_model(model).students
    for name in names:
        film = torch.from_numpy(read_film(Path("films/inner", name)).pixels)[None, None]  # 16 px, as the network's
        seen = torch.zeros(1, 1, 16, 16)
        seen[..., 4:12, 4:12] = (film[..., 4:12, 4:12] - 0.5) / 0.25
        each = torch.stack([torch.softmax(student(seen), 1)[0].detach() for student in students])
        mean, row = each.mean(0), found[f"inner/{name}"]
        assert [float(row[f"p({label})"]) for label in CLASSES] == pytest.approx(mean.tolist(), abs=1e-5)
        assert row["class"] == CLASSES[int(mean.argmax())] and row["error"] == ""
        assert float(row["spread"]) == pytest.approx(float(each[:, mean.argmax()].std()), abs=1e-5)


def test_films_in_several_batches_keep_their_names(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_films(Path("films"), 7, "asked")
    Path("films/films.csv").unlink()
    main(["predict", "model", "films", "--out", "whole.csv"])
    monkeypatch.setattr("medistill.stages.predict.AT_ONCE", 3)
    main(["predict", "model", "films", "--out", "parts.csv"])
    assert len(rows("whole.csv")) == 7
    for whole, part in zip(rows("whole.csv"), rows("parts.csv"), strict=True):
        assert whole["file"] == part["file"] and whole["class"] == part["class"]
        assert float(whole["p(COVID)"]) == pytest.approx(float(part["p(COVID)"]), abs=1e-5)


def test_one_file_and_one_student(model: Path) -> None:
    main(["train", "toy", "--steps", "8", "--out", "single", "--track", "false"])
    write_films(Path("films"), 1, "asked")
    main(["predict", "single", "films/film_0.png", "--out", "new/one.csv"])
    (row,) = rows("new/one.csv")
    assert list(row) == ["file", "class", *(f"p({label})" for label in CLASSES), "error"]
    assert row["file"] == "film_0.png"
    assert sum(float(row[f"p({label})"]) for label in CLASSES) == pytest.approx(1, abs=2e-6)


def test_modality_and_view_are_the_release_s_unless_options_say_otherwise(model: Path) -> None:
    from medistill.data.phantom_files import write_cohort

    write_cohort(Path("phantom"), patients=6, films=2, size=64, seed=1)
    films = sorted(Path("phantom/films").glob("*.dcm"))
    main(["predict", "model", "phantom/films", "--out", "strict.csv"])
    from pydicom import dcmread

    for row in rows("strict.csv"):
        if row["file"].endswith(".dcm"):
            header = dcmread(Path("phantom/films", row["file"]), stop_before_pixels=True)
            accepted = header.Modality == "DX" and header.get("ViewPosition", "") in ("PA", "")
            assert (row["error"] == "") == accepted
            assert accepted or re.search(r"accepted are .* to --(modalities|views)$", row["error"])
    assert films and any(row["error"] for row in rows("strict.csv"))
    main(["predict", "model", "phantom/films", "--modalities", "CR", "DX", "--views", "PA", "AP", "--out", "all.csv"])
    assert not any(row["error"] for row in rows("all.csv") if row["file"].endswith(".dcm"))


def test_the_table_is_ours_or_not_written(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_films(Path("films"), 2, "asked")
    Path("predictions.csv").write_text("path,label\na.png,COVID\n")
    assert "--out: predictions.csv exists and holds no predictions" in fails(capsys, "model", "films")
    assert Path("predictions.csv").read_text() == "path,label\na.png,COVID\n"
    main(["predict", "model", "films", "--out", "films/out.csv"])
    first = Path("films/out.csv").read_bytes()
    main(["predict", "model", "films", "--out", "films/out.csv"])  # neither read as a film nor refused
    assert Path("films/out.csv").read_bytes() == first


def test_every_mistake_is_one_sentence(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("bad").mkdir()
    for name in ("one.png", "two.dcm"):
        Path("bad", name).write_text("no film")
    assert "absent: no such file or folder" in fails(capsys, "model", "absent")
    assert "empty: holds no file" in fails(capsys, "model", "empty")
    assert "no model.json in it" in fails(capsys, "toy", "bad")
    assert "none of the 2 files could be read; the column error of predictions.csv" in fails(capsys, "model", "bad")
    assert [bool(row["error"]) for row in rows()] == [True, True]
    assert "--out is empty" in fails(capsys, "model", "bad", "--out", "")
    change_channels(model)
    assert "pictures of 3 channels, and films are gray" in fails(capsys, "model", "bad")


def change_channels(model: Path) -> None:
    """Make a model of colour pictures of it."""
    from dataclasses import replace

    from medistill.release.model import write_model

    old = load_model(model)
    colour = replace(old.architecture, channels=3)
    student = colour.build(torch.Generator().manual_seed(0))
    made = replace(old, architecture=colour, mean=(0.5,) * 3, std=(0.25,) * 3, students=(student,))
    model.rename("gray")
    write_model(model, made, {}, "")


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("-2", "'-2"), ("COVID", "COVID"), ("p=1", "p=1")],
)
def test_no_cell_is_a_formula(text: str, cell: str) -> None:
    assert plain_cell(text) == cell


def test_a_name_that_is_no_utf8_is_written_in_escapes(model: Path) -> None:
    write_films(Path("films"), 1, "asked")
    Path("films/films.csv").unlink()
    Path("films/film_0.png").rename(Path("films", os.fsdecode(b"\xff.png")))
    main(["predict", "model", "films"])
    (row,) = rows()
    assert row["file"] == "\\udcff.png" and row["error"] == ""


def test_a_release_of_a_benchmark_is_told(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_films(Path("films"), 1, "asked")
    facts: dict[str, Any] = json.loads((model / "model.json").read_text())
    facts["films"]["adapter"] = "medmnist"
    (model / "model.json").write_text(json.dumps(facts))
    main(["predict", "model", "films"])
    assert "note: the release was made of medmnist, not of films" in capsys.readouterr().out


def test_rows_that_a_killed_call_left_are_swept_by_the_next(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_films(Path("films"), 1, "asked")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, living = Path(f".p.csv.{gone.pid}.tmp"), Path(f".p.csv.{os.getppid()}.tmp")
    for place in (left, living):
        place.write_text("file,class\npatient.png,COVID\n")
    assert "absent: no such file" in fails(capsys, "model", "absent", "--out", "p.csv")
    assert not left.exists(), "even by a call that comes to nothing"
    main(["predict", "model", "films", "--out", "p.csv"])
    assert living.exists() and len(rows("p.csv")) == 2
