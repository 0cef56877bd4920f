import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from medistill.data.imageset import ImageSet
from medistill.errors import UserError
from medistill.evaluate import metrics
from medistill.evaluate.arm import measured_arm
from medistill.evaluate.predictions import Predictions, predictions
from medistill.evaluate.student import Recipe, fit, predict
from medistill.nets import Architecture
from medistill.seeds import generator

CPU = torch.device("cpu")


def films(count, classes, split, seed):
    labels = torch.arange(count) % classes
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 0.7
    images += 0.3 * labels.view(-1, 1, 1, 1) / classes * torch.linspace(0, 1, 8)
    names = ("covid", "normal", "viral")[:classes]
    return ImageSet(images, labels, torch.arange(count) // 2, names, "toy", split, (0.5,), (0.25,))


def run(classes, positive="covid", progress=lambda steps: None, **changed):
    parts = {name: films(30, classes, name, i) for i, name in enumerate(("train", "val", "test"))} | changed
    train, val, test = parts.values()
    net = Architecture("convnet", 1, classes, 8, 4, 1)
    recipe = Recipe(steps=5)
    found = predictions(train.pixels(), train.labels, 0.05, net, recipe, val, test, (0, 1), 7, CPU, progress)
    arm = measured_arm("toy", 30, 0.05, recipe, found, val, test, positive, 7)
    return arm, (train, val, test, net, recipe)


@pytest.mark.parametrize("classes", [2, 3])
def test_an_arm_is_its_students_measured_one_by_one(classes):
    told = []
    arm, (train, val, test, net, recipe) = run(classes, positive="normal", progress=told.append)
    assert told == [5, 5]
    students = [
        fit(train.pixels(), train.labels, net, 0.05, recipe, generator(7, "student", seed), CPU) for seed in (0, 1)
    ]
    on_val, on_test = ([predict(s, split.pixels(), CPU) for s in students] for split in (val, test))
    for i in range(2):
        threshold = metrics.youden_threshold(on_val[i][:, 1], val.labels == 1)
        assert arm.thresholds[i] == threshold
        assert arm.test_runs[i] == metrics.measure(on_test[i], test.labels, test.classes, "normal", threshold)
        assert arm.val_runs[i] == metrics.measure(on_val[i], val.labels, val.classes, "normal", threshold)
    mean = arm.test_summary["accuracy"][0]
    assert mean == pytest.approx(sum(r["accuracy"] for r in arm.test_runs) / 2)
    assert arm.val_summary == metrics.summary(arm.val_runs) != arm.test_summary
    assert arm.bootstrap == metrics.bootstrap_by_patient(
        on_test, test.labels, test.groups, test.classes, "normal", arm.thresholds, generator(7, "bootstrap")
    )
    low, high = arm.bootstrap.intervals["auroc_macro"]
    assert low < arm.test_summary["auroc_macro"][0] < high
    matrix = torch.tensor(arm.confusion)
    assert matrix.sum(1).tolist() == [2 * count for count in test.counts]
    assert matrix.trace().item() == pytest.approx(60 * mean)
    assert arm.roc[0] == 0 and arm.roc[-1] == 1 and len(arm.roc) == 101


def test_the_test_films_choose_nothing():
    """Thresholds and validation metrics stay when the test films change."""
    arm, _ = run(2)
    other, _ = run(2, test=films(30, 2, "test", seed=99))
    assert other.test_runs != arm.test_runs
    assert (other.thresholds, other.val_runs) == (arm.thresholds, arm.val_runs)


def test_an_arm_repeats_exactly():
    assert run(3)[0] == run(3)[0]


def test_answers_are_kept(tmp_path):
    given = Predictions(torch.rand(2, 3, 4), torch.rand(2, 5, 4))
    given.save(tmp_path / "answers.safetensors")
    back = Predictions.load(tmp_path / "answers.safetensors")
    assert torch.equal(back.val, given.val) and torch.equal(back.test, given.test)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UserError, match="positive class 'tb' is not among the classes covid, normal"):
        run(2, positive="tb")
    val = films(30, 3, "val", 1)
    kept = val.labels != 2
    lacking = replace(val, images=val.images[kept], labels=val.labels[kept], groups=val.groups[kept])
    with pytest.raises(UserError, match="val split has no film of viral"):
        run(3, val=lacking)


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_network_without_an_answer_names_its_arm(split, value):
    val, test = films(30, 2, "val", 1), films(30, 2, "test", 2)
    answers = {name: torch.full((3, 30, 2), 0.5) for name in ("val", "test")}
    answers[split][1, 7] = value
    message = r"1 of 3 networks of the arm 'herding', trained at learning rate 0.25, answer a film with NaN.*lower eval"
    with pytest.raises(UserError, match=message):
        measured_arm("herding", 3, 0.25, Recipe(steps=5), Predictions(**answers), val, test, "covid", 7)


def test_evaluation_stands_without_monai_mlflow_and_pydicom():
    code = (
        "import sys\n"
        "for name in ('monai', 'mlflow', 'pydicom'): sys.modules[name] = None\n"
        "import medistill.evaluate.arm, medistill.evaluate.baselines, medistill.report.plots\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
