"""The guarantee tested on the real trainer; oracles: the plan's own noise and rate, scipy's densities, planted faults.

Noise comes from the operating system, so every number here is random; the chance of a false alarm stands by each.
"""

import itertools
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

from medistill.audit import canaries
from medistill.audit.canaries import Plan, audit_run, canary_check, estimate, log_likelihood_ratio
from medistill.audit.check import Candidate
from medistill.experts import private
from medistill.experts.accountant import Mechanism, gaussian_epsilon, spent
from medistill.experts.ledger import Entry, Noise, Terms

EXPERTS, STEPS, PATIENTS = 8, 10, 1000
INCLUDED = np.arange(1200) % 2 == 0


def terms(epsilon: float = 3.0, rate: float = 1.0, **more: Any) -> Terms:
    chosen = {"unit": "patient", "delta": 0.1 / PATIENTS, "clip": 1.0, "experts": EXPERTS, "steps": STEPS}
    return Terms(epsilon=epsilon, rate=rate, patients=PATIENTS, **(chosen | {"reserve": 0, "means": 0.0} | more))


def plan(promise: Terms, sigma: float | None = None) -> Plan:
    noise = Noise.solve(promise).step if sigma is None else sigma
    return Plan(promise, noise, promise.rate, EXPERTS, STEPS)


@pytest.fixture(scope="module")
def honest() -> Plan:
    return plan(terms())


def test_without_noise_a_canary_adds_one_to_every_step_in_its_own_direction() -> None:
    """The films' gradients, spread over all directions, are all that is left besides."""
    found = audit_run(plan(terms(clip=0.7), sigma=0.0), INCLUDED, seed=0)
    steps = EXPERTS * STEPS
    assert found.total[INCLUDED] == pytest.approx(np.full(600, steps), abs=0.6 * steps)
    assert found.total[~INCLUDED] == pytest.approx(np.zeros(600), abs=0.6 * steps)
    assert found.total[INCLUDED].mean() == pytest.approx(steps, rel=0.03)
    assert np.array_equal(found.score, found.total)


def test_the_run_draws_the_plans_noise(honest: Plan) -> None:
    """sd of 600 totals: within 4 of its own standard errors (1 in 16,000)."""
    found = audit_run(honest, INCLUDED, seed=0)
    expected = math.sqrt(EXPERTS * STEPS) * honest.sigma
    assert found.total[~INCLUDED].std() == pytest.approx(expected, rel=4 / math.sqrt(1200))
    assert abs(found.total[INCLUDED].mean() - EXPERTS * STEPS) < 4 * expected / math.sqrt(600)


def test_at_a_rate_below_one_each_step_draws_who_takes_part() -> None:
    found = audit_run(plan(terms(rate=0.3), sigma=0.0), INCLUDED, seed=0)
    steps = EXPERTS * STEPS
    inside = found.total[INCLUDED]
    assert inside.mean() == pytest.approx(0.3 * steps, rel=0.05)
    assert inside.std() == pytest.approx(math.sqrt(0.3 * 0.7 * steps), rel=0.25)
    assert abs(found.total[~INCLUDED].mean()) < 1


def test_the_score_is_the_likelihood_ratio() -> None:
    source, rate, sigma = np.random.default_rng(0), 0.2, 1.5
    along = source.normal(size=(4, 3))
    mixed = (1 - rate) * norm.pdf(along, 0, sigma) + rate * norm.pdf(along, 1, sigma)
    expected = np.log(mixed / norm.pdf(along, 0, sigma)).sum(0)
    assert log_likelihood_ratio(along, rate, sigma) == pytest.approx(expected)
    for everybody in (log_likelihood_ratio(along, 1.0, sigma), log_likelihood_ratio(along, rate, 0.0)):
        assert everybody == pytest.approx(along.sum(0))


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_the_estimate_finds_the_noise_that_was_drawn(rate: float) -> None:
    """Totals drawn at a quarter of the plan's noise; its interval holds the truth and is as wide as it should."""
    source, promise = np.random.default_rng(3), terms(rate=rate)
    drawn, included = 5.0, np.arange(20_000) % 2 == 0
    steps = EXPERTS * STEPS
    taking = source.binomial(steps, rate, included.size) * included
    total = taking + source.normal(size=included.size) * drawn * math.sqrt(steps)
    low, middle, high = estimate(total, included, plan(promise, sigma=20.0), (-1.96, 0, 1.96))
    truth = spent([Mechanism(drawn, rate, steps)], promise.delta).prv
    assert low < truth < high and middle == pytest.approx(truth, rel=0.1)
    if rate == 1:
        mu = math.sqrt(steps) / drawn
        assert middle == pytest.approx(gaussian_epsilon(mu, promise.delta), rel=0.05)
        error = math.sqrt(2 / 10_000 + 1e-4 * mu**2 / 2)
        sides = [gaussian_epsilon(mu + side * error, promise.delta) for side in (-1.96, 1.96)]
        assert high - low == pytest.approx(sides[1] - sides[0], rel=0.1)
    nothing = source.normal(size=included.size)
    assert estimate(nothing - 0.1 * included, included, plan(promise, sigma=20.0), (-1, 1)) == [0, 0]


def test_honest_noise_keeps_the_promise(honest: Plan) -> None:
    """The bound lies near 1.4; over 3 it was in none of 3,000 simulations."""
    check = canary_check(honest, seed=0)
    found = check.statistic
    assert check.verdict == "pass", check.explanation
    assert found["canaries"] >= 1000 and 0 < found["epsilon_lower"] <= 3 < found["ceiling"] - 0.9
    assert check.interval is not None
    assert check.interval[0] <= found["epsilon_estimated"] <= check.interval[1]
    exact = gaussian_epsilon(math.sqrt(EXPERTS * STEPS) / honest.sigma, 1e-4)
    assert found["epsilon_estimated"] == pytest.approx(exact, rel=0.3)
    assert isinstance(check.positive_control, dict) and isinstance(check.negative_control, dict)
    assert check.positive_control["right"] == found["guesses"] and check.power == 1
    assert check.positive_control["epsilon_lower"] == found["ceiling"]
    chance = binomtest(check.negative_control["right"], found["guesses"], 0.5).pvalue
    assert check.negative_control["p"] == pytest.approx(chance)
    json.dumps(check.to_json(), allow_nan=False)


def test_without_noise_the_bound_is_at_the_ceiling(honest: Plan) -> None:
    check = canary_check(replace(honest, sigma=0.0), seed=0)
    assert check.verdict == "fail" and check.statistic["right"] == check.statistic["guesses"]
    assert check.statistic["epsilon_lower"] == check.statistic["ceiling"] > 3
    json.dumps(check.to_json(), allow_nan=False)


def test_an_account_for_each_expert_is_caught() -> None:
    """The noise that one expert needs, drawn for eight: epsilon is 10.6; the bound was under 3 in none of 3,000."""
    check = canary_check(plan(terms(), sigma=Noise.solve(terms(experts=1)).step), seed=0)
    assert check.verdict == "fail"
    assert check.statistic["epsilon_lower"] > 3.2 and check.statistic["epsilon_estimated_lower"] > 8


def test_an_account_for_each_expert_is_caught_when_sampling() -> None:
    promise, sigma = terms(rate=0.25), 1.37
    assert 2.9 < spent([Mechanism(sigma, 0.25, STEPS)], promise.delta).prv < 3
    check = canary_check(plan(promise, sigma), seed=0)
    assert check.verdict == "fail" and check.statistic["epsilon_estimated_lower"] > 5


def test_a_claim_above_the_ceiling_is_not_tested_but_half_the_noise_is_seen() -> None:
    promise = terms(epsilon=9.0)
    solved = plan(promise)
    large = canary_check(solved, seed=0)
    assert large.verdict == "inconclusive" and large.power == 0 and large.statistic["ceiling"] < 9
    assert "could have refuted" in large.explanation
    half = canary_check(replace(solved, sigma=solved.sigma / 2), seed=0)
    assert half.verdict == "fail" and half.statistic["epsilon_lower"] < 9 < half.statistic["epsilon_estimated_lower"]


def test_a_trainer_that_draws_too_little_is_caught(honest: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger is right, the noise is not."""
    drawn = private.normal
    monkeypatch.setattr(private, "normal", lambda count: drawn(count) / 3)
    check = canary_check(honest, seed=0)
    assert check.verdict == "fail" and check.statistic["epsilon_lower"] > 3


def test_noise_that_cancels_over_experts_is_caught(honest: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step's noise is as large as the ledger says, but every other expert turns the last one's round."""
    drawn, turn = private.normal, itertools.count()
    kept: dict[int, torch.Tensor] = {}

    def mirrored(count: int) -> torch.Tensor:
        expert, step = divmod(next(turn), STEPS)
        if expert % 2:
            return -kept[step]
        kept[step] = drawn(count)
        return kept[step]

    monkeypatch.setattr(private, "normal", mirrored)
    check = canary_check(honest, seed=0)
    assert check.verdict == "fail" and check.statistic["epsilon_lower"] == check.statistic["ceiling"]


FOUND = {
    "epsilon_claimed": 3.0,
    "epsilon_lower": 1.0,
    "epsilon_estimated": 2.5,
    "epsilon_estimated_lower": 2.0,
    "ceiling": 4.0,
    "right": 150,
    "guesses": 200,
    "canaries": 1000,
}


@pytest.mark.parametrize(
    ("found", "bare", "p", "verdict"),
    [
        ({}, 4.0, 0.5, "pass"),
        ({"epsilon_lower": 3.1}, 4.0, 0.001, "fail"),
        ({"epsilon_estimated_lower": 3.1}, 3.0, 0.5, "fail"),
        ({}, 3.9, 0.5, "inconclusive"),
        ({}, 4.0, 9e-5, "inconclusive"),
        ({"epsilon_claimed": 4.0}, 4.0, 0.5, "inconclusive"),
    ],
)
def test_the_verdict(found: dict[str, float], bare: float, p: float, verdict: str) -> None:
    assert canaries._judge(FOUND | found, {"epsilon_lower": bare}, {"p": p})[0] == verdict


def ledger(promise: Terms, entries: list[Entry]) -> dict[str, Any]:
    return {"terms": asdict(promise), "entries": [asdict(entry) for entry in entries]}


def test_the_plan_is_what_was_charged() -> None:
    """Steps drawn again after an abort count once, since each expert has one trajectory; the least noise counts."""
    entries = [
        Entry("class means", 0, 1, 3.0, 1.0),
        Entry("expert 0", 0, 6, 20.0, 0.5),
        Entry("expert 0", 6, 4, 20.0, 0.5),
        Entry("expert 1", 0, 6, 20.0, 0.5),
        Entry("expert 1", 4, 6, 19.0, 0.5),
    ]
    found = Plan.of(ledger(terms(), entries))
    assert found == Plan(terms(), sigma=19.0, rate=0.5, experts=2, steps=10)
    assert Plan.of(ledger(terms(), entries[:1])) is None


def test_the_check_reads_the_ledger_and_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    house: Any = SimpleNamespace(config=SimpleNamespace(seed=0), device=torch.device("cpu"), say=told.append)
    chosen: Any = None
    assert canaries.check(Candidate(chosen), house).check.verdict == "not applicable"
    assert canaries.check(Candidate(chosen, ledger(terms(), [])), house).check.verdict == "not applicable"
    assert not told
    short = terms(experts=2, steps=4)
    sigma = Noise.solve(short).step
    record = ledger(short, [Entry(f"expert {i}", 0, 4, sigma, 1.0) for i in range(2)])
    before = json.dumps(record)
    outcome = canaries.check(Candidate(chosen, record), house)
    assert outcome.check.verdict == "pass" and outcome.check.statistic["steps"] == 4
    assert json.dumps(record) == before and not list(tmp_path.iterdir())
    assert "2 experts" in told[0]
