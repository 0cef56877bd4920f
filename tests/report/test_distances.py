"""The picture of distances: shares that sum to 1, marks where they belong, the same bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from medistill.report.distances import BINS, distances_figure

NEARNESS = {"own": torch.linspace(0, 9, 40), "others": torch.linspace(1, 4, 10)}


def test_shares_and_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[str, tuple[Any, Any]] = {}
    original = Axes.stairs

    def stairs(self: Axes, values: Any, edges: Any, **rest: Any) -> Any:
        steps[rest["label"]] = values, edges
        return original(self, values, edges, **rest)

    monkeypatch.setattr(Axes, "stairs", stairs)
    distances_figure(NEARNESS, torch.tensor([12.0]), tmp_path / "a.png")
    assert list(steps) == ["own (40)", "others (10)"]
    for values, edges in steps.values():
        assert values.sum() == pytest.approx(1) and len(values) == BINS
        assert (edges[0], edges[-1]) == (0, 12)
    values, edges = steps["others (10)"]
    np.testing.assert_allclose(values, np.histogram(np.linspace(1, 4, 10), edges)[0] / 10)


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        distances_figure(NEARNESS, torch.tensor([3.0, 5.0]), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
