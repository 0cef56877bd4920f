"""Accuracy against epsilon, and the theory's most over the measured ROC, a column a data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medistill.report.figure import COLOURS, STYLES, new_figure, save_figure, tidy


def draw(studies: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the studies' rows; epsilon is an ordered category, infinity among them."""
    figure = new_figure(4.2 * len(studies), 8)
    panels = figure.subplots(2, len(studies), squeeze=False)
    for (name, study), over, under in zip(studies.items(), *panels, strict=True):
        rows = study["rows"]
        for i, (who, label) in enumerate(
            (("student", "networks trained on the distilled set"), ("expert", "private experts"))
        ):
            value = np.array([row[who]["accuracy"] for row in rows.values()])
            style = {"color": COLOURS[i], "linestyle": STYLES[i], "marker": "o", "capsize": 3}
            over.errorbar(range(len(rows)), value[:, 0], yerr=value[:, 1], label=label, **style)
        over.axhline(
            study["ordinary"]["accuracy"][0], color="#777777", linestyle="dotted", label="all films, usual training"
        )
        over.set_xticks(range(len(rows)), ["∞" if e == "inf" else f"{float(e):g}" for e in rows])
        over.set(title=name, xlabel="ε", ylabel="accuracy on held-out films")
        for i, (epsilon, row) in enumerate(rows.items()):
            if "membership" not in row:
                continue
            roc, colour = row["membership"]["roc"], COLOURS[i]
            under.plot(
                roc["fpr"],
                np.maximum(roc["measured"], 1e-4),
                color=colour,
                label=f"ε = {'∞' if epsilon == 'inf' else f'{float(epsilon):g}'}",
            )
            if epsilon != "inf":
                under.plot(roc["fpr"], roc["theory"], color=colour, linestyle="dotted")
        under.plot([1e-3, 1], [1e-3, 1], color="#999999", linewidth=0.8)
        under.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1.1))
        under.set(xlabel="false positive rate", ylabel="true positive rate; dotted: the most ε allows")
        for panel in (over, under):
            tidy(panel)
    panels[0][0].legend(fontsize=8)
    panels[1][0].legend(fontsize=8)
    save_figure(figure, path)
