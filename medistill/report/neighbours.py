"""Each synthetic image beside the real film it is nearest to: the audit's picture for human eyes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from medistill.files import atomic

PAIRS_A_ROW = 4
INCHES = 1.5
CAPTION_INCHES = 0.55
TITLE_INCHES = 0.7
DPI = 120


def neighbours_figure(
    synthetic: Tensor, reference: Tensor, indices: Tensor, values: Mapping[str, Tensor], path: Path
) -> None:
    """Write a PNG of pairs, synthetic left and its nearest real film right; the same input, the same bytes.

    It shows patients' films, so it stays where they are. Synthetic images leave [0, 1] and are stretched
    from their darkest to their brightest percentile; films are shown as they are.

    Args:
        synthetic: (M, C, H, W), C of 1 or 3.
        reference: (N, C, H, W) in [0, 1].
        indices: (M,) the film to show beside each synthetic image.
        values: what to write under each pair: a statistic's name and its (M,) values.
        path: the PNG file.
    """
    columns = min(PAIRS_A_ROW, len(synthetic))
    rows = -(-len(synthetic) // columns)
    height = rows * (INCHES + CAPTION_INCHES) + TITLE_INCHES
    figure = Figure(figsize=(max(columns * 2 * INCHES * 1.15, 5.5), height), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.suptitle("left: synthetic, stretched to its own range; right: the nearest real film", fontsize=9)
    grid = figure.add_gridspec(
        rows,
        columns,
        top=1 - TITLE_INCHES * 0.6 / height,
        bottom=CAPTION_INCHES / height,
        left=0.02,
        right=0.98,
        wspace=0.12,
        hspace=CAPTION_INCHES / INCHES,
    )
    for number, index in enumerate(indices.tolist()):
        cell = grid[number // columns, number % columns]
        pair = cell.subgridspec(1, 2, wspace=0.03)
        _show(figure.add_subplot(pair[0]), _stretch(synthetic[number]))
        _show(figure.add_subplot(pair[1]), _pixels(reference[index]).clip(0, 1))
        words = "   ".join(f"{name} {float(value[number]):.3f}" for name, value in values.items())
        box = cell.get_position(figure)
        figure.text((box.x0 + box.x1) / 2, box.y0 - 0.06 / height, words, ha="center", va="top", fontsize=8)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _pixels(image: Tensor) -> NDArray[np.float32]:
    """(C, H, W) as (H, W, C)."""
    return image.detach().cpu().float().permute(1, 2, 0).numpy()


def _stretch(image: Tensor) -> NDArray[np.float32]:
    """Pixels with the first percentile at 0 and the last at 1, clipped there; a flat image becomes 0."""
    pixels = _pixels(image)
    low, high = np.percentile(pixels, (1, 99))
    return ((pixels - low) / max(high - low, 1e-6)).clip(0, 1).astype(np.float32)


def _show(axes: Axes, pixels: NDArray[np.float32]) -> None:
    """Draw pixels (H, W, C) in [0, 1], without a frame."""
    axes.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
