"""The figure and the printed table of pipelines/multisite.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medistill.report.figure import COLOURS, new_figure, save_figure, tidy

SHOWN = {"balanced_accuracy": "balanced accuracy, 4 classes", "auroc_positive": "AUROC, COVID"}
Rows = Mapping[str, Sequence[Mapping]]


def told(rows: Rows) -> str:
    """A line an arm: balanced accuracy, AUROC of COVID and the recall of each class, means over sets."""
    lines = []
    for arm, runs in rows.items():
        cells = [f"{name} {_text([run['mean'][name] for run in runs])}" for name in SHOWN]
        recall = ", ".join(
            f"{label} {np.mean([run['recall'][label] for run in runs]):.2f}" for label in runs[0]["recall"]
        )
        lines.append(f"{arm:34} {'  '.join(cells)}  ({recall})")
    return "\n".join(lines)


def _text(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def multisite_figure(rows: Rows, path: Path) -> None:
    """Draw both metrics by arm: a dot for each set, the mean as a bar; real films are filled."""
    figure = new_figure(12, 6)
    panels = figure.subplots(1, len(SHOWN), sharey=True)
    arms = list(rows)[::-1]
    for panel, (name, label) in zip(panels, SHOWN.items(), strict=True):
        for height, arm in enumerate(arms):
            values = [run["mean"][name] for run in rows[arm]]
            colour = COLOURS[0 if arm.endswith("real") else 1 if "merged" in arm else 2 if "all films" in arm else 6]
            panel.plot([np.mean(values)], [height], "|", markersize=22, color=colour)
            panel.plot(
                values, [height] * len(values), "o", color=colour, fillstyle="full" if arm.endswith("real") else "none"
            )
        panel.set_xlabel(f"{label}, on test films of all sites")
        tidy(panel)
    panels[0].set_yticks(range(len(arms)), arms)
    save_figure(figure, path)
