"""Intervals against scikit-learn, the published DeLong example's definition, and simulation."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medistill.audit.intervals import Z95, stratified_auc


def test_auc_equals_scikit_learns_with_ties() -> None:
    values = torch.tensor([1.0, 2, 2, 3, 3, 4, 5, 5])
    positive = torch.tensor([0, 0, 1, 0, 1, 1, 0, 1]).bool()
    auc, low, high = stratified_auc(values, positive, torch.zeros(8, dtype=torch.int64))
    assert auc == pytest.approx(roc_auc_score(positive, values)) and low < auc < high


def test_variance_by_hand() -> None:
    """Positives 1, 3 and negatives 0, 2: each positive beats (.5, 1), each negative is beaten by (1, .5).

    AUC .75, both placements have variance .125, so the variance is .125 / 2 + .125 / 2.
    """
    values, positive = torch.tensor([1.0, 3, 0, 2]), torch.tensor([True, True, False, False])
    auc, low, high = stratified_auc(values, positive, torch.zeros(4, dtype=torch.int64))
    assert auc == 0.75 and low == pytest.approx(0.75 - Z95 * 0.125**0.5) and high == 1


def test_variance_is_delongs() -> None:
    """Four against seven, by DeLong et al.'s placements written as loops."""
    source = np.random.default_rng(1)
    x, y = source.normal(0.5, 1, 4), source.normal(0, 1, 7)
    of_x = [np.mean([float(a > b) for b in y]) for a in x]
    of_y = [np.mean([float(a > b) for a in x]) for b in y]
    deviation = np.sqrt(np.var(of_x, ddof=1) / 4 + np.var(of_y, ddof=1) / 7)
    values, positive = torch.from_numpy(np.concatenate([y, x])), torch.arange(11) >= 7
    auc, low, _ = stratified_auc(values, positive, torch.zeros(11, dtype=torch.int64))
    assert auc == pytest.approx(np.mean(of_x)) and low == pytest.approx(auc - Z95 * deviation)


def test_strata_are_compared_within() -> None:
    """Stratum 1 lies ten higher throughout and holds most positives, which must not help."""
    values = torch.tensor([1.0, 3, 0, 2, 11, 13, 15, 10, 12])
    positive = torch.tensor([1, 1, 0, 0, 1, 1, 1, 0, 0]).bool()
    strata = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1])
    second = roc_auc_score(positive[4:], values[4:])
    auc, _, _ = stratified_auc(values, positive, strata)
    assert auc == pytest.approx((0.75 * 1.0 + second * 1.2) / 2.2)
    assert roc_auc_score(positive, values) != pytest.approx(auc)


def test_what_cannot_be_compared_says_nothing() -> None:
    values, positive = torch.arange(4.0), torch.tensor([True, False, False, False])
    assert stratified_auc(values, positive, torch.zeros(4, dtype=torch.int64)) == (0.5, 0, 1)


def test_the_interval_covers_a_half_as_often_as_it_says() -> None:
    source = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        values = torch.from_numpy(source.normal(size=60))
        positive = torch.from_numpy(source.permutation(60) < 25)
        _, low, high = stratified_auc(values, positive, torch.arange(60) % 2)
        covered += low <= 0.5 <= high
    assert 0.91 <= covered / 400 <= 0.98
