"""The pictures of clinical numbers: what they say is what the numbers say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from medistill.report import clinical


def part(low: float, high: float, films: int, positives: int) -> dict[str, Any]:
    share = positives / films
    interval = [max(share - 0.1, 0.0), min(share + 0.2, 1.0)]
    middle = (low + high) / 2
    return {
        "low": low,
        "high": high,
        "films": films,
        "positives": positives,
        "mean_score": middle,
        "share": share,
        "interval": interval,
    }


CALIBRATION = {
    "intercept": {"value": -0.25, "interval": [-0.5, 0.125]},
    "slope": {"value": None, "interval": [None, None]},
    "brier": 0.081,
    "brier_of_prevalence": 0.19,
    "ece_equal_width": 0.056,
    "bins": [part(0.0, 0.1, 40, 0), part(0.1, 0.6, 20, 8), part(0.6, 1.0, 10, 10)],
}
CURVE = {"thresholds": [0.1, 0.5, 0.9], "model": [0.2, 0.1, -3.0], "treat_all": [0.16, -0.5, -6.0], "prevalence": 0.25}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures as drawn, so that a test can read what they say."""
    drawn: list[Figure] = []
    save = clinical.save_figure

    def keep(figure: Figure, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(clinical, "save_figure", keep)
    return drawn


def test_reliability_shows_each_bin_with_its_interval_and_films(tmp_path: Path, figures: list[Figure]) -> None:
    clinical.calibration_figure(CALIBRATION, "COVID", tmp_path / "a.png")
    upper, lower = figures[0].axes
    points, _, (bars,) = upper.containers[0]
    np.testing.assert_allclose(points.get_xydata(), [[0.05, 0], [0.35, 0.4], [0.8, 1]])
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[0, 0.2], [0.3, 0.6], [0.9, 1.0]])
    others, positives = lower.containers
    assert [bar.get_height() for bar in others] == [40, 12, 0]
    assert [bar.get_height() for bar in positives] == [0, 8, 10]
    assert [bar.get_y() for bar in positives] == [40, 12, 0]
    assert [bar.get_width() for bar in positives] == pytest.approx([0.1, 0.5, 0.4])
    assert upper.get_title(loc="left").splitlines() == [
        "intercept -0.25 (-0.50 to 0.12)",
        "slope not determined",
        "Brier 0.081 (0.190 of prevalence alone)",
        "ECE 0.056 (10 bins of equal width)",
    ]


def test_no_words_cover_a_bar(tmp_path: Path, figures: list[Figure]) -> None:
    """Intervals in every corner: whatever a score, words and legends stay outside the axes and beside each other."""
    corners = [part(0, 0.1, 40, 38), part(0.1, 0.9, 40, 20), part(0.9, 1, 40, 1)]
    slope = {"value": -12.25, "interval": [-110.5, 100.125]}
    clinical.calibration_figure(CALIBRATION | {"bins": corners, "slope": slope}, "Pneumonia", tmp_path / "a.png")
    upper, lower = figures[0].axes
    renderer = figures[0].canvas.get_renderer()
    boxes = [axes.get_legend().get_window_extent(renderer) for axes in (upper, lower)]
    boxes += [upper._left_title.get_window_extent(renderer), figures[0]._suptitle.get_window_extent(renderer)]
    for box in boxes:
        assert not any(box.overlaps(axes.get_window_extent(renderer)) for axes in (upper, lower))
        assert not any(box.overlaps(other) for other in boxes if other is not box)
        assert figures[0].bbox.contains(*box.min) and figures[0].bbox.contains(*box.max)


def test_without_bins_the_picture_says_why(tmp_path: Path, figures: list[Figure]) -> None:
    clinical.calibration_figure(CALIBRATION | {"bins": []}, "COVID", tmp_path / "a.png")
    assert [text.get_text() for text in figures[0].axes[1].texts] == ["fewer than 10 patients"]


def test_the_decision_curve_shows_model_all_and_none(tmp_path: Path, figures: list[Figure]) -> None:
    clinical.decision_curve_figure(CURVE, "COVID", tmp_path / "a.png", threshold=0.4)
    panel = figures[0].axes[0]
    lines = {line.get_label(): line.get_xydata() for line in panel.lines}
    np.testing.assert_allclose(lines["call by score"], [[0.1, 0.2], [0.5, 0.1], [0.9, -3]])
    np.testing.assert_allclose(lines["call every film"], [[0.1, 0.16], [0.5, -0.5], [0.9, -6]])
    assert lines["call none"][:, 1].tolist() == [0, 0]
    assert lines["threshold 0.40"][:, 0].tolist() == [0.4, 0.4]
    low, high = panel.get_ylim()
    assert -0.3 < low < 0 and 0.25 < high < 0.3
    assert "25 % of the films" in panel.get_title()


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        clinical.calibration_figure(CALIBRATION, "COVID", tmp_path / f"{name}1.png")
        clinical.decision_curve_figure(CURVE, "COVID", tmp_path / f"{name}2.png")
    for number in "12":
        assert (tmp_path / f"a{number}.png").read_bytes() == (tmp_path / f"b{number}.png").read_bytes()
