"""Check 0: everything that went into the set is listed, and a false record does not pass."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from medistill.audit.check import Candidate, Check, Private
from medistill.audit.provenance import NO_GUARANTEE, check
from medistill.data.zca import Zca

PICTURES = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
LEDGER = {"terms": {}, "entries": [{"what": "expert 0"}]}
MEANS = {"terms": {}, "entries": [{"what": "expert 0"}, {"what": "class means"}]}


def listed(candidate: Callable[..., Candidate], private: Private, ledger: Any = None, **record: Any) -> Check:
    return check(replace(candidate(PICTURES, **record), ledger=ledger), private).check


@pytest.mark.parametrize(("start", "origin"), [("noise", "noise"), ("phantom", "public")])
def test_a_public_start_passes_but_promises_nothing(
    candidate: Callable[..., Candidate], private: Private, start: str, origin: str
) -> None:
    found = listed(candidate, private, start=start)
    assert found.verdict == "pass" and found.number == 0
    assert found.statistic == {
        "start": start,
        "start_from": origin,
        "statistics_of_real_films": [],
        "selection": "fixed beforehand",
        "ledger": False,
        "contradictions": [],
        "label": NO_GUARANTEE,
    }
    assert NO_GUARANTEE in found.explanation
    assert found.positive_control == found.negative_control == "none: a list has nothing to plant"
    json.dumps(found.to_json(), allow_nan=False)


def test_a_ledger_gives_the_label_of_a_guarantee(candidate: Callable[..., Candidate], private: Private) -> None:
    found = listed(candidate, private, LEDGER)
    assert found.verdict == "pass" and found.statistic["label"].startswith("differential privacy")
    paid = listed(candidate, private, MEANS, start="private_means")
    assert paid.verdict == "pass" and paid.statistic["start_from"] == "paid for"
    assert paid.statistic["label"].startswith("differential privacy")


@pytest.mark.parametrize(
    ("record", "direct"),
    [
        ({"start": "real"}, "start from films"),
        ({"start": "class_mean"}, "class means"),
        ({"start": "something new"}, "start from films"),
        ({"selected": "best of 10 on the validation films"}, "selection on real films"),
    ],
)
def test_what_patients_gave_directly_needs_a_decision_and_breaks_a_guarantee(
    candidate: Callable[..., Candidate], private: Private, record: dict[str, Any], direct: str
) -> None:
    found = listed(candidate, private, **record)
    assert found.verdict == "inconclusive" and direct in found.explanation
    assert found.statistic["label"] == NO_GUARANTEE
    broken = listed(candidate, private, LEDGER, **record)
    assert broken.verdict == "fail" and direct in broken.explanation
    assert broken.statistic["label"] == NO_GUARANTEE


@pytest.mark.parametrize(("name", "record"), [("start", {"start": None}), ("selection", {"selected": None})])
def test_a_gap_in_the_record_is_inconclusive(
    candidate: Callable[..., Candidate], private: Private, name: str, record: dict[str, Any]
) -> None:
    found = listed(candidate, private, **record)
    assert found.verdict == "inconclusive" and f"does not name the {name}" in found.explanation
    assert listed(candidate, private, LEDGER, **record).statistic["label"] == NO_GUARANTEE


def test_a_false_record_fails(candidate: Callable[..., Candidate], private: Private) -> None:
    known = replace(private, start=torch.arange(3))
    assert listed(candidate, known, start="noise").verdict == "fail"
    assert listed(candidate, known, start="real").verdict == "inconclusive"
    assert listed(candidate, private, start="private_means").verdict == "fail"
    unpaid = listed(candidate, private, LEDGER, start="private_means")
    assert unpaid.verdict == "fail" and "does not charge" in unpaid.explanation


def test_statistics_of_the_films_are_found_though_the_record_is_silent(
    candidate: Callable[..., Candidate], private: Private
) -> None:
    made, films = candidate(PICTURES), private.train.images
    own = replace(made.distilled, mean=(round(films.mean().item(), 4),), std=(round(films.std().item(), 4),))
    found = check(Candidate(own), private).check
    assert found.verdict == "inconclusive" and "own mean and deviation" in found.explanation
    half = replace(own, mean=(0.5,))
    assert check(Candidate(half), private).check.verdict == "pass"
    matrix = torch.eye(1024)
    whitened = replace(made.distilled, zca=Zca(torch.zeros(1024), matrix, matrix, "digest"))
    found = check(Candidate(whitened), private).check
    assert found.verdict == "inconclusive" and found.statistic["statistics_of_real_films"] == ["ZCA whitening"]


def test_a_convention_that_lies_near_by_chance_is_no_statistic(
    candidate: Callable[..., Candidate], private: Private
) -> None:
    films = private.train.images
    images = 0.5 + (films - films.mean()) / films.std() * 0.25
    near = replace(private, train=replace(private.train, images=images))
    assert check(candidate(PICTURES), near).check.verdict == "pass"
