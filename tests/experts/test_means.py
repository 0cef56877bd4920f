"""Noisy class means: what a patient can change, what the noise is, and that no count is needed."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from medistill.distill import initial
from medistill.experts.means import CLIP, SIDE, noisy_sums, shrink

PUBLIC = torch.full((1, SIDE, SIDE), 0.4)
FILMS = torch.rand(9, 1, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2] * 3)


def test_without_noise_they_are_sums_of_clipped_differences():
    sums = noisy_sums(FILMS, LABELS, 3, PUBLIC, 1.0, torch.zeros)
    for k in range(3):
        small = FILMS[k == LABELS].reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4))
        parts = [d * min(1, 2 / d.norm()) for d in small - 0.4]
        assert torch.allclose(sums[k, 0], sum(parts), atol=1e-5)


@pytest.mark.parametrize("gone", [0, 4])
def test_a_patient_moves_one_class_and_no_further_than_the_clip(gone):
    films = FILMS.clone()
    films[gone] = 50.0  # far beyond the clip
    rest = torch.arange(9) != gone
    more = noisy_sums(films, LABELS, 3, PUBLIC, 1.0, torch.zeros)
    less = noisy_sums(films[rest], LABELS[rest], 3, PUBLIC, 1.0, torch.zeros)
    moved = (more - less).flatten(1).norm(dim=1)
    assert moved[LABELS[gone]].item() == pytest.approx(CLIP, rel=1e-5)
    assert moved.sum() == moved[LABELS[gone]]
    films[gone] = float("nan")
    assert torch.allclose(noisy_sums(films, LABELS, 3, PUBLIC, 1.0, torch.zeros), less, atol=1e-6)


def test_the_noise_is_the_stated_one_and_never_the_same():
    silent = noisy_sums(FILMS, LABELS, 3, PUBLIC, 1.7, torch.zeros)
    first, second = (noisy_sums(FILMS, LABELS, 3, PUBLIC, 1.7) - silent for _ in range(2))
    assert stats.kstest((first / (1.7 * CLIP)).flatten().numpy(), "norm").pvalue > 1e-6
    assert (first != second).all()


def test_a_start_is_the_same_whatever_the_count():
    """Three times as many alike patients give the same image; its difference from the public one has the norm asked."""
    sums = noisy_sums(FILMS, LABELS, 3, PUBLIC, 0.0)
    start = initial.private_means(sums, PUBLIC, 2.0, 32, ipc=2)
    assert start.shape == (6, 1, 32, 32) and torch.equal(start[0], start[1])
    assert torch.allclose(start, initial.private_means(3 * sums, PUBLIC, 2.0, 32, ipc=2), atol=1e-6)
    direction = sums[1] / sums[1].norm()
    expected = F.interpolate((PUBLIC + 2.0 * direction)[None], (32, 32), mode="bilinear")[0].clamp(0, 1)
    assert torch.allclose(start[2], expected, atol=1e-6)
    assert shrink(start).min() >= 0
