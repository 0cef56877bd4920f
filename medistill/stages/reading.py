"""Films read for a network that is trained already: in worker processes, prepared as its release says."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medistill.errors import UserError
from medistill.release.reading import Reading
from medistill.stages.progress import Progress

if TYPE_CHECKING:
    from medistill.data.decode import Decoded


def read(paths: Sequence[Path], reading: Reading, workers: int, bar: Progress) -> "Decoded":
    """These files as images (N, 1, S, S) in [0, 1], or a sentence for each that cannot be read; the bar moves on."""
    from medistill.data.decode import decode

    before = bar.n
    return decode(
        paths,
        reading.size,
        modalities=reading.modalities,
        views=reading.views,
        workers=min(workers, max(1, len(paths) // 8)),
        progress=lambda done, total: bar.update(before + done - bar.n),
    )


def cores(workers: int) -> int:
    """So many workers; 0: one a core."""
    return workers or os.cpu_count() or 1


def device_named(wanted: str) -> torch.device:
    """The device of an option --device: `auto` takes a GPU when there is one."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but torch finds no GPU here; give cpu or auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def require_gray(channels: int) -> None:
    """Raise a UserError where a network sees colour pictures: films are gray."""
    if channels != 1:
        raise UserError(
            f"the release is of pictures of {channels} channels, and films are gray; this verb reads films alone"
        )
