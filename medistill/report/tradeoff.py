"""What a guarantee allows: the highest true positive rate of any membership test, at each false positive rate."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from medistill.report.figure import COLOURS, new_figure, save_figure, tidy


def tradeoff_figure(fpr: ArrayLike, tpr: ArrayLike, label: str, path: Path) -> None:
    """Draw the bound over both logarithms, with chance below it.

    Args:
        fpr: (n,) false positive rates, ascending, above 0.
        tpr: (n,) the highest true positive rate at each.
        label: of the bound, such as "epsilon 3, delta 1e-05".
        path: the PNG file.
    """
    x, y = np.asarray(fpr, dtype=float), np.asarray(tpr, dtype=float)
    figure = new_figure(6, 5.5)
    panel = figure.subplots()
    panel.fill_between(x, y, 1, color="#EEEEEE", linewidth=0)
    panel.plot(x, y, color=COLOURS[0], linewidth=2, label=f"highest possible, {label}")
    panel.plot(x, x, color="#999999", linewidth=1, linestyle="dotted", label="chance")
    panel.set(xscale="log", yscale="log", xlim=(x[0], 1), ylim=(x[0], 1))
    panel.set_xlabel("false positive rate: outsiders taken for members of the training set")
    panel.set_ylabel("true positive rate: members recognised")
    panel.set_title("What the guarantee allows a membership test")
    panel.legend(loc="lower right", fontsize=9)
    tidy(panel)
    save_figure(figure, path)
