"""docs/release.md: each example opens what it says."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medistill.release.bundle import write_release

EXAMPLES = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "release.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.fixture
def opened(tmp_path: Path, toy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The names that each example leaves behind, of a release whose fourth image is of the class CLASS."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("mlcroissant")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    toy["distilled"] = replace(toy["distilled"], classes=("CLASS", "lung opacity", "normal"))
    toy["evaluation"]["classes"] = list(toy["distilled"].classes)
    folder = write_release(tmp_path / "toy", **toy)
    found = []
    for code in EXAMPLES:
        names: dict[str, Any] = {}
        exec(code.replace("FOLDER", str(folder)), names)
        found.append(names)
    return found


def test_every_example_opens_the_set(opened: list[dict[str, Any]], toy: dict[str, Any]) -> None:
    master, torchvision, hugging_face, npz, slide, rows = opened
    pictures = toy["distilled"].pictures()
    assert torch.equal(master["images"], toy["distilled"].images) and master["lr"] == 0.02
    assert torchvision["pictures"].classes == ["CLASS", "lung opacity", "normal"] and len(torchvision["pictures"]) == 6
    assert len(hugging_face["rows"]) == 6 and set(hugging_face["rows"]["learning_rate"]) == {0.02}
    assert npz["images"].shape == (6, 16, 16) and npz["labels"].ravel().tolist() == [0, 1, 2, 0, 1, 2]
    assert np.abs(slide["pixels"] - pictures[3, 0].numpy()).max() < 1e-4
    assert rows["first"]["images/class"] == b"CLASS" and rows["first"]["images/index"] == 0
