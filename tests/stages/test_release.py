"""The release stage: what each view loses is measured where figures may leave, and nowhere else."""

import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

import medistill
import medistill.stages.release as module
from medistill.cli import configure
from medistill.evaluate.predictions import predictions
from medistill.stages.distill import distill, distilled
from medistill.stages.evaluate import evaluate, evaluated
from medistill.stages.experts import architecture_of, experts
from medistill.stages.load import load
from medistill.stages.release import release
from medistill.stages.session import Session
from medistill.stages.students import recipe_of

AUDIT = {
    "verdict": "pass",
    "context": {"start": "noise", "quick": True},
    "words": ["Every check passed."],
    "checks": [
        {
            "number": 1,
            "name": "nearest real neighbour",
            "verdict": "pass",
            "statistic": {},
            "interval": None,
            "power": 1.0,
            "positive_control": "none: toy",
            "negative_control": "none: toy",
            "explanation": "Toy.",
        }
    ],
}


def session(tiny, folder, said):
    more = ("--evaluate.baselines", "false", "--evaluate.seeds", "3", "--evaluate.steps", "40")
    return Session(configure("run", tiny.options(folder, "--track", "false", *more)), said.append)


@pytest.fixture(scope="module")
def ready(tiny, tmp_path_factory):
    """A run that is ready for its release."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    one = session(tiny, folder, [])
    for stage in (experts, distill, evaluate):
        stage(one)
    return folder


@pytest.fixture
def folder(ready, tmp_path):
    """A copy of it."""
    return shutil.copytree(ready, tmp_path / "run")


@pytest.fixture(autouse=True)
def passed(monkeypatch):
    """An audit that found nothing and kept its papers where the evaluation lies."""
    monkeypatch.setattr(module, "audited", lambda session, splits: (evaluated(session, splits)[0], AUDIT))
    monkeypatch.setattr(module, "failed_before", lambda *_: ())


def arms(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "arms").iterdir()}


def released(tiny, folder):
    """The folder and its metadata."""
    found = release(session(tiny, folder, []))
    return found, json.loads((found / "metadata.json").read_text())


def test_figures_of_few_patients_stay_and_no_student_is_trained_for_them(tiny, folder):
    before = arms(folder)
    found, metadata = released(tiny, folder)
    assert arms(folder) == before
    assert "fewer than 10 test patients" in metadata["views_accuracy"]["withheld"]
    assert all(view["accuracy"] is None for view in metadata["views"])
    section = (found / "README.md").read_text().split("## Views")[1].split("\n## ")[0]
    assert "fewer than 10 test patients" in section and "Balanced accuracy of" not in section
    (check,) = json.loads((found / "audit.json").read_text())["checks"]
    assert (check["verdict"], check["power"]) == ("pass", None) and "fewer than 10 test" in check["explanation"]
    assert medistill.load(found).folder == found


def test_figures_outside_epsilon_stay_and_no_student_is_trained_for_them(tiny, folder, monkeypatch):
    monkeypatch.setattr(module, "fewest_patients", lambda test: 10)
    monkeypatch.setattr(module, "ledger_of", lambda session, splits: {"spent": {"epsilon": 7.5}})
    before = arms(folder)
    found = release(session(tiny, folder, []))
    assert arms(folder) == before
    metadata = json.loads((found / "metadata.json").read_text())
    assert "outside epsilon" in metadata["views_accuracy"]["withheld"]
    assert all(view["accuracy"] is None for view in metadata["views"])


def test_the_loss_of_a_view_is_that_of_students_on_its_pixels(tiny, folder, monkeypatch):
    monkeypatch.setattr(module, "fewest_patients", lambda test: 10)
    before = arms(folder)
    found, metadata = released(tiny, folder)
    new = set(arms(folder)) - set(before)
    assert sorted(name.rsplit("-", 1)[0] for name in new) == ["view_dicom", "view_png"]
    views = {view["name"]: view["accuracy"] for view in metadata["views"]}

    # the master's are the evaluation's own answers, not trained again
    one = session(tiny, folder, [])
    splits = load(one)
    arm = evaluated(one, splits)[1]["arms"]["distilled"]
    assert {name: before[name] for name in before} == {name: arms(folder)[name] for name in before}
    assert views["master"]["mean"] == pytest.approx(arm["mean"]["balanced_accuracy"])
    assert views["master"]["sd"] == pytest.approx(arm["sd"]["balanced_accuracy"])

    # by hand: the pictures in 256 steps, the evaluation's seeds and recipe, scikit-learn's metric
    final = distilled(one, splits)[1]
    pixels = np.floor(np.clip(final.images.numpy().astype(float) * 0.25 + 0.5, 0, 1) * 255 + 0.5) / 255
    images = torch.from_numpy((pixels - 0.5) / 0.25).float()
    reached = {}
    for name, seen in (("master", final.images), ("png", images)):
        answers = predictions(
            seen,
            final.labels,
            final.lr,
            architecture_of(one, splits),
            recipe_of(one),
            splits.val,
            splits.test,
            range(3),
            0,
            torch.device("cpu"),
        )
        reached[name] = [balanced_accuracy_score(splits.test.labels, each.argmax(1)) for each in answers.test]
    gaps = np.subtract(reached["png"], reached["master"])
    assert views["png"]["mean"] == pytest.approx(np.mean(reached["png"]))
    assert views["png"]["sd"] == pytest.approx(np.std(reached["png"], ddof=1))
    assert views["png"]["difference"] == pytest.approx(gaps.mean(), abs=1e-9)
    assert views["png"]["difference_sd"] == pytest.approx(np.std(gaps, ddof=1), abs=1e-9)
    assert gaps.std() > 0
    half = 4.302653 * np.std(gaps, ddof=1) / np.sqrt(3)  # Student's with two degrees of freedom
    assert views["png"]["interval"] == pytest.approx([gaps.mean() - half, gaps.mean() + half], abs=1e-6)
    assert views["npz"] == views["png"]
    assert abs(views["dicom"]["difference"]) < 0.05  # a 65,535th of the range moves next to no film
    assert f"| {views['master']['mean']:.3f} ± {views['master']['sd']:.3f} | – |" in (found / "README.md").read_text()


def test_the_same_release_again_is_the_same(tiny, folder, monkeypatch):
    monkeypatch.setattr(module, "fewest_patients", lambda test: 10)
    found = release(session(tiny, folder, []))
    sums = (found / "SHA256SUMS").read_bytes()
    (folder / "elsewhere").mkdir()
    found.rename(folder / "elsewhere" / "release")
    before = arms(folder)
    assert release(session(tiny, folder, [])) == found and (found / "SHA256SUMS").read_bytes() == sums
    assert arms(folder) == before
