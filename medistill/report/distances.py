"""How near real films lie to the synthetic set, those it was made from beside those it was not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from medistill.report.figure import COLOURS, STYLES, new_figure, save_figure, tidy

BINS = 30


def distances_figure(nearness: Mapping[str, Tensor], synthetic: Tensor, path: Path) -> None:
    """Write a histogram of each group of films over how much they look like their nearest synthetic image.

    Args:
        nearness: of each group by name, (n,) in robust standard deviations; drawn as shares, as groups differ in size.
        synthetic: (M,) the likeness of each synthetic image's nearest film, drawn as a mark below.
        path: the PNG file.
    """
    figure = new_figure(6.4, 4)
    panel = figure.add_subplot()
    values = {name: value.double().numpy(force=True) for name, value in nearness.items()}
    every = np.concatenate([*values.values(), synthetic.double().numpy(force=True)])
    edges = np.histogram_bin_edges(every, BINS)
    for i, (name, value) in enumerate(values.items()):
        share = np.histogram(value, edges)[0] / max(len(value), 1)
        label = f"{name} ({len(value)})"
        panel.stairs(share, edges, color=COLOURS[i], linestyle=STYLES[i], linewidth=1.5, label=label)
    panel.plot(
        synthetic.numpy(force=True),
        np.zeros(len(synthetic)),
        "|",
        color="black",
        markersize=12,
        clip_on=False,
        label=f"nearest film of each synthetic image ({len(synthetic)})",
    )
    panel.set_xlabel("likeness to the nearest synthetic image (robust standard deviations)")
    panel.set_ylabel("share of films")
    panel.legend(loc="upper right", fontsize=8)
    tidy(panel)
    save_figure(figure, path)
