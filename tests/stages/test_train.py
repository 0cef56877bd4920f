"""`medistill train`: what is trained, kept, measured and recorded; every mistake one sentence."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from release.conftest import films
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from stages.toy_release import RECIPE, release_of, write_films

import medistill
from medistill.cli import main
from medistill.evaluate.student import Recipe, fit
from medistill.files import sha256
from medistill.nets import architecture_named, flatten
from medistill.release.model import load_model
from medistill.seeds import generator
from medistill.stages import train as stage
from medistill.stages.order import RATES
from medistill.stages.recorded import origin

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return release_of(tmp_path / "toy")


def train(*words: object) -> None:
    main(["train", *map(str, words), "--track", "false"])


def fails(capsys: pytest.CaptureFixture[str], *words: object, code: int = 2) -> str:
    with pytest.raises(SystemExit) as stopped:
        train(*words)
    assert stopped.value.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def facts(place: Path) -> dict[str, Any]:
    return json.loads((place / "model.json").read_text())


def test_networks_are_trained_by_the_release_s_own_recipe_and_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(folder, "--students", 2, "--seed", 5, "--out", "mine")
    data, model = medistill.load(folder), load_model(Path("mine"))
    recipe = Recipe(**{**RECIPE, "augment": tuple(RECIPE["augment"])})
    for number, student in enumerate(model.students):
        drawn = generator(5, "train", number)
        expected = fit(data.images, data.labels, data.architecture, data.lr, recipe, drawn, CPU)
        assert torch.allclose(flatten(student), flatten(expected), atol=1e-5)
    assert not torch.allclose(flatten(model.students[0]), flatten(model.students[1]), atol=1e-2)
    said = facts(Path("mine"))
    assert said["release"] == {
        "name": "toy films",
        "digest": data.digest,
        "fingerprint": None,
        "trusted": False,
        "verdict": "pass",
        "licence": "CC BY 4.0",
        "citation": "Planted et al. 2021",
    }
    assert said["training"]["recipe"] == RECIPE and said["training"]["lr"] == data.lr
    assert said["films"] == {"adapter": "films", "size": 16, "mask": 0.125, "modalities": ["DX"], "views": ["PA", ""]}
    assert "not for diagnosis" in said["use"] and "not for diagnosis" in capsys.readouterr().out
    answers = model.probabilities(data.pictures(), CPU)  # their border is blank already
    loss = torch.nn.functional.cross_entropy(answers.clamp_min(1e-30).log().flatten(0, 1), data.targets.repeat(2))
    kept = json.loads(Path("mine/metrics.json").read_text())
    assert kept["test"] is None and kept["synthetic"]["loss"] == pytest.approx(float(loss), rel=1e-3)
    right = (answers.argmax(2) == data.targets).float().mean()
    assert kept["synthetic"]["accuracy"] == pytest.approx(float(right))


def test_the_same_inputs_make_the_same_folder_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(folder)
    (place,) = Path().glob("model-*")
    assert (
        re.fullmatch(r"model-[0-9a-f]{8}", place.name) and place.name == f"model-{facts(place)['training']['key'][:8]}"
    )
    first = (place / "model.safetensors").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr("medistill.stages.train.fit_all", None)
    train(folder)
    assert f"done already -> {place}" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(folder.parent)
    train(folder, "--out", "second")
    assert Path("second/model.safetensors").read_bytes() == first
    train(folder, "--seed", 1)
    assert len(list(Path().glob("model-*"))) == 2
    assert "holds a model of another release or other settings" in fails(capsys, folder, "--seed", 2, "--out", "second")
    Path("full").mkdir()
    Path("full/own.txt").write_text("mine")
    assert "full: exists already" in fails(capsys, folder, "--out", "full")
    assert Path("full/own.txt").read_text() == "mine"


def test_options_take_the_place_of_the_release_s_recipe(folder: Path) -> None:
    words = ("--steps", 7, "--batch", 2, "--lr", 0.01, "--augment", "none", "--arch", "convnet:8")
    train(folder, *words, "--out", "mine")
    data, said = medistill.load(folder), facts(Path("mine"))
    assert said["training"]["recipe"] == RECIPE | {"steps": 7, "batch": 2, "augment": []}
    assert said["architecture"]["width"] == 8 and said["training"]["lr"] == 0.01
    wide = architecture_named("convnet:8", data.architecture)
    recipe = Recipe(steps=7, batch=2, momentum=0.8, weight_decay=1e-3, augment=())
    expected = fit(data.images, data.labels, wide, 0.01, recipe, generator(0, "train", 0), CPU)
    assert torch.allclose(flatten(load_model(Path("mine")).students[0]), flatten(expected), atol=1e-6)


def test_another_kind_of_network_has_a_step_size_of_its_own(folder: Path) -> None:
    train(folder, "--arch", "resnet18:4", "--steps", 2, "--out", "mine")
    assert facts(Path("mine"))["training"]["lr"] == RATES["resnet18"]
    train(folder, "--arch", "convnet:16", "--steps", 2, "--out", "wide")
    assert facts(Path("wide"))["training"]["lr"] == 0.02, "of its own kind the set's"


def test_an_ordered_set_is_learnt_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = release_of(tmp_path / "toy", sequence=((3, 0.05), (6, 0.01)))
    train(folder, "--out", "own")
    train(folder, "--out", "given", "--lr", 0.03)
    assert facts(Path("own"))["training"]["sequence"] == [[3, 0.05], [6, 0.01]]
    assert facts(Path("given"))["training"]["sequence"] == [[3, 0.03], [6, 0.03]]
    data = medistill.load(folder)
    recipe = Recipe(**{**RECIPE, "augment": tuple(RECIPE["augment"])})
    from medistill.evaluate.student import fit_all

    drawn = [generator(0, "train", 0)]
    ((_, expected),) = fit_all(
        data.images, data.labels, data.architecture, 0.0, recipe, drawn, CPU, sequence=((3, 0.05), (6, 0.01))
    )
    assert torch.allclose(flatten(load_model(Path("own")).students[0]), flatten(expected), atol=1e-5)


def test_a_network_that_has_not_learnt_or_diverged_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(folder, "--steps", 1, "--lr", 1e-6)
    assert "note: it has not learnt them; give more --steps, or another --lr" in capsys.readouterr().out
    told = fails(capsys, folder, "--lr", 1e6)
    assert "--lr: convnet: a student diverged" in told and "lower the learning rate" in told
    assert len(list(Path().glob("model-*"))) == 1 and not list(Path().glob(".*"))


def test_a_release_cannot_write_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(release_of(tmp_path / "toy", name="toy\x1b[2J\nfilms"), "--steps", 2, "--out", tmp_path / "mine")
    assert "release: toy[2J films, 6 images" in capsys.readouterr().out
    assert facts(tmp_path / "mine")["release"]["name"] == "toy[2J films"


def test_a_full_memory_is_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")

    monkeypatch.setattr("medistill.stages.train.fit_all", full)
    assert "cpu: out of memory while training convnet; lower --batch" in fails(capsys, folder, "--device", "cpu")
    assert not list(Path().glob("*model*"))


def measured(place: str) -> dict[str, Any]:
    return json.loads(Path(place, "metrics.json").read_text())["test"]


def test_figures_on_own_films_are_those_of_sklearn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_films(Path("own"), 72, "own")  # 12 patients a class, two films each
    words = ("--steps", 20, "--students", 2, "--out", "mine", "--workers", 2)
    train(folder, *words, "--test", "own/films.csv")
    found = measured("mine")
    data, model = medistill.load(folder), load_model(Path("mine"))
    from medistill.data.decode import decode

    paths = [Path(f"own/film_{n}.png") for n in range(72)]
    answers = model.probabilities(decode(paths, 16, workers=2).images, CPU).mean(0)
    labels = films(72, "own")[1]
    positive = data.classes.index("COVID")
    value = {name: row["value"] for name, row in found["metrics"].items()}
    assert value["accuracy"] == pytest.approx(accuracy_score(labels, answers.argmax(1)))
    assert value["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, answers.argmax(1)))
    assert value["auroc_positive"] == pytest.approx(roc_auc_score(labels == positive, answers[:, positive].double()))
    assert (found["films"], found["patients"], found["left_out"]) == (72, 36, 0)
    assert "sensitivity" not in value, "no threshold was fixed on other patients"
    for row in found["metrics"].values():
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
    assert found["classes"]["COVID"]["films"] == 24 and found["classes"]["COVID"]["patients"] == 12
    capsys.readouterr()
    before = Path("mine/metrics.json").read_bytes()
    train(folder, *words, "--test", "own/films.csv")
    told = capsys.readouterr().out
    assert "train: done already" in told and "test: done already" in told
    assert Path("mine/metrics.json").read_bytes() == before


def test_figures_of_few_patients_are_shown_and_not_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_films(Path("own"), 54, "own")  # 9 patients a class
    train(folder, "--steps", 5, "--out", "mine", "--test", "own/films.csv")
    assert list(measured("mine")) == ["withheld"] and "fewer than 10 patients" in measured("mine")["withheld"]
    told = capsys.readouterr().out
    assert "test: balanced accuracy" in told and "shown, not kept" in told


def test_the_table_of_test_films_may_lack_a_class_and_hold_bad_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_films(Path("own"), 72, "own")
    table = Path("own/films.csv").read_text().splitlines()
    Path("own/film_0.png").write_text("no film")
    kept = [line for line in table if "lung opacity" not in line]
    Path("own/films.csv").write_text("\n".join(kept) + "\n")
    train(folder, "--steps", 5, "--out", "mine", "--test", "own/films.csv")
    found = measured("mine")
    assert found["left_out"] == 1 and found["films"] == 47
    assert found["classes"]["lung opacity"] == {"films": 0, "patients": 0, "recall": None, "interval": [None, None]}
    assert found["metrics"]["balanced_accuracy"]["value"] is None
    assert found["metrics"]["accuracy"]["value"] is not None
    told = capsys.readouterr().out
    assert "film_0.png: neither DICOM, PNG" in told and "1 of 48 films cannot be used" in told


def test_only_the_test_films_of_a_split_table_are_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_films(Path("own"), 144, "own")
    head, *rows = Path("own/films.csv").read_text().splitlines()
    split = ["test"] * 72 + ["train"] * 48 + ["val"] * 24
    lines = [f"{head},split", *(f"{row},{name}" for row, name in zip(rows, split, strict=True))]
    Path("own/films.csv").write_text("\n".join(lines).replace("patient_id", "who") + "\n")
    for name in names[72:]:
        Path("own", name).write_text("never read")
    train(folder, "--steps", 5, "--out", "mine", "--test", "own/films.csv", "--columns", "{patient_id: who}")
    assert measured("mine")["films"] == 72 and measured("mine")["left_out"] == 0
    assert "72 of 144 films are test films" in capsys.readouterr().out


def test_class_folders_are_taken_with_a_word_on_patients(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, labels = write_films(Path("own"), 36, "own"), films(36, "own")[1]
    for name, label in zip(names, labels.tolist(), strict=True):
        place = Path("sorted", ("COVID", "lung opacity", "normal")[label])
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path("own", name), place)
    train(folder, "--steps", 5, "--out", "mine", "--test", "sorted")
    assert measured("mine")["patients"] == 36
    assert "36 films have no patient id; each counts as a patient of its own" in capsys.readouterr().out


def test_every_mistake_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_films(tmp_path / "own", 6, "own")
    table = tmp_path / "own" / "films.csv"
    text = table.read_text()
    assert "--arch: 'resnet' is no network; choose from" in fails(capsys, folder, "--arch", "resnet")
    assert "--arch: 'vgg11:8': vgg11 needs images of 32" in fails(capsys, folder, "--arch", "vgg11:8")
    assert "--steps is -1; give 0 or more" in fails(capsys, folder, "--steps", -1)
    assert "--students is 0" in fails(capsys, folder, "--students", 0)
    assert "--augment: 'blur' is not an augmentation" in fails(capsys, folder, "--augment", "blur")
    assert "--columns names columns" in fails(capsys, folder, "--columns", "{path: file}")
    assert "no such folder" in fails(capsys, tmp_path / "absent")
    words = (folder, "--steps", 2, "--test", table)
    table.write_text(text.replace("COVID", "covid"))
    assert "labels covid, but the release knows COVID, lung opacity, normal" in fails(capsys, *words)
    table.write_text(text.replace("patient_id", "who"))
    assert "no column patient_id" in (told := fails(capsys, *words)) and "--columns" in told
    table.write_text(text)
    for path in (tmp_path / "own").glob("*.png"):
        path.write_text("no film")
    assert "--test: none of the 6 films could be read" in fails(capsys, *words)
    (folder / "README.md").write_text("changed")
    assert "README.md: changed" in fails(capsys, folder, code=1)


def test_mlflow_learns_what_was_trained_and_nothing_of_patients_or_places(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    write_films(tmp_path / "MARKED", 72, "own")
    words = ["train", str(folder), "--steps", "5", "--test", "MARKED/films.csv", "--out", "MARKEDOUT"]
    main(words)
    main(words)
    told = capsys.readouterr().out
    assert told.count("registered: toy films, version 1, alias released") == 1
    client = MlflowClient()
    experiment = client.get_experiment_by_name("toy films")
    runs = client.search_runs([experiment.experiment_id])
    stages = {run.data.tags.get("medistill.stage", "study"): run for run in runs}
    assert sorted(stages) == ["study", "test", "train"] and len(runs) == 3
    digest = medistill.load(folder).digest
    assert {run.data.tags["medistill.release"] for run in runs} == {digest}
    assert stages["train"].data.params["train.recipe.steps"] == "5"
    kept = json.loads(Path("MARKEDOUT/metrics.json").read_text())
    assert stages["train"].data.metrics["synthetic/loss"] == pytest.approx(kept["synthetic"]["loss"])
    area = kept["test"]["metrics"]["auroc_positive"]["value"]
    assert stages["test"].data.metrics["test/auroc_positive"] == pytest.approx(area)
    version = client.get_model_version_by_alias("toy films", "released")
    assert version.tags["medistill.release"] == digest and version.run_id == stages["train"].info.run_id
    everything = (tmp_path / "mlflow.db").read_bytes()
    for mark in (b"MARKED", b"film_1", b"P1-", str(tmp_path / "toy").encode()):
        assert mark not in everything
    kept_files = [path for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()]
    assert {"model.json", "model.safetensors"} <= {path.name for path in kept_files}
    assert not any(b"MARKED" in path.read_bytes() for path in kept_files)


def test_a_model_trained_without_the_record_is_recorded_later_and_the_alias_waits_for_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    folder = release_of(tmp_path / "toy", verdict="inconclusive")
    train(folder, "--steps", 5)
    main(["train", str(folder), "--steps", "5"])
    told = capsys.readouterr().out
    assert "train: done already" in told
    assert "registered: toy films, version 1, without the alias released: verdict inconclusive" in told


def test_what_was_verified_is_registered_whatever_lies_there_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    folder, other = release_of(tmp_path / "toy", verdict="inconclusive"), release_of(tmp_path / "other")
    digest = medistill.load(folder).digest
    fit_all = stage.fit_all

    def swapped(*arguments: Any, **options: Any) -> Any:
        folder.rename(tmp_path / "away")
        other.rename(folder)
        return fit_all(*arguments, **options)

    monkeypatch.setattr(stage, "fit_all", swapped)
    main(["train", str(folder), "--steps", "5"])
    assert medistill.load(folder).audit["verdict"] == "pass"
    assert "version 1, without the alias released: verdict inconclusive" in capsys.readouterr().out
    tags = MlflowClient().get_model_version("toy films", "1").tags
    assert (tags["medistill.release"], tags["verdict"]) == (digest, "inconclusive")
    assert tags["set"] == sha256(tmp_path / "away" / "distilled.safetensors")


def test_a_merged_release_is_registered_with_all_that_is_in_it(folder: Path) -> None:
    parts = [
        {"digest": "a" * 64, "images_sha256": "b" * 64, "verdict": "pass", "parts": "of another form"},
        {"digest": "c" * 64, "images_sha256": "d" * 64, "verdict": "fail"},
        {"digest": "e" * 64, "images_sha256": 7, "parts": [{"digest": "f" * 64, "verdict": "fail"}, "no record"]},
    ]
    found = origin(replace(medistill.load(folder), provenance={"parts": parts}))
    assert found.parts == {letter * 64 for letter in "abcdef"}
    assert found.failed == {letter * 64 for letter in "cdf"}
    assert origin(medistill.load(folder)).parts == frozenset()


def test_what_a_killed_call_left_is_swept_by_the_next(folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, living = Path(f".mine.{gone.pid}.tmp"), Path(f".mine.{os.getppid()}.tmp")
    foreign = Path(f".mine2.{gone.pid}.tmp")
    for place in (left, living, foreign):
        place.mkdir()
        (place / "model.safetensors").write_text("half")
    train(folder, "--steps", 2, "--out", "mine")
    assert not left.exists() and living.exists() and foreign.exists()
