"""Accuracy against leakage: what a start from real films gains, and what it gives away."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medistill.report.figure import COLOURS, STYLES, new_figure, save_figure, tidy

PANELS = {
    "2": "share of start films' patients named first (check 2)",
    "1": "share of images nearer to a training film than any stranger (check 1)",
}


def leakage_figure(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw balanced accuracy over leakage, a panel a check, a line for each number of iterations.

    Args:
        rows: runs by arm; an arm is called start-step-iterations, and a run has "mean" (metrics) and "leak"
            (share by check number). Points are means over runs, whiskers their range.
        path: the PNG file.
    """
    figure = new_figure(11, 5)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (number, label) in zip(panels, PANELS.items(), strict=True):
        lines: dict[str, list[str]] = {}
        for arm in rows:
            start, _, iterations = arm.split("-")
            name = f"real films, {iterations} iterations" if start == "real" else f"{start}, {iterations} iterations"
            lines.setdefault(name, []).append(arm)
        for i, (name, arms) in enumerate(lines.items()):
            leaks = [[run["leak"][number] for run in rows[arm]] for arm in arms]
            worths = [[run["mean"]["balanced_accuracy"] for run in rows[arm]] for arm in arms]
            x, y = np.array([np.mean(leak) for leak in leaks]), np.array([np.mean(worth) for worth in worths])
            spread = np.abs(np.array([[min(worth), max(worth)] for worth in worths]).T - y)
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
            panel.errorbar(x, y, yerr=spread, marker="o", capsize=3, label=name, **style)
            for arm, left, up in zip(arms, x, y, strict=True):
                panel.annotate(f"step {arm.split('-')[1]}", (left, up), (4, 5), textcoords="offset points", fontsize=8)
        panel.set_xlabel(label)
        tidy(panel)
        panel.set_xlim(-0.05, 1.15)
    panels[0].set_ylabel("balanced accuracy on test films")
    panels[0].legend(fontsize=8)
    save_figure(figure, path)
