"""Experts against a hand-written loop, and their files."""

import copy

import pytest
import torch
import torch.nn.functional as F

from medistill import augment, seeds
from medistill.config import Experts
from medistill.errors import UserError
from medistill.experts.train import train_expert
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.nets import Architecture, flatten

ARCHITECTURE = Architecture("convnet", 1, 2, 8, 4, 2)
X = torch.randn(11, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(11) % 2


def test_trajectory_equals_plain_gradient_descent_by_hand():
    settings = Experts(count=1, epochs=3, lr=0.1, batch=4, augment=["color", "scale"])
    rows = train_expert(X, Y, ARCHITECTURE, settings, seed=7, index=2)
    g = seeds.generator(7, "expert", 2)
    module = ARCHITECTURE.build(g)
    expected = [flatten(module)]
    for _ in range(3):
        for batch in torch.randperm(11, generator=g).split(4):
            drawn = augment.draw(settings.augment, len(batch), g)
            loss = F.cross_entropy(module(augment.apply(X[batch], drawn)), Y[batch])
            for p, d in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True):
                p.data -= 0.1 * d
        expected.append(flatten(module))
    assert torch.allclose(rows, torch.stack(expected), atol=1e-6)
    assert not torch.allclose(rows[0], rows[-1], atol=1e-3)


def test_seed_and_index_decide_and_rows_do_not_alias():
    settings = Experts(count=1, epochs=2, batch=4)
    first = train_expert(X, Y, ARCHITECTURE, settings, 0, 0)
    torch.manual_seed(99)
    assert torch.equal(first, train_expert(X, Y, ARCHITECTURE, settings, 0, 0))
    assert not torch.equal(first, train_expert(X, Y, ARCHITECTURE, settings, 0, 1))
    assert not torch.equal(first[0], first[1])


def test_files_give_single_rows_and_must_agree(tmp_path):
    rows = torch.randn(4, 10)
    save_trajectory(tmp_path / "a.safetensors", rows, ARCHITECTURE)
    save_trajectory(tmp_path / "b.safetensors", rows + 1, ARCHITECTURE)
    both = Trajectories.open([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert (len(both), both.epochs, both.size) == (2, 3, 10)
    start, end = both.rows(1, 0, 2)
    assert torch.equal(start, rows[0] + 1) and torch.equal(end, rows[2] + 1)
    save_trajectory(tmp_path / "c.safetensors", torch.randn(5, 10), ARCHITECTURE)
    with pytest.raises(UserError, match="differ in shape"):
        Trajectories.open([tmp_path / "a.safetensors", tmp_path / "c.safetensors"])


def test_a_diverging_expert_is_one_sentence():
    with pytest.raises(UserError, match=r"lower experts.lr"):
        train_expert(X * 1e20, Y, copy.copy(ARCHITECTURE), Experts(epochs=3, lr=1e30), 0, 0)
