"""W from the known noise of private experts."""

import pytest
import torch

from medistill.config import Distill
from medistill.distill import importance
from medistill.distill.course import Given
from medistill.distill.matching import iadd
from medistill.errors import UserError
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.nets import Architecture, Flat

ARCHITECTURE = Architecture("convnet", 1, 3, 16, 4, 2)
NET = Flat(ARCHITECTURE)
LIVE = ~NET.dead()


def walks(folder, drift, noise):
    """Two experts of six rows, every step a drift of each layer and noise."""
    layers = torch.cat([torch.full((n,), d) for n, d in zip(NET.numel, drift, strict=True)])
    files = []
    for index in range(2):
        g = torch.Generator().manual_seed(index)
        steps = layers * torch.randn(6, NET.size, generator=g).sign() + noise * torch.randn(6, NET.size, generator=g)
        files.append(folder / f"{index}.safetensors")
        save_trajectory(files[-1], steps.cumsum(0), ARCHITECTURE)
    return Trajectories.open(files)


def test_a_layer_weighs_its_signal_over_signal_and_noise(tmp_path):
    """Over a row a drift of d has the power d^2 beside the noise's .01; the guard then scales all alike."""
    drift = {"0.weight": 0.1, "4.weight": 0.2, "9.weight": 0.15}
    trajectories = walks(tmp_path, [drift.get(name, 0.0) for name in NET.shapes], 0.1)
    weight = importance.wiener(trajectories, NET.numel, LIVE, 5, 1, 0.01)
    parts = dict(zip(NET.shapes, weight.split(NET.numel), strict=True))
    assert all((part == part[0]).all() for part in parts.values())
    share = {name: parts[name][0] / parts["4.weight"][0] * 0.8 for name in drift}
    assert [share[name].item() for name in drift] == pytest.approx([0.5, 0.8, 0.69], abs=0.07)
    assert weight[LIVE].square().mean().item() == pytest.approx(1, abs=1e-4)
    assert weight.max() < importance.CAP and weight[~LIVE].sum() == 0


def test_over_several_rows_signal_and_noise_grow_as_they_do(tmp_path):
    """A steady drift over 3 rows has nine times its power, the noise three times."""
    layers = torch.cat([torch.full((n,), 0.1 * (i == 8)) for i, n in enumerate(NET.numel)])
    files = []
    for index in range(2):
        noise = 0.1 * torch.randn(6, NET.size, generator=torch.Generator().manual_seed(index))
        files.append(tmp_path / f"{index}.safetensors")
        save_trajectory(files[-1], (layers + noise).cumsum(0), ARCHITECTURE)
    trajectories = Trajectories.open(files)
    power = torch.cat([(trajectories.rows(e, 0, 3)[1] - trajectories.rows(e, 0, 3)[0])[204:396] for e in range(2)])
    assert power.square().mean().item() == pytest.approx(0.09 + 0.03, rel=0.15)
    weight = importance.wiener(trajectories, NET.numel, LIVE, 3, 3, 0.03).split(NET.numel)
    assert weight[8][0] == max(part[0] for part in weight)


def test_noise_alone_is_refused(tmp_path):
    trajectories = walks(tmp_path, [0.0] * len(NET.numel), 0.1)
    with pytest.raises(UserError, match="too few of the experts"):
        importance.wiener(trajectories, NET.numel, LIVE, 5, 1, 0.03)


def test_a_course_begins_with_the_weights_it_is_given(tmp_path):
    trajectories = walks(tmp_path, [0.1] * len(NET.numel), 0.1)
    weight = torch.rand(NET.size, generator=torch.Generator().manual_seed(5))
    start, labels = torch.zeros(3, 1, 16, 16), torch.eye(3)
    settings = Distill(importance="wiener", max_start_epoch=1)
    found = iadd(Given(start, labels, ARCHITECTURE, 3, trajectories, weight=weight), settings)
    assert torch.equal(found.state()["weight"], weight)
