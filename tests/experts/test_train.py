"""Experts against a hand-written loop, and their files."""

import copy

import pytest
import torch
import torch.nn.functional as F

from medistill import augment, seeds
from medistill.config import Experts
from medistill.errors import UserError
from medistill.experts.train import train_experts
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.nets import Architecture, flatten

ARCHITECTURE = Architecture("convnet", 1, 2, 8, 4, 2)
X = torch.randn(11, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(11) % 2


def train_expert(images, labels, architecture, settings, seed, index):
    ((number, rows),) = train_experts(images, labels, architecture, settings, seed, [index])
    assert number == index
    return rows


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


def by_the_book(x, y, settings, seed, index):
    """Trajectory and losses of an expert by a plain loop with torch's own optimiser."""
    g = seeds.generator(seed, "expert", index)
    module = ARCHITECTURE.build(g).to(x.dtype)
    optimizer = torch.optim.SGD(module.parameters(), lr=settings.lr, momentum=settings.momentum)
    rows, losses = [flatten(module)], []
    for _ in range(settings.epochs):
        total = 0.0
        for batch in torch.randperm(len(x), generator=g).split(settings.batch):
            loss = F.cross_entropy(
                module(augment.apply(x[batch], augment.draw(settings.augment, len(batch), g))), y[batch]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        rows.append(flatten(module))
        losses.append(total / len(x))
    return torch.stack(rows), losses


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_several_experts_are_each_the_one_of_a_plain_loop(threads, dtype, within):
    """One after another and side by side, 21 steps; whoever is trained beside it."""
    torch.set_num_threads(threads)
    settings = Experts(epochs=7, lr=0.05, momentum=0.5, batch=4, augment=["color", "crop", "rotate"])
    told = {}
    trained = dict(
        train_experts(
            X.to(dtype), Y, ARCHITECTURE, settings, 7, [4, 0, 2], lambda i, epoch, loss: told.update({(i, epoch): loss})
        )
    )
    assert sorted(trained) == [0, 2, 4]
    for index, rows in trained.items():
        expected, losses = by_the_book(X.to(dtype), Y, settings, 7, index)
        assert rows.dtype == dtype and (rows - expected).norm() < within * expected.norm()
        assert [told[index, epoch] for epoch in range(1, 8)] == pytest.approx(losses, rel=within)


def test_side_by_side_repeats_to_the_byte():
    torch.set_num_threads(2)
    settings = Experts(epochs=2, batch=4)
    first, second = (dict(train_experts(X, Y, ARCHITECTURE, settings, 0, range(3))) for _ in range(2))
    assert all(torch.equal(first[index], second[index]) for index in range(3))
    assert dict(train_experts(X, Y, ARCHITECTURE, settings, 0, [])) == {}


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


@pytest.mark.parametrize("threads", [1, 2])
def test_an_expert_trained_alone_is_the_same_bytes_as_one_among_others(threads):
    torch.set_num_threads(threads)
    settings = Experts(count=3, epochs=2, batch=4)
    together = dict(train_experts(X, Y, ARCHITECTURE, settings, 0, [0, 1, 2]))
    for index in range(3):
        assert torch.equal(together[index], train_expert(X, Y, ARCHITECTURE, settings, 0, index))
