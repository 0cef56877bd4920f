"""Checks 5 and 6: leaks are caught, clean sets are not, and too few patients are no acquittal."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from medistill.audit import membership, membership_attack, membership_experts
from medistill.audit.attack_roc import Rate, Roc, Scores, measure
from medistill.audit.check import Candidate, Outcome, Private
from medistill.audit.membership import membership_check
from medistill.audit.membership_attack import Attacked, allowed, judge, limit_of, negative_control, patients_needed
from medistill.audit.membership_experts import experts_check
from medistill.audit.shadow_pool import Pool
from medistill.audit.shadows import Shadows
from medistill.config import Audit, Config, Data, Distill, Evaluate, Experts, Net
from medistill.config.audit import Shadows as Budget
from medistill.data.imageset import ImageSet
from medistill.distill.distilled import Distilled
from medistill.experts.accountant import Mechanism, max_tpr
from medistill.nets import Architecture
from medistill.report.membership import exposure_figure, membership_figure
from medistill.seeds import generator

LIMIT = 0.005


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bootstrap of 60 is quick, and the exact bounds do not need it."""
    monkeypatch.setattr(membership_attack, "measure", partial(measure, resamples=60))


def toy(
    patients: int, leak: float = 0.0, experts: float = 1.0, planted: float = 9.0, noisy: bool = False
) -> tuple[Shadows, Callable[[float], Tensor]]:
    """Shadows whose networks' confidence in a film is normal, and higher by so much for patients they have seen.

    Also a function that gives such answers (1, N, 3) of networks on the release.
    """
    g = generator(0, "toy")
    patient = torch.arange(patients)
    labels, pool_size = patient % 3, torch.zeros(patients, 1, 2, 2)
    pool = Pool(pool_size, labels, patient, patient < 0.6 * patients, ("a", "b", "c"))
    inside = pool.halves(8, 0)
    hard = torch.randn(patients, generator=g)

    def answers(seen: Tensor, shift: float, networks: int = 1) -> Tensor:
        own = hard + torch.randn(networks, patients, generator=g) + shift * seen
        logits = torch.zeros(networks, patients, 3)
        return logits.scatter(2, labels.view(1, -1, 1).expand(networks, -1, 1), own[..., None]).softmax(-1)

    chosen = torch.zeros_like(inside)
    for row, half in zip(chosen, inside, strict=True):
        members = torch.nonzero(half).flatten()
        row[members[torch.randperm(len(members), generator=g)[:3]]] = True
    shadows = Shadows(
        pool=pool,
        inside=inside,
        students=torch.stack([answers(row, leak) for row in inside]),
        planted=chosen,
        planted_students=torch.stack([answers(row, planted) for row in chosen]),
        experts=torch.stack([answers(row, experts, 2)[None] for row in inside]),
        slopes=torch.rand(16, 1, patients, generator=g) + 0.1,
        noisy=noisy,
    )
    return shadows, lambda shift: answers(pool.member, shift)


def outcome(patients: int, leak: float, release: float, **options: Any) -> Outcome:
    shadows, answers = toy(patients, leak, **options)
    return membership_check(shadows, answers(release), 0, LIMIT)


def test_a_clean_procedure_with_patients_enough_passes() -> None:
    found = outcome(1300, 0, 0).check
    assert found.verdict == "pass" and found.number == 5 and found.interval is not None
    assert 0.001 < found.interval[1] <= LIMIT
    assert found.statistic["procedure"]["enough_patients"] and not found.statistic["release"]["enough_patients"]
    procedure = found.statistic["procedure"]["LiRA"]
    assert procedure["members"] == procedure["others"] == 8 * 1300 and procedure["patients"] == 1300
    assert procedure["auc"] == pytest.approx(0.5, abs=0.02)
    assert found.statistic["most_exposed_tenth"]["share_of_games_won"] == pytest.approx(0.5, abs=0.06)
    assert isinstance(found.positive_control, dict) and isinstance(found.negative_control, dict)
    assert found.power == found.positive_control["power"] and found.power > 0.9
    assert found.positive_control["planted"] == 48 and found.positive_control["refused"]
    assert found.positive_control["trained_on_all_real_films"]["LiRA"]["auc"] > 0.65
    assert not found.negative_control["fired"]
    assert "within 0.5 %" in found.explanation


def test_a_leaky_procedure_fails() -> None:
    found = outcome(400, leak=4, release=0).check
    assert found.verdict == "fail" and found.interval is not None and found.interval[0] > LIMIT
    assert found.statistic["procedure"]["RMIA"]["tpr_at_0.01"]["tpr"] > 0.3
    assert found.statistic["most_exposed_tenth"]["share_of_games_won"] > 0.95
    assert "0.5 % is exceeded" in found.explanation


def test_a_leaky_release_fails_although_its_holdout_is_small() -> None:
    found = outcome(300, leak=0, release=9).check
    assert found.verdict == "fail" and found.interval is not None and found.interval[0] > LIMIT
    assert found.statistic["release"]["LiRA"]["members"] == 180 and found.statistic["release"]["LiRA"]["others"] == 120
    assert found.statistic["release"]["LiRA"]["auc"] > 0.99


def test_too_few_patients_are_inconclusive_and_told_how_many_it_takes() -> None:
    found = outcome(100, 0, 0).check
    assert found.verdict == "inconclusive"
    needed = found.statistic["patients_needed"]
    assert needed["procedure"] == patients_needed(LIMIT, 16) and 800 < needed["procedure"] < 900
    assert f"It would take {needed['procedure']} patients" in found.explanation


def test_a_mild_leak_that_cannot_be_ruled_out_does_not_pass() -> None:
    found = outcome(1300, leak=0.6, release=0).check
    assert found.verdict == "inconclusive" and "cannot be ruled out" in found.explanation
    assert found.interval is not None and found.interval[0] <= LIMIT < found.interval[1]


def test_an_attack_that_misses_planted_films_proves_nothing() -> None:
    found = outcome(1300, 0, 0, planted=0.0).check
    assert found.verdict == "inconclusive" and "not have refused the planted sets" in found.explanation
    assert found.power is not None and found.power < 0.1


def test_nothing_in_the_numbers_points_at_a_patient(tmp_path: Path) -> None:
    found = outcome(60, 1, 1)
    text = json.dumps(found.check.to_json(), allow_nan=False)
    assert len(text) < 8000  # rates and counts, no list of patients
    for figure in found.figures:
        assert not figure.shows_patients
        figure.draw(tmp_path / figure.name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["exposure_5.png", "roc_5.png"]


def test_a_release_that_leaks_more_than_its_shadows_is_not_cleared_by_them() -> None:
    """Not enough to fail, for its holdout is small; but seen in the area under the curve."""
    found = outcome(1300, leak=0, release=0.7).check
    assert found.statistic["release"]["LiRA"]["auc_interval"][0] > found.statistic["procedure"]["LiRA"]["auc"] + 0.1
    assert found.verdict == "inconclusive" and "gives away more than shadow distillations do" in found.explanation
    shadows, answers = toy(1300)
    other = membership_check(shadows, answers(0), 0, LIMIT, unlike="it was made otherwise").check
    assert other.verdict == "inconclusive" and "it was made otherwise" in other.explanation


def attacked(tpr: float, low: float, high: float, count: int) -> Attacked:
    rates = (Rate(0.01, tpr, (low, high)), Rate(0.001, tpr, (low, high)))
    return Attacked({}, {"LiRA": Roc(count, count, count, 0.5, (0.5, 0.5), rates)})


CAUGHT, SILENT = {"refused": True}, {"fired": False}


@pytest.mark.parametrize(
    ("release", "procedure", "positive", "negative", "verdict"),
    [
        ((0, 0, 0.02, 300), (0.001, 0, 0.004, 9000), CAUGHT, SILENT, "pass"),
        ((0, 0.006, 0.02, 300), (0.001, 0, 0.004, 9000), CAUGHT, SILENT, "fail"),
        ((0, 0, 0.02, 300), (0.02, 0.006, 0.04, 9000), {"refused": False}, {"fired": True}, "fail"),
        ((0, 0, 0.02, 300), (0.001, 0, 0.006, 900), CAUGHT, SILENT, "inconclusive"),
        ((0, 0, 0.02, 300), (0.001, 0, 0.005, 5000), CAUGHT, SILENT, "pass"),
        ((0, 0, 0.02, 300), (0.001, 0, 0.004, 9000), {"refused": False}, SILENT, "inconclusive"),
        ((0, 0, 0.02, 300), (0.001, 0, 0.004, 9000), CAUGHT, {"fired": True}, "inconclusive"),
        ((0, 0, 0.02, 300), (0.001, 0, 0.006, 9000), CAUGHT, SILENT, "inconclusive"),
        ((0, 0, 0.02, 9000), (0.001, 0, 0.004, 9000), CAUGHT, SILENT, "inconclusive"),
        ((0, 0, 0.004, 9000), (0.001, 0, 0.02, 300), CAUGHT, SILENT, "pass"),
    ],
)
def test_the_rule(
    release: tuple[float, float, float, int],
    procedure: tuple[float, float, float, int],
    positive: dict[str, bool],
    negative: dict[str, bool],
    verdict: str,
) -> None:
    targets = {"release": attacked(*release), "procedure": attacked(*procedure)}
    assert judge(targets, LIMIT, positive, negative)[0] == verdict
    if verdict == "pass":
        own = release[2] <= LIMIT
        assert judge(targets, LIMIT, positive, negative, "unlike")[0] == ("pass" if own else "inconclusive")


def test_the_release_is_compared_with_shadows_that_have_not_seen_a_patient() -> None:
    shadows, answers = toy(400, leak=6)
    found = membership_attack.attack_release(shadows, answers(0), 0)
    assert abs(np.median(found.scores["LiRA"].values)) < 0.3
    assert found.rocs["LiRA"].members == 240 and found.rocs["LiRA"].auc == pytest.approx(0.5, abs=0.1)


def test_the_worse_attack_counts() -> None:
    one, other = attacked(0.001, 0.0005, 0.004, 10).rocs["LiRA"], attacked(0.002, 0.0001, 0.003, 10).rocs["LiRA"]
    both = Attacked({}, {"LiRA": one, "RMIA": other})
    assert both.best == "RMIA" and both.rate == Rate(0.001, 0.002, (0.0005, 0.004))


def test_members_against_members_is_silent_and_fires_when_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = torch.rand(16, 200, generator=generator(0, "inside")) < 0.5
    values = torch.randn(16, 200, generator=generator(0, "values")) + 50 * inside
    assert not negative_control({"LiRA": values}, inside, 0)["fired"]
    played = torch.rand(inside.shape, generator=generator(0, "audit", "membership", "negative")) < 0.5
    found = negative_control({"LiRA": values, "RMIA": values + played}, inside, 0)
    assert found["fired"] and found["attacks"]["RMIA"]["auc"] > 0.7 and found["level"] == 0.995


LEDGER = {
    "entries": [
        {"what": "expert 0", "first": 0, "steps": 30, "noise_multiplier": 12.0, "rate": 1.0},
        {"what": "expert 1", "first": 0, "steps": 30, "noise_multiplier": 12.0, "rate": 1.0},
    ]
}


def test_a_ledger_sets_the_limit_to_what_its_noise_allows() -> None:
    assert limit_of(None) == LIMIT and allowed(None, np.array([0.1])) is None
    expected = float(max_tpr([Mechanism(12.0, 1.0, 60)], [0.001])[0])
    assert expected > LIMIT and limit_of(LEDGER) == pytest.approx(expected)
    strong = {"entries": [LEDGER["entries"][0] | {"noise_multiplier": 100.0}]}
    assert limit_of(strong) == LIMIT


def test_experts_without_a_guarantee_are_measured_and_not_judged(tmp_path: Path) -> None:
    shadows, _ = toy(300, experts=3.0)
    found = experts_check(shadows, 0, LIMIT, guaranteed=False)
    assert found.check.verdict == "not applicable" and found.check.number == 6
    attacks = found.check.statistic["experts"]
    assert attacks["trajectory, LiRA"]["auc"] > attacks["last epoch, LiRA"]["auc"] > 0.9
    assert attacks["gradient norm, LiRA"]["auc"] == pytest.approx(0.5, abs=0.05)
    assert "upper reference" in found.check.explanation and found.check.interval is not None
    found.figures[0].draw(tmp_path / found.figures[0].name)
    assert (tmp_path / "roc_6.png").exists()


def test_gradients_that_are_small_for_members_betray_them() -> None:
    shadows, _ = toy(300, experts=0.0)
    small = replace(shadows, slopes=torch.where(shadows.inside[:, None], 0.1, 1.0) * shadows.slopes)
    attacks = experts_check(small, 0, LIMIT, guaranteed=False).check.statistic["experts"]
    assert attacks["gradient norm, LiRA"]["auc"] > 0.9 and attacks["trajectory, LiRA"]["auc"] < 0.55


def test_experts_with_a_guarantee_keep_it_or_fail() -> None:
    assert experts_check(toy(1300, experts=0.0)[0], 0, LIMIT, guaranteed=True).check.verdict == "pass"
    assert experts_check(toy(300, experts=4.0)[0], 0, LIMIT, guaranteed=True).check.verdict == "fail"
    assert experts_check(toy(300, experts=4.0)[0], 0, 0.9, guaranteed=True).check.verdict != "fail"


# The whole way on tiny films: networks trained on the release really are.

SIDE = 16
CONFIG = Config(
    data=Data(size=SIDE),
    net=Net(width=8, depth=2),
    experts=Experts(count=1, epochs=2, lr=0.05, batch=16, augment=[]),
    distill=Distill(iterations=2, inner_steps=2, max_start_epoch=1, expert_epochs=1, lr_images=1.0, augment=[]),
    evaluate=Evaluate(steps=40, lr=0.1, batch=30, augment=[]),
    audit=Audit(shadows=Budget(count=16, experts=1, students=2)),
)


def noise_films(patients: int, name: str) -> ImageSet:
    """Films of noise with classes by lot: a network can tell them only by having seen them."""
    images = torch.rand(patients, 1, SIDE, SIDE, generator=generator(0, name))
    labels = torch.arange(patients) % 3
    return ImageSet(images, labels, torch.arange(patients), ("a", "b", "c"), "toy", name, (0.5,), (0.25,))


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Private:
    train, holdout = noise_films(30, "train"), noise_films(90, "holdout")
    return Private(train, holdout, CONFIG, folder=tmp_path_factory.mktemp("private"))


def released(images: Tensor, labels: Tensor, lr: float = 0.1, start: str = "noise") -> Candidate:
    architecture = Architecture("convnet", 1, 3, SIDE, 8, 2)
    targets = torch.nn.functional.one_hot(labels, 3).float()
    made = Distilled(images, targets, lr, ("a", "b", "c"), (0.5,), (0.25,), architecture, provenance={"start": start})
    return Candidate(made)


def test_training_films_released_as_they_are_fail(private: Private) -> None:
    found = membership.check(released(private.train.pixels(), private.train.labels), private).check
    assert found.statistic["release"]["LiRA"]["auc"] > 0.9
    assert found.verdict == "fail"


def test_noise_that_knows_nobody_does_not_fail(private: Private) -> None:
    images = torch.randn(3, 1, SIDE, SIDE, generator=generator(0, "release"))
    found = membership.check(released(images, torch.arange(3)), private).check
    low, high = found.statistic["release"]["LiRA"]["auc_interval"]
    assert low < 0.5 < high and found.verdict == "inconclusive"
    assert found.statistic["shadows_speak_for_release"]
    other = membership.check(released(images, torch.arange(3), start="real"), private).check
    assert not other.statistic["shadows_speak_for_release"]
    experts = membership_experts.check(released(images, torch.arange(3)), private).check
    assert experts.verdict == "not applicable" and experts.statistic["limit"] is None


def test_a_class_with_one_patient_is_not_applicable(private: Private) -> None:
    train, holdout = private.train, private.holdout
    labels = torch.where(torch.arange(30) == 0, 2, train.labels % 2)
    few = replace(private, train=replace(train, labels=labels), holdout=replace(holdout, labels=holdout.labels % 2))
    for check in (membership.check, membership_experts.check):
        found = check(released(private.train.pixels()[:3], torch.arange(3)), few).check
        assert found.verdict == "not applicable" and "lass c has 1 patients" in found.explanation


def test_figures_are_the_same_bytes_for_the_same_values(tmp_path: Path) -> None:
    scores = Scores(np.arange(40.0), np.arange(40) % 3 == 0, np.arange(40))
    for name in ("a.png", "b.png"):
        membership_figure({"one": scores.curve}, tmp_path / name, (np.array([1e-4, 1]), np.array([1e-2, 1])))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    membership_figure({"one": scores.curve}, tmp_path / "c.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()
    exposure_figure(np.linspace(1, 0, 50), 8, tmp_path / "d.png")
    with Image.open(tmp_path / "d.png") as image:
        assert image.width > 500
