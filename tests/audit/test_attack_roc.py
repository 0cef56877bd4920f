"""Rates and areas against scikit-learn, intervals against loops, binomial tables and simulation."""

import json

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score, roc_curve

from medistill.audit.attack_roc import Scores, exact_bounds, measure, needed, resolves, tpr_at, upper_place
from medistill.seeds import generator


def drawn(members: int, others: int, shift: float = 1.0, decimals: int = 6, seed: int = 0) -> Scores:
    g = np.random.default_rng(seed)
    values = np.round(np.concatenate([g.normal(shift, 1, members), g.normal(0, 1, others)]), decimals)
    member = np.arange(members + others) < members
    return Scores(values, member, np.arange(members + others))


@pytest.mark.parametrize("decimals", [6, 1])
def test_curve_area_and_rates_are_scikit_learns(decimals: int) -> None:
    scores = drawn(400, 700, decimals=decimals)
    fpr, tpr, _ = roc_curve(scores.member, scores.values, drop_intermediate=False)
    np.testing.assert_allclose(scores.curve[0], fpr, atol=1e-12)
    np.testing.assert_allclose(scores.curve[1], tpr, atol=1e-12)
    roc = measure(scores, generator(0, "bootstrap"), resamples=20)
    assert roc.auc == pytest.approx(roc_auc_score(scores.member, scores.values))
    assert [rate.tpr for rate in roc.rates] == pytest.approx([tpr[fpr <= limit][-1] for limit in (0.01, 0.001)])
    assert (roc.members, roc.others, roc.patients) == (400, 700, 1100)


def test_a_rate_needs_false_positives_at_most_that_many() -> None:
    values = np.arange(200.0)[::-1]
    member = np.zeros(200, bool)
    member[[0, 2, 3, 5, 150]] = True  # behind 0, 1, 1, 2 and 146 of 195 others
    scores = Scores(values, member, np.arange(200))
    even = np.ones((1, 200))
    assert tpr_at(scores, even, 0.001)[0] == pytest.approx(1 / 5)
    assert tpr_at(scores, even, 1 / 195)[0] == pytest.approx(3 / 5)
    assert tpr_at(scores, even, 0.01)[0] == pytest.approx(3 / 5)
    assert tpr_at(scores, even, 2 / 195)[0] == pytest.approx(4 / 5)
    weights = even.copy()
    weights[0, 1] = 0  # the false positive is not drawn
    assert tpr_at(scores, weights, 0.001)[0] == pytest.approx(3 / 5)
    assert np.isnan(tpr_at(scores, member[None].astype(float), 0.001)[0])


def test_equal_scores_are_called_together() -> None:
    scores = Scores(np.array([2.0, 2, 1, 0]), np.array([True, False, True, False]), np.arange(4))
    assert tpr_at(scores, np.ones((1, 4)), 0.49)[0] == 0
    assert tpr_at(scores, np.ones((1, 4)), 0.5)[0] == 1


def test_the_bootstrap_draws_patients_with_all_their_scores() -> None:
    base = drawn(60, 60, decimals=2)
    patient = np.concatenate([np.arange(30).repeat(2)] * 2)
    scores = Scores(base.values, base.member, patient)
    found = measure(scores, generator(3, "bootstrap"), resamples=200)
    picked = torch.randint(30, (200, 30), generator=generator(3, "bootstrap")).numpy()
    areas = []
    for row in picked:
        index = np.concatenate([np.flatnonzero(patient == person) for person in row])
        areas.append(roc_auc_score(base.member[index], base.values[index]))
    assert found.auc_interval == pytest.approx(np.quantile(areas, [0.025, 0.975]))
    assert found.patients == 30 and found.members == 60


def test_no_hit_does_not_mean_no_rate() -> None:
    """50 members below the largest of 9,000 others: 0 of 50, and the exact bound says how little that is."""
    values = np.concatenate([np.full(50, -1.0), np.linspace(0, 1, 9000)])
    scores = Scores(values, np.arange(9050) < 50, np.arange(9050))
    low, high = exact_bounds(scores, 0.001)
    expected = binomtest(0, 50).proportion_ci(confidence_level=0.975, method="exact").high
    assert (low, high) == (0.0, pytest.approx(expected))
    rate = measure(scores, generator(0, "b"), resamples=20).rates[-1]
    assert rate.tpr == 0 and rate.interval == (0.0, pytest.approx(expected))


def test_exact_bounds_by_hand() -> None:
    """Every member lies just above the other of its number: as many are beyond a threshold."""
    values = np.concatenate([np.arange(20_000.0), np.arange(20_000.0) + 0.5])
    scores = Scores(values, np.arange(40_000) >= 20_000, np.arange(40_000))
    low, high = exact_bounds(scores, 0.001)
    # 31 of 20,000 or fewer lie above the true threshold but for 1.25 %; so do 11 or more, 12 not
    assert binomtest(32, 20_000, 0.001, alternative="greater").pvalue <= 0.0125
    assert binomtest(31, 20_000, 0.001, alternative="greater").pvalue > 0.0125
    assert upper_place(20_000, 0.001) == 32
    assert high == pytest.approx(binomtest(32, 20_000).proportion_ci(0.975, method="exact").high)
    assert binomtest(10, 20_000, 0.001, alternative="less").pvalue <= 0.0125
    assert binomtest(11, 20_000, 0.001, alternative="less").pvalue > 0.0125
    # the 12th other has at most the rate of which 11 or fewer of 20,000 are seen in 1.25 %
    most = brentq(lambda rate: binomtest(11, 20_000, rate, alternative="less").pvalue - 0.0125, 1e-4, 1e-2)
    assert most > 0.001
    hit = binomtest(12, 20_000).proportion_ci(0.975, method="exact").low
    assert low == pytest.approx(0.001 / most * hit)


def test_exact_bounds_of_equal_scores_know_nothing() -> None:
    scores = Scores(np.zeros(9000), np.arange(9000) < 4000, np.arange(9000))
    assert exact_bounds(scores, 0.001) == (0.0, 1.0)


def test_few_others_give_a_lower_bound_by_raising_few_alarms() -> None:
    """All 100 members above all 300 others: the alarm's rate is at most 1.45 %, so one in 14.5 alarms is raised."""
    scores = Scores(np.arange(400.0), np.arange(400) >= 300, np.arange(400))
    low, high = exact_bounds(scores, 0.001)
    most = 1 - 0.0125 ** (1 / 300)
    hit = binomtest(100, 100).proportion_ci(0.975, method="exact").low
    assert low == pytest.approx(0.001 / most * hit) and high == 1
    assert 0.06 < low < 0.07


@pytest.mark.parametrize(("shift", "count"), [(0.0, 300), (2.0, 300), (2.0, 5000), (5.0, 300)])
def test_exact_bounds_hold_the_true_rate_of_normal_scores(shift: float, count: int) -> None:
    truth = norm.sf(norm.isf(0.001) - shift)
    found = [exact_bounds(drawn(count, count, shift, seed=seed), 0.001) for seed in range(200)]
    assert np.mean([low <= truth <= high for low, high in found]) >= 0.95
    if (shift, count) == (2.0, 5000):
        assert np.median([high / low for low, high in found]) < 5


def test_what_is_needed_is_enough() -> None:
    """Nine clean sets in ten come within the limit with so many patients, and fewer with half as many."""
    count = needed(0.001, 0.005)
    assert resolves(count, count, 0.001, 0.005) and not resolves(count // 2, count // 2, 0.001, 0.005)
    assert not resolves(20_000, 300, 0.001, 0.005) and not resolves(300, 20_000, 0.001, 0.005)
    assert not resolves(5, 1, 0.001, 0.005)
    assert needed(0.001, 0.01) < count < needed(0.001, 0.003)
    for patients, least, most in ((count, 0.85, 0.96), (count // 2, 0.3, 0.7)):
        bounds = [exact_bounds(drawn(patients, patients, 0, seed=seed), 0.001)[1] for seed in range(300)]
        assert least <= np.mean(np.array(bounds) <= 0.005) <= most


def test_scores_of_several_models_keep_their_patients() -> None:
    values, inside = torch.arange(6.0).view(2, 3), torch.tensor([[1, 0, 1], [0, 1, 0]]).bool()
    scores = Scores.of(values, inside, keep=torch.tensor([[1, 1, 0], [1, 1, 1]]).bool())
    assert scores.values.tolist() == [0, 1, 3, 4, 5] and scores.patient.tolist() == [0, 1, 0, 1, 2]
    assert scores.member.tolist() == [True, False, False, True, False]


def test_both_kinds_of_patients_are_needed_and_numbers_are_json() -> None:
    with pytest.raises(ValueError, match="3 members and 0 others"):
        measure(Scores(np.arange(3.0), np.ones(3, bool), np.arange(3)), generator(0, "b"))
    text = measure(drawn(40, 50), generator(0, "b"), resamples=30).to_json()
    assert json.loads(json.dumps(text, allow_nan=False))["tpr_at_0.001"]["interval"][1] <= 1
