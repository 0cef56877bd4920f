"""Pictures of clinical numbers: whether a score is a probability, and what it is worth to a clinic."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from medistill.report.figure import COLOURS, new_figure, save_figure, tidy

# A curve that a single false alarm throws far below 0 would flatten all others.
LOWEST_BENEFIT = -0.25

ABOVE: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.3, "fontsize": 9}
"""Where a legend covers nothing of its axes."""


def calibration_figure(calibration: Mapping[str, Any], positive: str, path: Path) -> None:
    """Draw the reliability diagram with the films of each bin under it.

    Args:
        calibration: as in the dict of `medistill.evaluate.clinical.clinical`.
        positive: name of the class that the score speaks of.
        path: the PNG file.
    """
    bins = calibration["bins"]
    figure = new_figure(6, 7)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="dotted", label="perfect")
    score, share = (np.array([part[name] for part in bins]) for name in ("mean_score", "share"))
    ends = np.array([part["interval"] for part in bins]).reshape(-1, 2)
    # Wilson's ends may miss a share of 0 or 1 by rounding.
    reach = np.stack([share - ends[:, 0], ends[:, 1] - share]).clip(0)
    upper.errorbar(score, share, reach, color=COLOURS[0], marker="o", capsize=3, label="films, 95 % interval")
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    upper.set_ylabel(f"share of {positive} among the films")
    figure.suptitle(f"Calibration: {positive} against the rest", fontsize=12)
    # words and legends stand above the axes: inside them, somewhere an interval would be under them
    upper.set_title(_numbers(calibration), loc="left", fontsize=9)
    upper.legend(**ABOVE)
    tidy(upper)
    _draw_counts(lower, bins, positive)
    lower.set_xlabel(f"score for {positive}; bins of fewer than 10 patients are joined")
    figure.align_ylabels()
    save_figure(figure, path)


def decision_curve_figure(curve: Mapping[str, Any], positive: str, path: Path, threshold: float | None = None) -> None:
    """Draw net benefit over threshold probability, with treating everybody and nobody.

    Args:
        curve: "decision_curve" in the dict of `medistill.evaluate.clinical.clinical`.
        positive: name of the class that the score speaks of.
        path: the PNG file.
        threshold: of the operating point, to mark.
    """
    x, prevalence = curve["thresholds"], curve["prevalence"]
    figure = new_figure(7, 5)
    panel = figure.subplots()
    panel.plot(x, curve["model"], color=COLOURS[0], linewidth=2, label="call by score")
    panel.plot(x, curve["treat_all"], color=COLOURS[1], linestyle="dashed", label="call every film")
    panel.axhline(0, color=COLOURS[6], linewidth=1, linestyle="dotted", label="call none")
    if threshold is not None:
        panel.axvline(threshold, color="#777777", linewidth=1, linestyle="dashdot", label=f"threshold {threshold:.2f}")
    lowest = max(min(curve["model"]), LOWEST_BENEFIT)
    panel.set(xlim=(0, 1), ylim=(min(lowest, -0.1 * prevalence) * 1.1, 1.1 * prevalence))
    panel.set_xlabel(f"threshold probability t: one {positive} found is worth (1 - t) / t false alarms")
    panel.set_ylabel("net benefit, true positives a film")
    panel.set_title(f"Decision curve: {positive} against the rest, {100 * prevalence:.0f} % of the films")
    panel.legend(loc="best", fontsize=9)
    tidy(panel)
    save_figure(figure, path)


def _draw_counts(panel: Axes, bins: Sequence[Mapping[str, Any]], positive: str) -> None:
    """The films of each bin, the positive ones on top; says so where there are too few to tell."""
    panel.set_ylabel("films")
    tidy(panel)
    panel.set_axisbelow(True)
    if not bins:
        panel.set_yticks([])
        panel.text(0.5, 0.5, "fewer than 10 patients", transform=panel.transAxes, ha="center", va="center")
        return
    edges, width = [part["low"] for part in bins], [part["high"] - part["low"] for part in bins]
    positives = np.array([part["positives"] for part in bins])
    others = np.array([part["films"] for part in bins]) - positives
    for films, below, colour, hatch, label in (
        (others, 0, COLOURS[5], "", "others"),
        (positives, others, COLOURS[1], "//", positive),
    ):
        panel.bar(edges, films, width, below, align="edge", color=colour, edgecolor="white", hatch=hatch, label=label)
    panel.legend(**ABOVE, ncols=2)


def _numbers(calibration: Mapping[str, Any]) -> str:
    """Intercept, slope, Brier's score and the calibration error, a line each."""
    lines = [f"{name} {_fit(calibration[name])}" for name in ("intercept", "slope")]
    lines.append(f"Brier {calibration['brier']:.3f} ({calibration['brier_of_prevalence']:.3f} of prevalence alone)")
    lines.append(f"ECE {calibration['ece_equal_width']:.3f} (10 bins of equal width)")
    return "\n".join(lines)


def _fit(fit: Mapping[str, Any]) -> str:
    """A coefficient with its interval."""
    if fit["value"] is None:
        return "not determined"
    low, high = fit["interval"]
    return f"{fit['value']:.2f} ({low:.2f} to {high:.2f})"
