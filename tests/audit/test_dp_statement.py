"""Oracles: the Gaussian formula on hand-made ledgers, a ledger that the trainer's account wrote, planted faults."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from medistill.audit import dp_statement
from medistill.audit.check import Candidate, Outcome
from medistill.audit.dp_statement import agree, statement_check
from medistill.config import Experts, Private
from medistill.experts.accountant import Spent, gaussian_epsilon, spent
from medistill.experts.ledger import FILE, Entry, Ledger, Noise, Terms
from medistill.report import tradeoff

EXPERTS, STEPS, PATIENTS = 8, 20, 1000
TERMS = Terms("patient", PATIENTS, 3.0, 1e-4, 1.0, 1.0, EXPERTS, STEPS, 5, 0.0)
SIGMA = 16.0
EXACT = gaussian_epsilon(math.sqrt(EXPERTS * STEPS) / SIGMA, TERMS.delta)  # 2.884, and 2.893 by PRV


def ledger(terms: Terms = TERMS, sigma: float = SIGMA, experts: int = EXPERTS, **recorded: float) -> dict[str, Any]:
    entries = [Entry(f"expert {i}", 0, STEPS, sigma, terms.rate) for i in range(experts)]
    found = spent([entry.mechanism for entry in entries], terms.delta)
    cost = {"epsilon": found.prv, "epsilon_rdp": found.rdp, "delta": terms.delta} | recorded
    return {"terms": asdict(terms), "entries": [asdict(entry) for entry in entries], "spent": cost}


def test_an_account_that_adds_up_passes() -> None:
    outcome = statement_check(ledger(), used=EXPERTS)
    check = outcome.check
    found = check.statistic
    assert check.verdict == "pass", check.explanation
    assert found["epsilon_gaussian"] == pytest.approx(EXACT)
    assert EXACT <= found["epsilon"] <= 1.02 * EXACT and found["epsilon"] <= found["epsilon_rdp"]
    assert (found["unit"], found["accountant"], found["experts"]) == ("patient", "PRV", EXPERTS)
    assert found["releases"] == EXPERTS * STEPS and found["delta"] <= found["delta_limit"] == 1 / (10 * PATIENTS)
    mu = math.sqrt(EXPERTS * STEPS) / SIGMA
    for fpr, tpr in found["max_tpr"].items():
        assert tpr == pytest.approx(norm.cdf(norm.ppf(float(fpr)) + mu))
    assert isinstance(check.positive_control, dict) and isinstance(check.negative_control, dict)
    assert check.positive_control["epsilon"] == pytest.approx(gaussian_epsilon(2 * mu, TERMS.delta), rel=0.02)
    assert check.positive_control["caught"] and check.power == 1
    assert 1 <= check.negative_control["rdp_over_prv"] <= 1.2
    assert check.negative_control["prv_over_gaussian"] == pytest.approx(1, abs=0.02)
    assert f"finds {100 * norm.cdf(norm.ppf(0.01) + mu):.3g} % of the members at most" in check.explanation
    json.dumps(check.to_json(), allow_nan=False)


def test_an_expert_may_be_charged_in_parts() -> None:
    record = ledger()
    first = record["entries"].pop(0)
    record["entries"] += [first | {"steps": 12}, first | {"first": 12, "steps": STEPS - 12}]
    assert statement_check(record, EXPERTS).check.verdict == "pass"


def test_image_level_is_said_with_the_group_factor() -> None:
    check = statement_check(ledger(replace(TERMS, unit="image"))).check
    assert check.verdict == "pass" and "not patient: k images of one patient have k times epsilon" in check.explanation


@pytest.mark.parametrize(
    ("record", "used", "fault"),
    [
        (ledger(sigma=SIGMA / math.sqrt(EXPERTS)), EXPERTS, "3 was promised"),
        (ledger(epsilon=2.5), EXPERTS, "the ledger records epsilon 2.5"),
        (ledger(replace(TERMS, patients=1001)), EXPERTS, "above 1 / (10 patients)"),
        (ledger(experts=7), EXPERTS, "8 experts were used, 7 are charged in full"),
        (ledger(replace(TERMS, steps=STEPS + 1)), 1, "1 experts were used, 0 are charged in full"),
        (ledger(experts=0), 0, "no expert is charged in full"),
        (ledger(replace(TERMS, unit="film")), EXPERTS, "the unit, film, is neither"),  # type: ignore[arg-type]
        (ledger(sigma=0.0), EXPERTS, "spend epsilon inf"),
    ],
)
def test_a_false_account_fails(record: dict[str, Any], used: int, fault: str) -> None:
    check = statement_check(record, used).check
    assert check.verdict == "fail" and fault in check.explanation
    json.dumps(check.to_json(), allow_nan=False)


def test_what_was_drawn_again_and_what_else_was_drawn_is_counted() -> None:
    """An aborted expert's steps and class means, on top of what alone kept the promise."""
    more = [Entry("expert 0", 10, 30, SIGMA, 1.0), Entry("class means", 0, 1, 4.0, 1.0)]
    record = ledger()
    record["entries"] += [asdict(entry) for entry in more]
    check = statement_check(record, EXPERTS).check
    mu = math.sqrt((EXPERTS * STEPS + 30) / SIGMA**2 + 1 / 16)
    assert check.statistic["epsilon_gaussian"] == pytest.approx(gaussian_epsilon(mu, TERMS.delta))
    assert check.verdict == "fail" and "was promised" in check.explanation


def test_much_too_much_noise_proves_little() -> None:
    check = statement_check(ledger(sigma=4 * SIGMA), EXPERTS).check
    assert check.verdict == "inconclusive" and check.power == 0


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Spent(1e-5, 3.0, 3.3, 2.99), True),
        (Spent(1e-5, 3.0, 3.3, None), True),
        (Spent(1e-5, 3.0, 2.99, None), False),
        (Spent(1e-5, 3.0, 3.61, None), False),
        (Spent(1e-5, 3.0, 3.3, 2.9), False),
        (Spent(1e-5, 3.0, 3.3, 3.1), False),
    ],
)
def test_when_the_accountants_agree(found: Spent, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agree(found) is expected
    record = ledger()
    monkeypatch.setattr(dp_statement, "spent", lambda mechanisms, delta: found)
    record["spent"]["epsilon"] = found.prv
    monkeypatch.setattr(dp_statement, "_judge", _with_a_planted_leak_caught(dp_statement._judge))
    assert statement_check(record, EXPERTS).check.verdict == ("pass" if expected else "inconclusive")


def _with_a_planted_leak_caught(judge: Any) -> Any:
    return lambda terms, found, faults, caught, shown: judge(terms, found, faults, True, shown)


def test_the_check_reads_the_ledger_that_training_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subsampled, with one row drawn twice: the account's own file passes; with an expert more it fails."""
    monkeypatch.setattr(Noise, "solve", lambda terms: Noise(2.3))
    settings = Experts(count=2, private=Private(epsilon=4, steps=200, rows=2, rate=0.1, reserve=100))
    with Ledger.open(tmp_path, Terms.of(settings, 200, "patient")) as account:
        for expert, first in ((0, 0), (0, 0), (0, 100), (1, 0), (1, 100)):
            account.charge_steps(expert, first, 100)
    record = json.loads((tmp_path / FILE).read_text())
    chosen: Any = None

    def checked(candidate: Candidate, experts: int) -> Outcome:
        house: Any = SimpleNamespace(trajectories=range(experts))
        return dp_statement.check(candidate, house)

    check = checked(Candidate(chosen, record), 2).check
    assert check.verdict == "pass", check.explanation
    assert check.statistic["releases"] == 500 and check.statistic["experts"] == 2
    assert 3.5 < check.statistic["epsilon"] <= 4 and check.statistic["epsilon_gaussian"] is None
    assert checked(Candidate(chosen, record), 3).check.verdict == "fail"
    none = checked(Candidate(chosen), 2).check
    assert none.verdict == "not applicable" and "no formal guarantee" in none.explanation


def test_the_figure_shows_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(tradeoff, "save_figure", lambda figure, path: drawn.append(figure))
    (picture,) = statement_check(ledger(), EXPERTS).figures
    assert picture.name == "tradeoff.png" and not picture.shows_patients
    picture.draw(tmp_path / picture.name)
    (panel,) = drawn[0].axes
    bound, chance = panel.lines
    fpr, tpr = np.asarray(bound.get_xdata()), np.asarray(bound.get_ydata())
    mu = math.sqrt(EXPERTS * STEPS) / SIGMA
    assert tpr == pytest.approx(norm.cdf(norm.ppf(fpr) + mu))
    assert np.array_equal(chance.get_xdata(), chance.get_ydata())
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert "epsilon 2.89, delta 0.0001" in bound.get_label()


def test_the_figure_is_a_picture_of_the_same_bytes(tmp_path: Path) -> None:
    (picture,) = statement_check(ledger(), EXPERTS).figures
    for name in ("one.png", "two.png"):
        picture.draw(tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes() != b""
