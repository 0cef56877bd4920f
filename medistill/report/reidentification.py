"""How similar a network finds films of one patient and of two, and where the synthetic images lie."""

from pathlib import Path

import numpy as np
from torch import Tensor

from medistill.report.figure import COLOURS, STYLES, new_figure, save_figure, tidy

BINS = 60


def similarities_figure(same: Tensor, different: Tensor, synthetic: Tensor, threshold: float, path: Path) -> None:
    """Write histograms of the similarities of pairs, with the threshold; the share's axis is logarithmic.

    Args:
        same: (k,) of pairs of films of one patient.
        different: (m,) of pairs of films of two patients.
        synthetic: (M,) of each synthetic image with its most similar training film, drawn as a mark below.
        threshold: above which a pair counts as one patient.
        path: the PNG file.
    """
    figure = new_figure(6.4, 4)
    panel = figure.add_subplot()
    groups = {"films of one patient": same, "films of two patients": different}
    values = {name: value.numpy(force=True) for name, value in groups.items()}
    marks = synthetic.numpy(force=True)
    edges = np.linspace(min(*(v.min() for v in values.values()), marks.min()), 1, BINS + 1)
    for i, (name, value) in enumerate(values.items()):
        share = np.histogram(value, edges)[0] / len(value)
        label = f"{name} ({len(value)} pairs)"
        panel.stairs(share, edges, color=COLOURS[i], linestyle=STYLES[i], linewidth=1.5, label=label)
    panel.axvline(threshold, color="black", linewidth=1, linestyle=":", label="0.1 % of pairs of two patients above")
    panel.set_yscale("log")
    panel.plot(
        marks,
        np.zeros(len(marks)),
        "|",
        color="black",
        markersize=12,
        clip_on=False,
        transform=panel.get_xaxis_transform(),
        label=f"most similar film of each synthetic image ({len(marks)})",
    )
    panel.set_xlabel("similarity (cosine)")
    panel.set_ylabel("share of pairs")
    panel.legend(loc="upper left", fontsize=8)
    tidy(panel)
    save_figure(figure, path)
