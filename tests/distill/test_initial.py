"""Start images."""

import pytest
import torch

from medistill import seeds
from medistill.distill import initial
from medistill.errors import UserError


def test_noise_has_the_scale_and_smoothness_asked_for():
    rough = initial.noise((20, 1, 32, 32), 0.3, 0.0, seeds.generator(0, "n"))
    smooth = initial.noise((20, 1, 32, 32), 0.3, 2.0, seeds.generator(0, "n"))
    assert rough.std().item() == pytest.approx(0.3, rel=0.02)
    assert smooth.std().item() == pytest.approx(0.3, rel=1e-4)

    def neighbours(x):
        return torch.corrcoef(torch.stack([x[..., :-1].flatten(), x[..., 1:].flatten()]))[0, 1].item()

    assert abs(neighbours(rough)) < 0.03
    assert neighbours(smooth) == pytest.approx(2.718281828 ** (-1 / (4 * 2.0**2)), abs=0.02)


def test_class_means_are_the_means():
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    means = initial.class_means(images, torch.tensor([0, 1, 0, 1]), 2, 2)
    assert means[:, 0, 0, 0].tolist() == [1, 1, 2, 2]


def test_real_start_takes_one_film_of_a_patient():
    labels = torch.tensor([0] * 6 + [1] * 6)
    groups = torch.tensor([0, 0, 0, 0, 1, 2, 3, 3, 4, 4, 5, 5])
    for seed in range(20):
        chosen = initial.real(labels, groups, ("a", "b"), 3, seeds.generator(seed, "r"))
        assert sorted(labels[chosen].tolist()) == [0, 0, 0, 1, 1, 1]
        assert len(set(groups[chosen].tolist())) == 6
    with pytest.raises(UserError, match=r"distill.ipc is 4, but class a has 3 training patients"):
        initial.real(labels, groups, ("a", "b"), 4, seeds.generator(0, "r"))
