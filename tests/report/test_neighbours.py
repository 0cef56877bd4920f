"""The picture of nearest neighbours: pixels, bytes and no global state."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medistill.report import neighbours
from medistill.report.neighbours import neighbours_figure


def picture(path: Path, synthetic: torch.Tensor, reference: torch.Tensor, indices: list[int]) -> np.ndarray:
    values = {"ZNCC": torch.full((len(indices),), 0.5), "SSIM": torch.full((len(indices),), 0.25)}
    neighbours_figure(synthetic, reference, torch.tensor(indices), values, path)
    return np.asarray(Image.open(path).convert("RGB"))


def colours(pixels: np.ndarray) -> set[tuple[int, ...]]:
    """The colours that fill at least a thousand pixels."""
    found, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(int(v) for v in colour) for colour, count in zip(found, counts, strict=True) if count >= 1000}


def test_the_named_film_is_shown_and_no_other(tmp_path: Path) -> None:
    reference = torch.stack([torch.full((3, 16, 16), 0.2), torch.full((3, 16, 16), 0.6)])
    reference[1, 0] = 1.0
    synthetic = torch.zeros(1, 3, 16, 16)
    synthetic[:, :, 8:] = 9.0
    shown = colours(picture(tmp_path / "a.png", synthetic, reference, [1]))
    assert shown == {(255, 255, 255), (0, 0, 0), (255, 153, 153)}


def test_every_pair_is_drawn_with_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = neighbours.Figure.text

    def text(self: neighbours.Figure, x: float, y: float, s: str, **rest: object) -> object:
        written.append(s)
        return original(self, x, y, s, **rest)

    monkeypatch.setattr(neighbours.Figure, "text", text)
    picture(tmp_path / "a.png", torch.rand(6, 1, 16, 16), torch.rand(9, 1, 16, 16), [8, 1, 2, 3, 4, 5])
    assert written.count("ZNCC 0.500   SSIM 0.250") == 6


def test_the_same_input_gives_the_same_bytes_without_dates(tmp_path: Path) -> None:
    synthetic, reference = torch.rand(5, 1, 16, 16) * 4 - 2, torch.rand(7, 1, 16, 16)
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, synthetic, reference, [6, 0, 1, 2, 3])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert set(image.info) <= {"dpi"}
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["a.png", "b.png"]


def test_pyplot_is_never_imported() -> None:
    code = "import sys, medistill.report.neighbours; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
