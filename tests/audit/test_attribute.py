"""Check 8: the risk by hand and by Anonymeter's formulas, planted leaks, and too few patients."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from medistill.audit import attribute as module
from medistill.audit.attribute import Guesses, check, judge, patients_needed, risk, standardised_rate
from medistill.audit.check import Candidate, Check, Private
from medistill.config import Config, Evaluate
from medistill.data.imageset import ImageSet
from medistill.seeds import generator


def guesses(*right_of: tuple[int, int]) -> Guesses:
    """(right, patients) of each class."""
    right = torch.cat([torch.arange(total) < hits for hits, total in right_of])
    return Guesses(right, torch.repeat_interleave(torch.tensor([total for _, total in right_of])))


def test_films_of_a_patient_are_joined() -> None:
    """Patient 4: .9 + .3 for class 0 beats .1 + .7; patient 8 has two classes; patient 2 is guessed wrong."""
    films = ImageSet(
        torch.zeros(5, 1, 1, 1),
        torch.tensor([0, 0, 1, 0, 1]),
        torch.tensor([4, 4, 8, 8, 2]),
        ("a", "b"),
        "toy",
        "train",
        (0.5,),
        (0.25,),
    )
    first = torch.tensor([0.9, 0.3, 0.2, 0.6, 0.8])
    found = Guesses.of(torch.stack([first, 1 - first], 1), films)
    told = {(int(label), bool(right)) for label, right in zip(found.label, found.right, strict=True)}
    assert len(found.right) == 4 and told == {(0, True), (1, True), (1, False)}


def test_one_class_has_wilsons_interval() -> None:
    found = standardised_rate(guesses((18, 25)), torch.ones(1))
    low, high = binomtest(18, 25).proportion_ci(method="wilson")
    assert found.value == pytest.approx((low + high) / 2) and found.error == pytest.approx((high - low) / 2)
    assert found.patients == 25


def test_classes_are_weighted_by_the_holdouts_mix() -> None:
    """.9 of class 0 and .5 of class 1 at weights .25 and .75: .6; effective patients 1 / (.25²/100 + .75²/20)."""
    found = standardised_rate(guesses((90, 100), (10, 20)), torch.tensor([0.25, 0.75]))
    effective, z = 1 / (0.0625 / 100 + 0.5625 / 20), 1.959964
    centre = (0.6 * effective + z**2 / 2) / (effective + z**2)
    error = z / (effective + z**2) * math.sqrt(effective * 0.24 + z**2 / 4)
    assert found.value == pytest.approx(centre) and found.error == pytest.approx(error, rel=1e-5)


def test_the_risk_is_giomis() -> None:
    """Rates and propagated errors as the paper's, written out for 90 of 100 against 160 of 200."""

    def rate(hits: int, total: int) -> tuple[float, float]:
        low, high = binomtest(hits, total).proportion_ci(method="wilson")
        return (low + high) / 2, (high - low) / 2

    (r, dr), (c, dc) = rate(90, 100), rate(160, 200)
    found = risk(guesses((90, 100)), guesses((160, 200)))
    value = (r - c) / (1 - c)
    error = math.hypot(dr / (1 - c), dc * (r - 1) / (1 - c) ** 2)
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((value - error, value + error))


def test_another_mix_alone_is_no_risk() -> None:
    """Training patients are mostly of the easy class: 74 % against 66 % right, yet each class is guessed alike."""
    train, holdout = guesses((720, 800), (100, 200)), guesses((360, 400), (250, 500))
    assert train.right.float().mean() > holdout.right.float().mean() + 0.05
    assert risk(train, holdout).value == pytest.approx(0, abs=0.01)


def test_the_mix_is_the_holdouts() -> None:
    """Class 0 leaks (.9 against .5), class 1 does not (.6): at the holdout's 1 to 3 r is .675 and r_control .575."""
    found = risk(guesses((8100, 9000), (600, 1000)), guesses((500, 1000), (1800, 3000)))
    assert found.attack.value == pytest.approx(0.675, abs=1e-3)
    assert found.value == pytest.approx(0.1 / 0.425, abs=2e-3)


def judged(train: Guesses, holdout: Guesses) -> Check:
    return judge(train, holdout, generator(0, "judge"))


def test_verdicts() -> None:
    """At 50 % right 20,000 patients a side bound the risk by .02, 60 a side cannot tell; 70 against 50 % is a leak."""
    many = judged(guesses((10_000, 20_000)), guesses((10_000, 20_000)))
    assert many.verdict == "pass" and many.power == 1 and many.interval is not None and many.interval[1] < 0.03
    few = judged(guesses((30, 60)), guesses((30, 60)))
    assert few.verdict == "inconclusive" and few.power is not None and few.power < 0.5
    assert "949 patients on each side" in few.explanation
    leak = judged(guesses((1400, 2000)), guesses((1000, 2000)))
    assert leak.verdict == "fail" and leak.statistic["risk"] == pytest.approx(0.4, abs=0.01)
    small = judged(guesses((10_400, 20_000)), guesses((10_000, 20_000)))
    assert small.verdict == "pass" and small.interval is not None and 0 < small.interval[0] < small.interval[1] < 0.09


def test_strangers_guessed_better_are_no_pass_without_power() -> None:
    """35 % right against 60 %: the upper bound is negative, but a leak of a fifth would not show either."""
    found = judge(guesses((35, 100)), guesses((60, 100)), generator(0, "judge"))
    assert found.interval is not None and found.interval[1] < 0.09
    assert found.power is not None and found.power < 0.8 and found.verdict == "inconclusive"


def test_patients_needed_give_just_the_limit() -> None:
    count = patients_needed(0.5)
    assert count == int(2 * 1.959964**2 / 0.0081) + 1
    half = guesses((count // 2, count))
    assert risk(half, half).high == pytest.approx(0.09, abs=0.001)


def test_controls_see_what_is_planted_and_nothing_else() -> None:
    holdout = guesses((140, 200), (100, 200))
    found = judged(guesses((280, 400), (200, 400)), holdout)
    assert isinstance(found.positive_control, dict) and isinstance(found.negative_control, dict)
    assert found.positive_control["power"] == found.power and found.positive_control["planted"] == 200
    assert found.positive_control["all_revealed"]["interval"][0] > 0.9
    assert found.negative_control["fired"] <= 0.05
    assert found.negative_control["mean_risk"] == pytest.approx(0, abs=0.03)
    lonely = judged(guesses((5, 10), (5, 10)), guesses((5, 10), (1, 1)))
    assert lonely.negative_control == "none: a class with one holdout patient cannot be halved"


def test_power_grows_with_the_patients() -> None:
    power = [judged(guesses((n // 2, n)), guesses((n // 2, n))).power or 0 for n in (50, 150, 600)]
    assert power[0] < power[1] < power[2] and power[0] < 0.6 and power[2] > 0.95


def test_a_firing_negative_control_is_inconclusive() -> None:
    found = risk(guesses((10_000, 20_000)), guesses((10_000, 20_000)))
    assert module._judge(found, 9, {"power": 1.0}, {"fired": 0.05})[0] == "pass"
    assert module._judge(found, 9, {"power": 1.0}, {"fired": 0.2})[0] == "inconclusive"


def coloured(patients: int, seed: int, secret: bool, split: str) -> ImageSet:
    """Films whose left half tells the class of half of the patients; with `secret` a corner tells that of all."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.arange(patients) % 2
    images = 0.5 + 0.05 * torch.randn(patients, 1, 16, 16, generator=source)
    told = torch.rand(patients, generator=source) < 0.5
    images[:, :, :, :8] += (0.3 * (labels * 2 - 1) * told).view(-1, 1, 1, 1)
    if secret:
        images[:, :, 8:, 8:] += (0.4 * (labels * 2 - 1)).view(-1, 1, 1, 1)
    return ImageSet(images, labels, torch.arange(patients), ("a", "b"), "toy", split, (0.5,), (0.25,))


@pytest.mark.parametrize(("secret", "verdicts"), [(False, {"pass", "inconclusive"}), (True, {"fail"})])
def test_students_of_the_set_attack(candidate: Callable[..., Candidate], secret: bool, verdicts: set[str]) -> None:
    """A set that teaches a mark of the training films alone gives their diagnoses away."""
    train, holdout = coloured(300, 0, secret, "train"), coloured(300, 1, False, "test")
    made = candidate(train.images[:8]).distilled
    release = replace(
        made,
        labels=torch.eye(2)[train.labels[:8]],
        classes=train.classes,
        architecture=replace(made.architecture, classes=2),
        lr=0.1,
    )
    config = Config(evaluate=Evaluate(steps=60, seeds=1, augment=[]), compile="never")
    found = check(Candidate(release), Private(train, holdout, config)).check
    assert found.verdict in verdicts and found.number == 8
    json.dumps(found.to_json(), allow_nan=False)
    if secret:
        assert found.statistic["risk"] > 0.3


def test_no_common_class_does_not_apply(
    candidate: Callable[..., Candidate], private: Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attack(distilled: Any, config: Any, films: list[ImageSet], device: Any) -> list[Tensor]:
        return [torch.eye(3)[each.labels] for each in films]

    monkeypatch.setattr(module, "_attack", attack)

    def only(films: ImageSet, label: int) -> ImageSet:
        here = films.labels == label
        return replace(films, images=films.images[here], labels=films.labels[here], groups=films.groups[here])

    apart = replace(private, train=only(private.train, 0), holdout=only(private.holdout, 1))
    assert check(candidate(torch.zeros(3, 1, 32, 32)), apart).check.verdict == "not applicable"
    shared = replace(private, train=private.train, holdout=only(private.holdout, 1))
    found = check(candidate(torch.zeros(3, 1, 32, 32)), shared).check
    assert found.statistic["training"]["patients"] == 20 and found.statistic["holdout"]["patients"] == 15
