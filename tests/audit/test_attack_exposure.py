"""The most exposed tenth: found where it is planted, and not where chance alone makes one."""

import numpy as np
import pytest
import torch
from torch import Tensor

from medistill.audit.attack_exposure import exposure
from medistill.seeds import generator


def halves(pairs: int, patients: int, seed: int = 0) -> Tensor:
    first = torch.rand(pairs, patients, generator=generator(seed, "halves")) < 0.5
    return torch.stack([first, ~first], 1).reshape(2 * pairs, patients)


def test_games_by_hand() -> None:
    inside = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [0, 1], [1, 0], [1, 0], [0, 1]]).bool()
    scores = torch.tensor([[5.0, 1], [1, 5], [2, 2], [1, 3], [9, 9], [1, 9], [0, 1], [1, 0]])
    # patient 0 wins, wins, loses, loses; patient 1 wins, loses, draws, loses
    found = exposure(scores, inside, generator(0, "b"))
    assert found.games == 4 and found.won.tolist() == [0.5, 0.375]
    # by the first two games patient 0 leads by 4 and 1, by the last two patient 1 by 0 and -1 against -8 and -1
    assert found.share == pytest.approx((0.0 + 0.5) / 2)


def test_an_exposed_tenth_is_found_and_chance_makes_none() -> None:
    inside = halves(8, 600)
    noise = torch.randn(16, 600, generator=generator(0, "noise"))
    plain = exposure(noise, inside, generator(0, "b"))
    assert plain.share == pytest.approx(0.5, abs=0.05)
    assert plain.interval[0] <= 0.5 <= plain.interval[1]
    assert plain.won[:60].mean() > 0.75  # picked and counted on the same games, luck looks like exposure
    leak = torch.zeros(600)
    leak[100:160] = 4
    found = exposure(noise + leak * inside, inside, generator(0, "b"))
    assert found.share > 0.95 and found.interval[0] > 0.9
    assert np.all(np.diff(found.won) <= 0) and found.won[:55].min() > 0.8 and found.won.mean() < 0.6
