"""Check 2: ranks by hand, planted start films, and silence that proves nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from medistill.audit import seed_reidentification as module
from medistill.audit.check import Candidate, Check, Private
from medistill.audit.seed_reidentification import check, judge, patient_ranks
from medistill.data.imageset import ImageSet
from medistill.seeds import generator


def cohort(labels: list[int], groups: list[int]) -> ImageSet:
    images = torch.zeros(len(labels), 1, 1, 1)
    return ImageSet(images, torch.tensor(labels), torch.tensor(groups), ("a", "b"), "toy", "train", (0.5,), (0.25,))


def test_ranks_by_hand() -> None:
    """Class a: patients 5 (films 0, 1), 7 (2), 9 (3); class b: patient 5 again (4), 11 (5, 6)."""
    films = cohort([0, 0, 0, 0, 1, 1, 1], [5, 5, 7, 9, 5, 11, 11])
    scores = torch.tensor(
        [
            [0.1, 0.8, 0.5, 0.9, 9.0, 9.0, 9.0],  # of 5, 7, 9 the best are .8, .5, .9; class b plays no part
            [0.1, 0.8, 0.5, 0.9, 9.0, 9.0, 9.0],
            [0.1, 0.8, 0.9, 0.9, 0.0, 0.0, 0.0],  # 7 and 9 are equal: the start's patient comes last
            [0.0, 0.0, 0.0, 0.0, 0.3, 0.2, 0.1],  # in class b patient 5 has film 4 alone
        ]
    )
    ranks = patient_ranks(scores, torch.tensor([0, 3, 2, 4]), films)
    assert ranks.rank.tolist() == [2, 1, 2, 1] and ranks.patients.tolist() == [3, 3, 3, 2]
    assert ranks.hits(1) == 2 and ranks.hits(2) == 4
    assert ranks.chance(1) == pytest.approx((3 * 1 / 3 + 1 / 2) / 4)
    assert ranks.chance(5) == 1


def test_an_image_like_no_film_is_no_hit() -> None:
    films = cohort([0] * 4, [0, 1, 2, 3])
    assert patient_ranks(torch.zeros(1, 4), torch.tensor([2]), films).rank.tolist() == [4]


def toy(hits: int, images: int, patients: int = 200, caught: int = 20) -> Check:
    """An audit in which so many starts, and sources of 20 planted copies, are the most alike."""
    films = cohort([0] * patients, list(range(patients)))
    start, origin = torch.arange(images), torch.arange(20)
    random = torch.rand(images + 20, patients, generator=generator(0, "toy"))
    scores, of_copies = random[:images], random[images:]
    # the others lie in the middle, far from the first
    scores.scatter_(1, start[:, None], torch.where(torch.arange(images) < hits, 2.0, 0.5)[:, None])
    of_copies.scatter_(1, origin[:, None], torch.where(origin < caught, 2.0, 0.5)[:, None])
    return judge(scores, start, of_copies, origin, films, generator(0, "negative"))


@pytest.mark.parametrize(
    ("hits", "images", "verdict"), [(1, 4, "fail"), (0, 4, "pass"), (1, 40, "pass"), (2, 40, "fail")]
)
def test_the_rule_is_the_exact_lower_bound_against_chance(hits: int, images: int, verdict: str) -> None:
    """1 of 4: lower bound .0063 above chance 1/200; 1 of 40: .0006 below; 2 of 40: .0061 above."""
    found = toy(hits, images)
    low = binomtest(hits, images).proportion_ci(method="exact").low
    assert found.verdict == verdict == ("fail" if low > 1 / 200 else "pass")
    assert found.interval is not None and found.interval[0] == pytest.approx(low)
    assert found.statistic["rank_1"]["hits"] == hits and found.statistic["rank_1"]["chance"] == pytest.approx(1 / 200)
    assert found.statistic["top_5"]["chance"] == pytest.approx(5 / 200)
    assert found.statistic["film_itself"] == {"hits": hits, "chance": 1 / 200}


def test_the_mean_rank_share_is_a_half_by_chance_and_near_0_when_all_are_named() -> None:
    assert toy(4, 4).statistic["mean_rank_share"] == pytest.approx(0.5 / 200)
    assert toy(0, 40).statistic["mean_rank_share"] == pytest.approx(0.5, abs=0.05)


def test_top_five_alone_is_enough() -> None:
    films = cohort([0] * 200, list(range(200)))
    scores = torch.rand(6, 200, generator=generator(0, "toy"))
    start = torch.arange(6)
    scores[:, 100:103] = 2.0
    scores[start[:3], start[:3]] = 1.5  # fourth of their row
    found = judge(scores, start, torch.eye(200)[:20], torch.arange(20), films, generator(0, "negative"))
    assert found.statistic["rank_1"]["hits"] == 0 and found.statistic["top_5"]["hits"] == 3
    assert found.statistic["film_itself"]["hits"] == 0
    assert found.verdict == "fail"


def test_silence_of_a_blind_search_is_inconclusive() -> None:
    found = toy(0, 10, caught=15)
    assert found.verdict == "inconclusive" and found.power == 0.75
    assert toy(3, 10, caught=15).verdict == "fail"


def test_too_few_patients_are_inconclusive() -> None:
    """With 20 candidates even 2 of 2 (lower bound .16) exceed chance; with one image of 20 candidates none does."""
    films = cohort([0] * 20, list(range(20)))
    scores = torch.rand(1, 20, generator=generator(0, "toy"))
    found = judge(scores, torch.tensor([3]), torch.eye(20), torch.arange(20), films, generator(0, "n"))
    assert found.verdict == "inconclusive" and "cannot tell" in found.explanation


def test_a_firing_negative_control_is_inconclusive() -> None:
    def counted(low: float) -> dict[str, Any]:
        return {"hits": 0, "interval": [low, 0.5], "chance": 0.1}

    positive = {"planted": 20, "named": 20, "power": 1.0}
    assert module._judge(counted(0.0), counted(0.0), 9, True, positive, {"fired": False})[0] == "pass"
    assert module._judge(counted(0.0), counted(0.0), 9, True, positive, {"fired": True})[0] == "inconclusive"
    assert module._judge(counted(0.0), counted(0.0), 9, True, positive, "none: one patient")[0] == "pass"


def test_false_starts_are_named_by_chance_alone() -> None:
    control = toy(4, 4).negative_control
    assert isinstance(control, dict) and control["drawn"] == 100 and not control["fired"]
    assert control["hits"] <= 3
    alone = cohort([0, 1], [3, 3])
    assert isinstance(module._negative_control(torch.eye(2), torch.arange(2), alone, generator(0, "n")), str)


def test_planted_starts_are_caught_and_changed_ones_too(
    candidate: Callable[..., Candidate], private: Private, films: Callable[..., Tensor]
) -> None:
    start = torch.tensor([0, 2, 4, 18, 20, 22])
    known = replace(private, start=start)
    changed = private.train.images[start] + 0.6 * (films(6, "change") - 0.5)
    found = check(candidate(changed, "real"), known).check
    assert found.verdict == "fail" and found.statistic["rank_1"]["hits"] >= 5
    assert found.power is not None and found.power >= 0.8
    text = json.dumps(found.to_json(), allow_nan=False)
    assert not any(word in text for word in ("index", "path", "group"))


def test_forgotten_starts_pass(
    candidate: Callable[..., Candidate], private: Private, films: Callable[..., Tensor]
) -> None:
    known = replace(private, start=torch.tensor([0, 2, 4, 18, 20, 22]))
    found = check(candidate(films(6, "strangers"), "real"), known).check
    assert found.verdict == "pass" and found.statistic["rank_1"]["hits"] <= 1


def test_without_start_films_it_does_not_apply(candidate: Callable[..., Candidate], private: Private) -> None:
    found = check(candidate(torch.zeros(3, 1, 32, 32)), private).check
    assert found.verdict == "not applicable" and found.power is None
