"""Pictures of membership inference: ROC on logarithmic axes, and how exposed single patients are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from medistill.report.figure import COLOURS, STYLES, new_figure, save_figure, tidy

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""False and true positive rates."""

LEAST = 1e-4
"""Where both axes begin."""


def membership_figure(curves: Mapping[str, Curve], path: Path, allowed: Curve | None = None) -> None:
    """Draw ROC curves by name on logarithmic axes; steps, because nothing is known between two scores.

    Args:
        curves: rates in [0, 1], from (0, 0) to (1, 1).
        path: the PNG file.
        allowed: the highest true positive rates that the privacy budget allows.
    """
    figure = new_figure(6.4, 6)
    panel = figure.add_subplot()
    panel.plot([LEAST, 1], [LEAST, 1], color="#999999", linewidth=1, linestyle=":", label="chance")
    for i, (name, (false, true)) in enumerate(curves.items()):
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
        x, y = false.clip(LEAST / 10), true.clip(LEAST / 10)
        panel.plot(x, y, drawstyle="steps-post", linewidth=1.5, label=name, color=colour, linestyle=style)
    if allowed:
        panel.plot(*allowed, color="black", linewidth=2, label="most that epsilon allows")
    panel.axvline(1e-3, color="#BBBBBB", linewidth=0.8)
    panel.set(xscale="log", yscale="log", xlim=(LEAST, 1), ylim=(LEAST, 1.1), aspect="equal")
    panel.set_xlabel("false positive rate (patients not used, called used)")
    panel.set_ylabel("true positive rate (patients used, called used)")
    panel.legend(loc="lower right", fontsize=8)
    tidy(panel)
    save_figure(figure, path)


def exposure_figure(won: NDArray[np.float64], games: int, path: Path) -> None:
    """Draw the share of games an attack wins against each patient, the most exposed first, beside pure chance.

    Args:
        won: (G,) in falling order.
        games: against each patient.
        path: the PNG file.
    """
    figure = new_figure(6.4, 4)
    panel = figure.add_subplot()
    share = (np.arange(len(won)) + 0.5) / len(won)
    chance = binom.isf(share, games, 0.5) / games
    panel.axvspan(0, 0.1, color="#EEEEEE", label="most exposed tenth")
    panel.step(share, won, where="mid", color=COLOURS[0], label="measured")
    panel.step(share, chance, where="mid", color="#777777", linestyle="dashed", label="by chance")
    panel.set(xlim=(0, 1), ylim=(0, 1.02))
    panel.set_xlabel("share of patients, the most exposed first")
    panel.set_ylabel(f"share of {games} guesses that were right")
    panel.legend(loc="upper right", fontsize=8)
    tidy(panel)
    save_figure(figure, path)
