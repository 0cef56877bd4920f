"""What pipelines/score_with_ddranking.py hands to the client and what it keeps of it, with a stub for `ddranking`.

The real client needs an environment of its own and minutes; docs/ddranking.md has the command that ran it.
"""

import json
import math
import pickle
import runpy
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.datasets import CIFAR10

from medistill.distill.distilled import Distilled
from medistill.files import write_json
from medistill.nets import Architecture
from medistill.release.bundle import write_sums

SCRIPT = Path(__file__).resolve().parents[1] / "pipelines" / "score_with_ddranking.py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
STUB = """
import json, os
from safetensors.torch import save_file
from torchvision import datasets, transforms


def save_results(results, path):
    if len({len(values) for values in results.values()}) > 1:
        raise ValueError("All arrays must be of the same length")


class LabelRobustScoreHard:
    def __init__(self, **settings):
        steps = [transforms.ToTensor(), transforms.Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))]
        folder, steps = settings["real_data_path"], transforms.Compose(steps)
        self.dst_train = datasets.CIFAR10(folder, train=True, download=True, transform=steps)
        self.settings = settings

    def _compute_hard_label_metrics_helper(self, image_tensor, mode, lr):
        self.answers = getattr(self, "answers", [30.0, 50.0, 22.0, 34.0, 54.0, 20.0])
        return self.answers.pop(0), 0.01 if mode == "syn" else lr

    def compute_metrics(self, image_tensor, hard_labels):
        given = {"images": image_tensor, "labels": hard_labels}
        save_file(given, os.environ["STUB"] + ".safetensors")
        with open(os.environ["STUB"] + ".json", "w") as file:
            json.dump(self.settings, file)
        for _ in range(2):
            self._compute_hard_label_metrics_helper(image_tensor=image_tensor, mode="syn", lr=None)
            self._compute_hard_label_metrics_helper(image_tensor=None, mode="real", lr=None)
            self._compute_hard_label_metrics_helper(image_tensor=image_tensor + 1, mode="syn", lr=None)
        save_results({"hlr": [20.0, 20.0], "lrs": [7.0] * 4}, self.settings["save_path"])
        return {"label_robust_score_mean": 7.0}
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, first on the path, that holds a package named ddranking; torchvision's list of MD5 comes back after."""
    metrics = tmp_path / "stub" / "ddranking" / "metrics"
    metrics.mkdir(parents=True)
    (metrics.parent / "__init__.py").touch()
    (metrics / "__init__.py").write_text("from .hard_label import LabelRobustScoreHard\n")
    (metrics / "hard_label.py").write_text(STUB)
    described = tmp_path / "stub" / "ddranking-9.8.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: ddranking\nVersion: 9.8\n")
    for name in ("ddranking", "ddranking.metrics", "ddranking.metrics.hard_label"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("train_list", "test_list"):
        monkeypatch.setattr(CIFAR10, name, deepcopy(getattr(CIFAR10, name)))
    monkeypatch.syspath_prepend(tmp_path / "stub")
    monkeypatch.setenv("STUB", str(tmp_path / "stub" / "given"))
    return tmp_path / "stub"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """Two images a batch in the layout of CIFAR-10, which torchvision's MD5 would refuse."""
    folder = tmp_path / "real" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        content = {"data": np.full((2, 3072), number, np.uint8), "labels": [0, number]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    # the official batches.meta, byte for byte: torchvision goes on checking its MD5
    coded = [b"U" + bytes([len(name)]) + name.encode() + b"q" + bytes([5 + i]) for i, name in enumerate(CLASSES)]
    head = b"\x80\x02}q\x01(U\x13num_cases_per_batchq\x02M\x10'U\x0blabel_namesq\x03]q\x04("
    (folder / "batches.meta").write_bytes(head + b"".join(coded) + b"eU\x07num_visq\x0fM\x00\x0cu.")
    return folder.parent


def release(folder: Path, labels: list[int], **other: Any) -> Path:
    draw = torch.Generator().manual_seed(0)
    values = {"lr": 0.01, "classes": CLASSES, "mean": MEAN, "std": STD, "provenance": {"method": "MTT"}, **other}
    made = Distilled(
        images=3 * torch.randn(len(labels), 3, 32, 32, generator=draw),
        labels=0.9 * torch.eye(10)[labels] + 0.01,
        architecture=Architecture("convnet", 3, 10, 32, 8, 3),
        **values,
    )
    folder.mkdir()
    made.save(folder / "distilled.safetensors")
    write_json(folder / "evaluation.json", {"scores": {"lrs": 0.25}})
    write_sums(folder)
    return folder


def run(release: Path, real: Path, client: Path) -> None:
    words = [SCRIPT, release, real, "--out", client / "out.json", "--epochs", "30", "--runs", "2", "--batch", "7"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [*map(str, words)])
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_pictures_and_classes_of_the_release_reach_the_client(tmp_path: Path, real: Path, client: Path) -> None:
    order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 2
    folder = release(tmp_path / "set", order)
    run(folder, real, client)
    given, images = load_file(client / "given.safetensors"), load_file(folder / "distilled.safetensors")["images"]
    pictures = np.stack([images[:, c].numpy() * STD[c] + MEAN[c] for c in range(3)], 1)
    expected = np.stack([(pictures[:, 0] - 0.1) / 0.5, (pictures[:, 1] - 0.2) / 0.25, (pictures[:, 2] - 0.3) / 2], 1)
    assert pictures.min() < 0 and pictures.max() > 1, "values outside [0, 1] must be among those handed over"
    np.testing.assert_allclose(given["images"], expected, rtol=1e-5, atol=1e-5)
    assert given["labels"].tolist() == order
    settings = json.loads((client / "given.json").read_text())
    wanted = {"ipc": 2, "num_epochs": 30, "step_size": 15, "num_eval": 2, "syn_batch_size": 7, "real_batch_size": 64}
    assert settings.items() >= {**wanted, "dataset": "CIFAR10", "model_name": "ConvNet-3", "device": "cpu"}.items()


def test_the_table_holds_what_the_client_says_and_our_formula_on_it(tmp_path: Path, real: Path, client: Path) -> None:
    run(release(tmp_path / "set", list(range(10))), real, client)
    table = json.loads((client / "out.json").read_text())
    assert table["client"] == "ddranking 9.8" and table["our own"] == {"lrs": 0.25}
    assert table["returned by the client"] == {"label_robust_score_mean": 7.0}
    assert table["lists of the client"] == {
        "hlr": [20.0, 20.0],
        "lrs": [7.0] * 4,
        "error of writing them": "All arrays must be of the same length",
    }
    seen = {name: [one["accuracy"] for one in runs] for name, runs in table["accuracies in percent"].items()}
    assert seen == {"synthetic": [30, 34], "full": [50, 54], "random": [22, 20]}
    # synthetic .32, full .52, random .21: HLR .20, IOR .11, alpha .5 (.11 - .20) = -.045
    assert table["by hand, fractions"]["hlr"] == pytest.approx(0.20)
    assert table["by hand, fractions"]["ior"] == pytest.approx(0.11)
    span = math.e - 1 / math.e
    assert table["by hand, fractions"]["lrs"] == pytest.approx((math.exp(-0.045) - 1 / math.e) / span)
    assert table["by hand, percent in the exponent"]["lrs"] == pytest.approx((math.exp(-4.5) - 1 / math.e) / span)
    assert table["real"]["train"] == 10 and len(table["real"]["not the official files"]) == 6


@pytest.mark.parametrize(
    ("labels", "other", "said"),
    [
        ([*range(10), 0], {}, "unequal"),
        (list(range(10)), {"sequence": ((5, 0.1), (10, 0.1))}, "order"),
        (list(range(10)), {"classes": CLASSES[::-1]}, "classes"),
    ],
)
def test_a_set_that_the_client_cannot_score_is_refused(
    tmp_path: Path, real: Path, client: Path, labels: list[int], other: dict[str, Any], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        run(release(tmp_path / "set", labels, **other), real, client)
    assert not (client / "given.json").exists()


def test_a_changed_release_is_refused(tmp_path: Path, real: Path, client: Path) -> None:
    folder = release(tmp_path / "set", list(range(10)))
    (folder / "evaluation.json").write_text('{"scores": {"lrs": 1}}')
    with pytest.raises(SystemExit, match=r"^evaluation\.json"):
        run(folder, real, client)
