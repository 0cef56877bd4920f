"""The study of what distillation stores: its data, its network, its measures, and a small one from end to end."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch

from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.seeds import generator

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
sys.path.insert(0, str(PIPELINES))

import multi_index  # noqa: E402
from multi_index_distil import RAN_AWAY, Settings, by_loss, distil, error, errors, unit  # noqa: E402
from multi_index_model import NOISE, Problem, TwoLayer, energy, teacher  # noqa: E402
from multi_index_table import needed, table  # noqa: E402


def test_the_directions_are_orthonormal_and_a_seed_is_a_problem():
    one, again, other = (Problem.draw(9, 3, seed) for seed in (0, 0, 1))
    torch.testing.assert_close(one.directions @ one.directions.T, torch.eye(3))
    assert one.splits["test"][1].equal(again.splits["test"][1])
    assert not one.directions.allclose(other.directions)
    assert not one.splits["train"][0][:100].equal(one.splits["test"][0][:100])


def test_labels_are_the_teacher_of_the_projected_inputs_and_noise():
    one = Problem.draw(9, 2, 0)
    x, y = one.splits["test"]
    clean = teacher(x @ one.directions.T)
    assert (y - clean).square().mean().item() == pytest.approx(NOISE**2, rel=0.1)
    assert clean.mean().abs() < 0.1 and clean.var().item() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_the_teacher_needs_every_direction(r):
    """By hand at one point; its Hessian has full rank."""
    z = torch.tensor([[1.0, 2.0, -1.0][:r]])
    by_hand = {1: 1 + 0, 2: 3 + 3 + 2, 3: 2 + 3 + 0}[r]
    assert teacher(z).item() == pytest.approx(by_hand / math.sqrt(4 * r - 1))
    hessian = torch.autograd.functional.hessian(lambda z: teacher(z[None]).sum(), z[0]) * math.sqrt(4 * r - 1)
    exact = [2 + 2 * math.cos(math.pi * k / (r + 1)) for k in range(r, 0, -1)]
    torch.testing.assert_close(torch.linalg.eigvalsh(hessian), torch.tensor(exact))


def test_energy_of_inputs_by_hand():
    directions = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
    assert energy(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.8, -0.6]]), directions) == pytest.approx(9 / 10)
    assert energy(torch.tensor([[0.0, 0.6, 0.8]]), directions) == pytest.approx(1)
    many = torch.randn(4000, 3, generator=generator(0, "energy"))
    assert energy(many, directions) == pytest.approx(2 / 3, abs=0.02)


def given(width=6):
    """A network, and theta, x, y, v in float64."""
    net, g = TwoLayer(5, width), generator(0, "given")
    theta, v = (torch.randn(net.size, generator=g, dtype=torch.float64) for _ in range(2))
    x, y = torch.randn(4, 5, generator=g, dtype=torch.float64), torch.randn(4, 1, generator=g, dtype=torch.float64)
    return net, theta, x, y, v


def loss(theta, x, y, width=6):
    """The network's loss, written once more."""
    w, b, a = theta[: 5 * width].view(width, 5), theta[5 * width : 6 * width], theta[6 * width :]
    z = torch.einsum("ld,bd->bl", w, x) + b
    f = 8 / math.sqrt(width) * (a * (z + (z**2 + 0.5).sqrt()) / 2).sum(1)
    return ((f - y[:, 0]) ** 2).mean() / 2


def test_slope_and_adjoint_are_those_of_autograd():
    net, theta, x, y, v = given()
    slope, pull = torch.func.vjp(torch.func.grad(loss), theta, x, y)
    torch.testing.assert_close(net.slope(theta, x, y), slope)
    for ours, exact in zip(net.adjoint(theta, x, y, v), pull(v), strict=True):
        torch.testing.assert_close(ours, exact)
    assert (net(theta, x) - y).square().mean().item() / 2 == pytest.approx(loss(theta, x, y).item())


def test_a_fresh_network_is_zero():
    net = TwoLayer(5, 6)
    theta = net.start(generator(0, "fresh"))
    assert net(theta, torch.randn(7, 5)).abs().max() < 1e-6
    assert theta.shape == (net.size,) and theta.abs().min() > 0


def test_aiming_at_a_step_of_descent_gives_the_gradient_of_the_loss_on_real_samples():
    """The engine's gradient towards the aim of `by_loss` is D / 2 times shorter than that of the loss itself."""
    net, start, x, y, _ = given()
    start, g = 0.3 * start, generator(1, "real")
    real = torch.randn(20, 5, generator=g, dtype=torch.float64), torch.randn(20, 1, generator=g, dtype=torch.float64)
    problem = Problem(torch.eye(5)[:1], {"train": real})
    settings = Settings(inner_steps=4, batch=300)
    fixed = TwoLayer(5, 6)
    fixed.start = lambda _: start
    aim = by_loss(fixed, problem, settings, 0)
    begin, target = aim(0, (x, y))
    steps = draw_steps(4, 0, 4, (), g)
    alpha, ones = torch.tensor(0.1, dtype=torch.float64), torch.ones_like(start)
    found = matching_gradient(net, begin, target, x, y, alpha, ones, steps)

    drawn = torch.randint(20, (300,), generator=generator(0, "aim"))
    leaves = [x.clone().requires_grad_(), y.clone().requires_grad_()]
    theta = start.clone().requires_grad_()
    end = theta
    for _ in range(4):
        end = end - 0.1 * torch.autograd.grad(loss(end, *leaves), end, create_graph=True)[0]
    exact = torch.autograd.grad(loss(end, real[0][drawn], real[1][drawn]), leaves)
    for ours, reference in zip((found.images, found.labels), exact, strict=True):
        assert (ours * found.distance / 2 - reference).norm() < 1e-9 * reference.norm()


@pytest.mark.parametrize("algorithm", ["loss", "trajectory"])
def test_distillation_finds_the_direction(algorithm):
    """From noise with a fifth of its energy in row(B) to most of it; a fresh student does better than a constant."""
    problem, net = Problem.draw(5, 1, 0), TwoLayer(5, 16)
    settings = Settings(iterations=150, inner_steps=10, experts=4, expert_steps=60, students=2)
    found = distil(net, problem, 4, algorithm, settings, 0)
    assert found[0].shape == (4, 5) and found[1].shape == (4, 1)
    assert energy(found[0], problem.directions) > 0.7
    reached = errors(net, found, problem, "test", settings, 0)
    assert min(reached) < 0.8
    assert len(set(reached)) == 2


def test_a_gradient_that_is_not_finite_moves_nothing():
    assert unit(torch.tensor([math.inf, 1.0])).equal(torch.zeros(2))
    assert unit(torch.zeros(2)).equal(torch.zeros(2))
    torch.testing.assert_close(unit(torch.tensor([3.0, 4.0])).square().mean(), torch.tensor(1.0))
    assert error(TwoLayer(2, 2), torch.full((8,), math.nan), (torch.ones(1, 2), torch.ones(1, 1))) == RAN_AWAY


def cell(size, seed, distilled):
    place = {"d": 3, "r": 1, "L": 4, "M": size, "seed": seed, "algorithm": "loss", "floats": 4 * size}
    return place | {"energy": 0.5 + 0.1 * seed, "distilled": distilled, "random real": [1.0, 2.0], "all real": 0.1}


def test_the_table_by_hand():
    small = [cell(1, 0, [0.9, 1.2, 5.0]), cell(1, 1, [0.8, 0.8, 0.9])]
    large = [cell(4, 0, [0.25, 0.25, 0.3])]
    rows = table([small[0], large[0], small[1]])
    assert [(row["M"], row["floats"], row["line"], row["seeds"]) for row in rows] == [(1, 4, 7, 2), (4, 16, 7, 1)]
    assert rows[0]["distilled"] == {"mean": pytest.approx(1.0), "sd": pytest.approx(0.2 * math.sqrt(2))}
    assert rows[0]["energy"]["mean"] == pytest.approx(0.55)
    assert rows[0]["random real"]["mean"] == 1.5 and rows[0]["all real"]["mean"] == pytest.approx(0.1)
    assert rows[0]["worse_than_a_constant"] == pytest.approx(1 / 3)
    assert rows[1]["distilled"] == {"mean": 0.25, "sd": None}
    # the error halves twice from 4 to 16 floats, so it is a half at 8
    assert needed(rows) == pytest.approx(8)
    assert math.isnan(needed(rows[:1])) and math.isnan(needed(rows[1:]))


def test_the_study_shrunk_writes_what_it_measured_and_measures_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["multi_index.py", "--quick"])
    folder, written = tmp_path / "runs" / "multi_index", []
    for _ in range(2):
        multi_index.main()
        written.append({path: (path.stat().st_mtime_ns, path.read_text()) for path in folder.glob("*.json")})
        min(written[0]).unlink()  # as if the first run had been stopped
    first, second = written
    assert first.keys() == second.keys() and len(first) == 2 * 2 * 2
    assert [path for path in first if first[path] != second[path]] == [min(first)]
    assert first[min(first)][1] == second[min(first)][1]
    found = json.loads((folder / "quick" / "multi_index.json").read_text())
    assert [(row["algorithm"], row["M"], row["seeds"]) for row in found["rows"]] == [
        (algorithm, size, 2) for algorithm in ("loss", "trajectory") for size in (1, 4)
    ]
    cells = [json.loads(text) for _, text in second.values()]
    for row in found["rows"]:
        own = [one for one in cells if (one["algorithm"], one["M"]) == (row["algorithm"], row["M"])]
        assert row["energy"]["mean"] == pytest.approx(sum(one["energy"] for one in own) / 2)
        assert row["floats"] == row["M"] * 9 and row["line"] == 8 + 16
        assert 0 < row["energy"]["mean"] <= 1 and NOISE**2 < row["all real"]["mean"] < row["distilled"]["mean"]
    pictures = {path.name for path in (folder / "quick").glob("*.png")}
    assert pictures == {f"multi_index_{name}.png" for name in ("energy", "error", "needed")}
