"""Check 3: shares and AUC by hand, planted copies, and halves of the holdout."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.stats import binom, binomtest
from torch import Tensor

from medistill.audit import closest_record as module
from medistill.audit.check import Candidate, Check, Private
from medistill.audit.closest_record import Records, check, closeness_auc, judge, nearest_share, to_equal_numbers
from medistill.audit.nearest import planted_copies
from medistill.data.imageset import ImageSet
from medistill.seeds import generator


def cohort(labels: list[int], groups: list[int]) -> ImageSet:
    images = torch.zeros(len(labels), 1, 1, 1)
    return ImageSet(images, torch.tensor(labels), torch.tensor(groups), ("a", "b"), "toy", "train", (0.5,), (0.25,))


def records(trained: int, held: int) -> Records:
    """So many patients of one class with one film each, the trained first."""
    side = torch.arange(trained + held) < trained
    return Records(torch.arange(trained + held), torch.zeros(trained + held, dtype=torch.int64), side)


def test_patients_are_told_apart_by_side_and_class() -> None:
    """Number 7 is used by both sides, and holdout patient 7 has films of both classes."""
    found = Records.of(cohort([0, 0, 1], [5, 5, 7]), cohort([0, 1, 1], [7, 7, 9]))
    assert len(found.label) == 5 and found.trained.sum() == 2
    assert found.unit[0] == found.unit[1] and len(found.unit.unique()) == 5
    assert found.trained[found.unit].tolist() == [True] * 3 + [False] * 3
    assert found.label[found.unit].tolist() == [0, 0, 1, 0, 1, 1]
    assert found.chance()[found.unit].tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 2, 1 / 3, 1 / 3])
    held = found.holdout()
    assert held.unit.tolist() == [0, 1, 2] and held.label.tolist() == [0, 1, 1] and not held.trained.any()


def test_share_by_hand() -> None:
    """6 trained and 2 held: of nearest films 0, 0, 3, 7 three patients are left, two of them trained; chance 6/8."""
    scores = torch.zeros(4, 8)
    scores[range(4), [0, 0, 3, 7]] = 1
    found = nearest_share(scores, records(6, 2))
    low, high = binomtest(2, 3).proportion_ci(method="exact")
    assert (found["images"], found["patients"], found["trained"], found["chance"]) == (3, 3, 2, 0.75)
    assert found["share"] == pytest.approx((2 / 3 / 0.75) / (2 / 3 / 0.75 + 1 / 3 / 0.25))
    assert found["interval"] == pytest.approx([to_equal_numbers(low, 0.75), to_equal_numbers(high, 0.75)])


def test_chance_becomes_a_half_and_the_ends_stay() -> None:
    assert [to_equal_numbers(x, 0.7) for x in (0.0, 0.7, 1.0)] == pytest.approx([0, 0.5, 1])
    assert to_equal_numbers(0.2, 0.5) == pytest.approx(0.2)
    assert to_equal_numbers(1.0, 1.0) == 0.5


def test_the_share_of_equal_sets_is_recovered_from_unequal_ones() -> None:
    """Films are nearest with weight 3 if trained, else 1: with equal numbers .75, whatever the numbers are."""
    for trained, held in ((100, 100), (300, 100), (50, 200)):
        seen = 3 * trained / (3 * trained + held)
        assert to_equal_numbers(seen, trained / (trained + held)) == pytest.approx(0.75)


def test_auc_of_patients_by_hand() -> None:
    """Two trained patients with two films (means 2 and 4), two held with one (1 and 3): AUC 3/4."""
    unit = torch.tensor([0, 0, 1, 1, 2, 3])
    found = Records(unit, torch.zeros(4, dtype=torch.int64), torch.tensor([True, True, False, False]))
    scores = torch.tensor([[1.0, 3, 4, 0, 1, 3], [0.0, 0, 0, 4, 1, 0]])
    assert closeness_auc(scores, found)["auc"] == 0.75


def audited(leaks: int, images: int, trained: int = 120, held: int = 60, blind: int = 0) -> Check:
    """So many images lie on a trained film of their own, the rest anywhere; 20 copies, the last of them misplaced."""
    source = generator(0, "toy")
    scores = torch.rand(images + 20, trained + held, generator=source)
    copies = torch.arange(images, images + 20 - blind)
    scores[torch.arange(leaks), torch.arange(leaks)] = 2
    scores[copies, copies - images] = 2
    scores[images + 20 - blind :, trained:] += 1
    return judge(scores[:images], scores[images:], records(trained, held), generator(0, "halves"))


def test_a_clean_set_passes_with_power() -> None:
    found = audited(0, 40)
    assert found.verdict == "pass" and found.power is not None and found.power > 0.99
    assert (
        found.statistic["nearer_to_training"]["interval"][0]
        < 0.5
        < found.statistic["nearer_to_training"]["interval"][1]
    )
    assert isinstance(found.negative_control, dict) and found.negative_control["halves"] == module.HALVES
    assert found.negative_control["mean_auc"] == pytest.approx(0.5, abs=0.03)
    assert found.negative_control["mean_share"] == pytest.approx(0.5, abs=0.05)
    assert found.negative_control["share_fired"] <= 0.07 and found.negative_control["auc_fired"] <= 0.1


def test_a_leak_is_told_but_never_fails() -> None:
    found = audited(40, 40)
    assert found.verdict == "inconclusive" and "not lie equally near" in found.explanation
    assert found.interval is not None and found.interval[0] > 0.5
    assert found.statistic["nearer_to_training"]["trained"] == 40


def test_power_is_the_chance_of_as_many_copies_to_move_the_interval() -> None:
    """14 of 20 copies lie on training films; 12 images need 12 hits (.7 ** 12 at chance 2/3: lower bound .735)."""
    found = audited(0, 12, blind=6)
    assert binomtest(12, 12).proportion_ci().low > 2 / 3 > binomtest(11, 12).proportion_ci().low
    assert found.power == pytest.approx(binom.pmf(12, 12, 0.7)) and found.verdict == "inconclusive"


def test_too_few_images_cannot_speak() -> None:
    found = audited(9, 9)
    needed = found.statistic["images_needed"]
    assert needed == 10 and 0.025 ** (1 / 10) > 2 / 3 > 0.025 ** (1 / 9)
    assert found.verdict == "not applicable" and "9 images" in found.explanation


def test_three_holdout_patients_cannot_be_halved() -> None:
    found = audited(0, 4, trained=30, held=3)
    assert found.negative_control == "none: fewer than 4 holdout patients cannot be halved"


def test_films_of_strangers_and_planted_copies(
    candidate: Callable[..., Candidate], private: Private, films: Callable[..., Tensor], tmp_path: Path
) -> None:
    # ten training patients in thirty leave the holdout the larger side, so that few images suffice
    few = replace(
        private,
        train=replace(
            private.train,
            images=private.train.images[:40],
            labels=private.train.labels[:40],
            groups=private.train.groups[:40],
        ),
    )
    clean = check(candidate(films(24, "strangers")), few)
    assert clean.check.verdict == "pass" and clean.check.power is not None and clean.check.power >= 0.8
    text = json.dumps(clean.check.to_json(), allow_nan=False)
    assert not any(word in text for word in ("index", "path", "group"))
    (figure,) = clean.figures
    figure.draw(tmp_path / figure.name)
    with Image.open(tmp_path / figure.name) as image:
        assert image.size == (960, 600)
    assert not figure.shows_patients
    copies, _ = planted_copies(few.train.images, 24, generator(0, "leak"))
    leak = check(candidate(copies), few).check
    assert leak.verdict == "inconclusive" and leak.interval is not None and leak.interval[0] > 0.5
    assert leak.statistic["auc"]["interval"][0] > 0.5
