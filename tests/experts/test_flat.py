"""GSAM's steps: against a calculation by hand, and a plain loop on a ConvNet."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from medistill import augment, seeds, sgd
from medistill.cli import configure
from medistill.config import Experts, Private
from medistill.config.experts import Flat
from medistill.errors import UserError
from medistill.experts.flat import FlatKernels, FlatTask, direction
from medistill.experts.train import train_experts
from medistill.kernels import Kernels
from medistill.nets import Architecture, flatten
from medistill.nets import Flat as FlatNet

ARCHITECTURE = Architecture("convnet", 3, 2, 8, 4, 2)
X = torch.randn(11, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(11) % 2
SETTINGS = Experts(
    count=2, epochs=3, lr=0.1, momentum=0.5, batch=4, augment=["color", "scale"], flat=Flat(rho=0.5, alpha=0.3)
)


def test_a_step_on_a_quadratic_by_hand(monkeypatch):
    """L = (a^2 + 4 b^2) / 2 at (3, 1): g = (3, 4), |g| = 5; half a step away g_p = (3.3, 5.6), |g_p|^2 = 42.25."""
    bend = torch.tensor([1.0, 4.0], dtype=torch.float64)

    def quadratic(self, theta, x, y):
        return bend * theta, (bend * theta.square()).sum() / 2

    monkeypatch.setattr(Kernels, "descent", quadratic)
    monkeypatch.setattr(Kernels, "descents", lambda self, thetas, x, y: (bend * thetas, thetas.sum(1)))
    kernels = FlatKernels(0.5, 0.3, FlatNet(ARCHITECTURE), torch.device("cpu"), 1)
    theta = torch.tensor([3.0, 1.0], dtype=torch.float64)
    share = (3 * 3.3 + 4 * 5.6) / 42.25
    expected = [3.3 - 0.3 * (3 - share * 3.3), 5.6 - 0.3 * (4 - share * 5.6)]
    step, loss = kernels.descent(theta, None, None)
    assert step.tolist() == pytest.approx(expected) and loss.item() == 6.5
    # each of several networks goes its own distance
    several, losses = kernels.descents(torch.stack([theta, 10 * theta]), None, None)
    assert several[0].tolist() == pytest.approx(expected) and losses.tolist() == [4, 40]
    assert (several[1] / 10).tolist() != pytest.approx(expected)


def test_the_direction_keeps_the_perturbed_gradient_and_takes_away_what_is_orthogonal():
    found = direction(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), 0.5)
    assert found.tolist() == [0.75, 1.25]
    assert direction(torch.zeros(2), torch.zeros(2), 0.5).tolist() == [0, 0]


def by_the_book(index):
    """FTD's expert by modules and autograd, the decomposition by a projection matrix."""
    g = seeds.generator(7, "expert", index)
    module = ARCHITECTURE.build(g).double()
    parameters = list(module.parameters())
    rows, velocity = [flatten(module)], torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)

    def slope(x, y):
        found = torch.autograd.grad(F.cross_entropy(module(x), y), parameters)
        return torch.cat([part.reshape(-1) for part in found])

    for _ in range(3):
        for batch in torch.randperm(11, generator=g).split(4):
            x = augment.apply(X[batch], augment.draw(SETTINGS.augment, len(batch), g))
            theta = flatten(module)
            plain = slope(x, Y[batch])
            torch.nn.utils.vector_to_parameters(theta + 0.5 * plain / plain.norm(), parameters)
            away = slope(x, Y[batch])
            unit = away / away.norm()
            orthogonal = plain - torch.outer(unit, unit) @ plain
            velocity = 0.5 * velocity + away - 0.3 * orthogonal
            torch.nn.utils.vector_to_parameters(theta - 0.1 * velocity, parameters)
        rows.append(flatten(module))
    return torch.stack(rows)


@pytest.mark.parametrize("threads", [1, 2])
def test_flat_experts_are_those_of_a_plain_loop(threads):
    torch.set_num_threads(threads)
    trained = dict(train_experts(X, Y, ARCHITECTURE, SETTINGS, 7, [1, 0]))
    for index, rows in trained.items():
        expected = by_the_book(index)
        assert (rows - expected).norm() < 1e-10 * expected.norm()
    plain = dict(train_experts(X, Y, ARCHITECTURE, replace(SETTINGS, flat=Flat()), 7, [0]))
    assert (plain[0] - trained[0]).norm() > 1e-2 * plain[0].norm()


def test_stacked_networks_take_the_same_steps():
    """As a GPU works them."""
    net = FlatNet(ARCHITECTURE).to(X.device, X.dtype)
    starts = [flatten(ARCHITECTURE.build(seeds.generator(0, number))).double() for number in range(2)]
    y = F.one_hot(Y, 2).double()

    def task():
        courses = [iter([sgd.Lesson(X, y, 0.1), sgd.Lesson(X + number, y, 0.1, report=True)]) for number in range(2)]
        return FlatTask(net, starts, courses, 11, 0.5, rho=0.5, alpha=0.3)

    alone, together = ({r.number: r.theta for r in way(task())} for way in (sgd.one_by_one, sgd.stacked))
    for number in range(2):
        torch.testing.assert_close(together[number], alone[number], rtol=1e-10, atol=1e-12)


def test_a_distance_of_nothing_is_plain_descent_bit_for_bit():
    off = dict(train_experts(X, Y, ARCHITECTURE, replace(SETTINGS, flat=Flat(alpha=0.9)), 7, [0, 1]))
    plain = dict(train_experts(X, Y, ARCHITECTURE, replace(SETTINGS, flat=Flat()), 7, [0, 1]))
    assert all(torch.equal(off[index], plain[index]) for index in range(2))


def test_experts_can_go_on_from_parameters():
    """Three epochs are one, and two from where it ended, with the draws of each."""
    one, begun = replace(SETTINGS, epochs=1), [flatten(ARCHITECTURE.build(seeds.generator(3))).double()]
    ((_, rows),) = train_experts(X, Y, ARCHITECTURE, one, 7, [0], begun=begun)
    assert torch.equal(rows[0], begun[0])
    g, expected = seeds.generator(7, "expert", 0), begun[0]
    module = ARCHITECTURE.build(seeds.generator(3)).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.5)
    for batch in torch.randperm(11, generator=g).split(4):
        x = augment.apply(X[batch], augment.draw(SETTINGS.augment, len(batch), g))
        optimizer.zero_grad()
        F.cross_entropy(module(x), Y[batch]).backward()
        optimizer.step()
    expected = flatten(module)
    ((_, rows),) = train_experts(X, Y, ARCHITECTURE, replace(one, flat=Flat()), 7, [0], begun=begun)
    torch.testing.assert_close(rows[1], expected, rtol=1e-10, atol=1e-12)


def test_off_it_is_no_part_of_a_key():
    """Experts trained before it was there are found again."""
    settings = Experts(count=7, flat=Flat(alpha=0.9))
    before = {"count": 1, "epochs": 30, "lr": 0.01, "momentum": 0.0, "batch": 64}
    assert settings.decides() == before | {"augment": ["color", "crop", "cutout", "scale", "rotate"]}
    assert SETTINGS.decides()["flat"] == {"rho": 0.5, "alpha": 0.3}
    private = Experts(private=Private(epsilon=8))
    assert private.decides_private() == {k: v for k, v in asdict(private).items() if k != "flat"}
    assert private.decides_private()["private"]["epsilon"] == 8 and private.decides_private()["count"] == 6


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"flat": {"rho": -1}}, r"experts\.flat\.rho is -1; give 0 or more"),
        ({"flat": {"alpha": -1}}, r"experts\.flat\.alpha is -1; give 0 or more"),
        (
            {"flat": {"rho": 0.01}, "private": Private(epsilon=8)},
            r"experts\.flat\.rho is 0\.01, but private.*set it to 0",
        ),
    ],
)
def test_wrong_settings_are_one_sentence(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        Experts(**{**wrong, "flat": Flat(**wrong["flat"])})


def test_the_shipped_config_has_the_published_settings():
    config = configure("run", ["--config", "configs/cifar10_ftd.yaml"])
    assert config.experts.flat == Flat(rho=0.01, alpha=0.3)
    settings = config.distill
    assert settings.method == "mtt" and (settings.lr_images, settings.lr_alpha, settings.ema) == (100, 1e-5, 0.9995)
    assert (settings.inner_steps, settings.expert_epochs, settings.max_start_epoch) == (30, 2, 20)
