"""Check 11: the attack against autograd and a plain training loop, its verdicts by hand, and on phantom films."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom, hypergeom
from torch import Tensor

from medistill.audit import imitation as compared
from medistill.audit import inversion, inversion_attack
from medistill.audit.check import Candidate, Private
from medistill.audit.imitation import correlation, imitation, logit_change
from medistill.audit.inversion import Found, judge, one_of_each_class
from medistill.audit.inversion_attack import Inverter, Moved, cosine_slope, move, reconstruct, roughness
from medistill.config import Config, Data, Distill, Net
from medistill.data import phantom
from medistill.data.imageset import ImageSet, normalise
from medistill.distill.distilled import Distilled
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.kernels import Kernels
from medistill.nets import Architecture, Flat, flatten
from medistill.seeds import generator

SIDE = 24
ARCHITECTURE = Architecture("convnet", 1, 3, SIDE, 8, 2)
CPU = torch.device("cpu")


def cohort(patients: int, first: int, split: str) -> ImageSet:
    """Phantom films, one a patient, classes taking turns."""
    labels = torch.arange(patients) % 3
    films = [phantom.film(0, first + patient, 0, patient % 3, SIDE) for patient in range(patients)]
    images, groups = torch.from_numpy(np.stack(films))[:, None], torch.arange(patients) + first
    return ImageSet(images, labels, groups, phantom.CLASSES, "phantom", split, mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def private() -> Private:
    config = Config(data=Data(size=SIDE), net=Net(width=8, depth=2), distill=Distill(inner_steps=10))
    return Private(cohort(90, 0, "train"), cohort(63, 1000, "test"), config)


def candidate(pictures: Tensor, lr: float = 0.01) -> Candidate:
    images = normalise(pictures, (0.5,), (0.25,))
    labels = F.one_hot(torch.arange(len(pictures)) % 3, 3).float()
    return Candidate(Distilled(images, labels, lr, phantom.CLASSES, (0.5,), (0.25,), ARCHITECTURE))


def double_net() -> tuple[Flat, Kernels, torch.nn.Module]:
    net = Flat(ARCHITECTURE).to(CPU, torch.float64)
    return net, Kernels(net, CPU, 6), ARCHITECTURE.build(generator(0, "net")).double()


def test_networks_move_as_torch_moves_them() -> None:
    _, kernels, module = double_net()
    images = torch.randn(6, 1, SIDE, SIDE, dtype=torch.float64, generator=generator(0, "x"))
    labels = torch.rand(6, 3, dtype=torch.float64, generator=generator(0, "y"))
    labels = labels / labels.sum(1, keepdim=True)
    start = flatten(module)
    moved = move(kernels, start, images, labels, 0.1, 4)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(4):
        optimiser.zero_grad()
        F.cross_entropy(module(images), labels).backward()
        optimiser.step()
    torch.testing.assert_close(moved.end, flatten(module), atol=1e-10, rtol=0)
    assert torch.equal(moved.start, start)
    torch.testing.assert_close(moved.middle, (start + moved.end) / 2)
    torch.testing.assert_close(moved.displacement, moved.end - start)


def test_the_slope_of_the_cosine_is_autograds() -> None:
    u = torch.randn(50, dtype=torch.float64, generator=generator(0, "u")).requires_grad_()
    d = torch.randn(50, dtype=torch.float64, generator=generator(0, "d"))
    cosine, slope = cosine_slope(u.detach(), d)
    expected = F.cosine_similarity(u, d, dim=0)
    torch.testing.assert_close(cosine, expected.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(expected, u)[0])
    assert all(part.eq(0).all() for part in cosine_slope(torch.zeros(5), torch.zeros(5)))


def test_roughness_by_hand() -> None:
    image = torch.tensor([[[[0.0, 1.0], [0.5, 1.0]]]])
    assert roughness(image).item() == pytest.approx((0.5 + 0) / 2 + (1 + 0.5) / 2)


def test_a_step_goes_down_the_slope_that_double_backward_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosine distance of two networks, and the total variation: one step of Adam on the sign of the slope."""
    monkeypatch.setattr(inversion_attack, "ITERATIONS", 1)
    _, kernels, module = double_net()
    start, labels = flatten(module), torch.eye(3, dtype=torch.float64).repeat(2, 1)
    drawn = [torch.randn(len(start), dtype=torch.float64, generator=generator(n, "d")) for n in range(4)]
    moved = [Moved(start + 0.01 * drawn[0], start + 0.02 * drawn[1]), Moved(start, start + 0.03 * drawn[2])]

    def seen(pixels: Tensor) -> Tensor:
        return (pixels - 0.4) / 0.2

    found = reconstruct(kernels, moved, labels, (1, SIDE, SIDE), seen, generator(0, "noise"))
    noise = torch.randn(6, 1, SIDE, SIDE, generator=generator(0, "noise")).double()
    pixels = (0.5 + 0.1 * noise).clamp(0, 1).requires_grad_()
    variation = (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().mean() + (pixels[..., 1:] - pixels[..., :-1]).abs().mean()
    expected_slope = torch.autograd.grad(inversion_attack.SMOOTHNESS * variation, pixels)[0]
    cosines = []
    for network in moved:
        torch.nn.utils.vector_to_parameters((network.start + network.end) / 2, module.parameters())
        loss = F.cross_entropy(module((pixels - 0.4) / 0.2), labels)
        slopes = torch.autograd.grad(loss, list(module.parameters()), create_graph=True)
        cosine = F.cosine_similarity(-torch.cat([g.flatten() for g in slopes]), network.end - network.start, dim=0)
        expected_slope += torch.autograd.grad((1 - cosine) / 2, pixels)[0]
        cosines.append(cosine.item())
    expected = (pixels - inversion_attack.STEP * expected_slope.sign()).clamp(0, 1).detach()
    torch.testing.assert_close(found.images, expected, atol=1e-6, rtol=0)
    assert found.explained == pytest.approx(sum(cosines) / 2)


def test_one_film_of_each_class_and_none_twice(private: Private) -> None:
    films = one_of_each_class(private.train, 4, generator(0, "films"))
    assert films.shape == (4, 3) and len(films.unique()) == 12
    assert private.train.labels[films].tolist() == [[0, 1, 2]] * 4
    again = one_of_each_class(cohort(3, 0, "train"), 2, generator(0, "films"))
    assert again.tolist() == [[0, 1, 2]] * 2


def test_a_film_is_recognised_by_its_patient_and_only_where_it_fires() -> None:
    patients = torch.tensor([10, 10, 11, 12])
    index = torch.tensor([[1, 3], [3, 2], [0, 0], [3, 0]])
    fired = torch.tensor([[True, False], [True, False], [False, False], [True, True]])
    found = Found(torch.zeros(4), fired, index, 0.5)
    assert found.recognised(torch.tensor([0, 2, 0, 2]), patients).tolist() == [True, False, False, False]
    assert found.classes_fired.tolist() == [True, True, False, True]


def made(scores: list[float], threshold: float = 1.0, film: int = 0) -> Found:
    """Three images a class, all nearest to one film."""
    score = torch.tensor(scores)
    return Found(score, (score > threshold)[:, None].expand(-1, 3), torch.full((len(scores), 3), film), 0.9)


@pytest.mark.parametrize(
    ("release", "planted", "noise", "strangers", "holdout", "verdict", "words"),
    [
        ([0, 0, 0], [3, 3, 3], [0, 0, 0], [0, 0, 0], 400, "pass", "0 of 3 classes"),
        ([2, 0, 0], [3, 3, 3], [0, 0, 0], [0, 0, 0], 400, "fail", "1 of 3 classes"),
        ([2, 0, 0], [3, 3, 3], [0, 0, 0], [0, 0, 0], 60, "pass", "1 of 3 classes"),
        ([3, 0, 0], [3, 3, 3], [0, 0, 0], [0, 0, 0], 60, "fail", "1 of them as near as"),
        ([3, 0, 0], [3, 3, 0], [0, 0, 0], [0, 0, 0], 60, "inconclusive", "2 of 3 single films"),
        ([2, 2, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0], 60, "fail", "3 of 3 classes"),
        ([0, 0, 0], [3, 3, 3], [0, 0, 0], [0, 0, 0], 19, "inconclusive", "fewer than 20"),
        ([0, 0, 0], [3, 3, 3], [2, 2, 2], [0, 0, 0], 60, "inconclusive", "where there are none"),
        ([0, 0, 0], [3, 3, 3], [0, 0, 0], [2, 2, 2], 60, "inconclusive", "where there are none"),
        ([0, 0, 0], [3, 3, 3], [0, 0, 0], None, 60, "pass", "0 of 3 classes"),
    ],
)
def test_verdicts(release, planted, noise, strangers, holdout, verdict, words) -> None:
    found = [made(release), made(noise), made(planted), *([made(strangers)] if strangers else [])]
    check = judge(found, torch.zeros(1, 3, dtype=torch.int64), torch.tensor([7]), holdout, {"threshold": 1.0})
    assert check.verdict == verdict and words in check.explanation
    assert check.power == sum(score > 1 for score in planted) / 3
    assert isinstance(check.negative_control, dict)
    if strangers is None:
        assert check.negative_control["other_patients"].startswith("none: ")
    fired = sum(score > 1 for score in release)
    assert check.statistic["fired"] == fired and check.statistic["expected_by_chance"] == 9 / (holdout + 1)
    assert check.statistic["p_binomial"] == pytest.approx(binom.sf(fired - 1, 9, 1 / (holdout + 1)))
    assert check.statistic["p_exact"] == pytest.approx(hypergeom.pmf(fired, 9 + holdout, 9, fired))
    json.dumps(check.to_json(), allow_nan=False)


def test_a_planted_film_mistaken_for_another_does_not_count() -> None:
    found = [made([0, 0, 0]), made([0, 0, 0]), made([3, 3, 3], film=1)]
    check = judge(found, torch.zeros(1, 3, dtype=torch.int64), torch.tensor([7, 8]), 60)
    assert check.power == 0 and check.verdict == "inconclusive"


def test_imitation_by_hand(private: Private) -> None:
    net = Flat(ARCHITECTURE)
    draw = [flatten(ARCHITECTURE.build(generator(n, "net"))) for n in range(3)]
    student, expert = Moved(draw[0], draw[1]), Moved(draw[0], draw[2])
    train, holdout = private.train.pixels()[:30], private.holdout.pixels()[:20]
    found = imitation(net, [student, expert], [expert, expert], train, holdout)
    a, b = ((d - draw[0]).double().numpy() for d in draw[1:])
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert found.cosine == pytest.approx((1 + cosine) / 2, abs=1e-6)
    assert found.loss == pytest.approx(((a - b) ** 2).sum() / (b**2).sum() / 2, rel=1e-5)

    def change(end: Tensor, x: Tensor) -> np.ndarray:
        logits = (net(end, x) - net(draw[0], x)).double().numpy()
        logits = logits - logits.mean(1, keepdims=True)
        return (logits - logits.mean(0)).ravel()

    for x, value in ((train, found.logits_train), (holdout, found.logits_holdout)):
        expected = np.corrcoef(change(draw[1], x), change(draw[2], x))[0, 1]
        assert value == pytest.approx((1 + expected) / 2, abs=1e-5)
    still = logit_change(net, Moved(draw[0], draw[0]), train)
    assert correlation(still, still) == 0


def test_logits_are_compared_in_batches(private: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    net, ends = Flat(ARCHITECTURE), [flatten(ARCHITECTURE.build(generator(n, "net"))) for n in range(2)]
    whole = logit_change(net, Moved(*ends), private.train.pixels())
    monkeypatch.setattr(compared, "BATCH", 40)
    torch.testing.assert_close(whole, logit_change(net, Moved(*ends), private.train.pixels()))


def test_networks_start_where_the_experts_did(private: Private, tmp_path: Path) -> None:
    rows = [torch.stack([torch.full((Flat(ARCHITECTURE).size,), 10.0 * e + i) for i in range(12)]) for e in range(2)]
    files = [tmp_path / f"expert_{e}.safetensors" for e in range(2)]
    for file, row in zip(files, rows, strict=True):
        save_trajectory(file, row, ARCHITECTURE)
    config = Config(
        data=Data(size=SIDE), net=Net(width=8, depth=2), distill=Distill(max_start_epoch=8, expert_epochs=3)
    )
    insider = Private(private.train, private.holdout, config, Trajectories.open(files))
    inverter = Inverter(candidate(private.train.images[:3]), insider)
    ways = [(int(way.start[0]), int(way.end[0])) for way in inverter.experts()]
    assert ways == [(10 * (n % 2) + n, 10 * (n % 2) + n + 3) for n in range(8)]
    still = Inverter(candidate(private.train.images[:3], lr=0.0), insider)
    moved = still.moved_by_films(private.train.images[:3], private.train.labels[:3])
    assert [(int(m.start[0]), int(m.end[0])) for m in moved] == [(way[0], way[0]) for way in ways]
    fresh = Inverter(candidate(private.train.images[:3]), private)
    assert fresh.experts() == []
    starts = [m.start for m in fresh.moved_by_films(private.train.images[:3], private.train.labels[:3])]
    assert len(starts) == 8 and all(start.std() > 0 for start in starts) and not torch.equal(starts[0], starts[1])


def test_a_set_on_which_networks_diverge_is_inconclusive(private: Private) -> None:
    outcome = inversion.check(candidate(private.train.images[:3], lr=1e30), private)
    assert outcome.check.verdict == "inconclusive" and "diverge" in outcome.check.explanation
    assert outcome.check.power is None and not outcome.figures


def test_a_film_in_the_set_is_reconstructed_and_public_films_beside_it_are_not(
    private: Private, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The generator's films are of patients in no cohort: they look alike and are nobody's."""
    monkeypatch.setattr(inversion, "PLANTED", 3)
    leak, public = private.train.images[60:61], phantom.films(1, SIDE, seed=5)[0][1:]
    outcome = inversion.check(candidate(torch.cat([leak, public])), private)
    check = outcome.check
    assert check.power == 1 and check.verdict == "fail"
    score, threshold = check.statistic["score"], check.statistic["threshold"]
    assert score[0] > threshold > max(score[1:])
    assert check.statistic["fired"] == 1 and check.statistic["holdout"] == 60
    assert check.statistic["explained"] > 0.9 and check.statistic["imitation"] == "none: the experts are gone"
    assert isinstance(check.negative_control, dict)
    assert check.negative_control["noise"]["fired"] == check.negative_control["other_patients"]["fired"] == 0
    (figure,) = outcome.figures
    assert figure.shows_patients
    figure.draw(tmp_path / figure.name)
    assert (tmp_path / figure.name).stat().st_size > 10_000
