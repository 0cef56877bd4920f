"""Oracles: hand calculation, the theorem in plain loops, and mechanisms whose epsilon is known."""

import math
from fractions import Fraction

import numpy as np
import pytest

from medistill.audit.one_run import ceiling, guesses_for, lower_bound, p_value, right_guesses


def test_the_ceiling_of_two_hundred_and_of_a_thousand_guesses() -> None:
    """All r right has chance q^r, q = e^ε / (1 + e^ε): q = .05^(1/r), ε = log(q / (1 - q))."""
    for guesses, hand in ((200, 4.19), (1000, 5.81)):
        q = 0.05 ** (1 / guesses)
        assert math.log(q / (1 - q)) == pytest.approx(hand, abs=0.005)
        assert ceiling(0.0, 1000, guesses) == pytest.approx(math.log(q / (1 - q)), abs=1e-5)


def test_delta_costs_what_the_theorem_says() -> None:
    """P[B >= v] + 2 m delta max_i P[v > B >= v - i] / i, in exact fractions, for a chance of 3 / 4: ε = log 3."""
    canaries, guesses, right, delta = 30, 12, 10, Fraction(1, 200)
    q = Fraction(3, 4)
    mass = [math.comb(guesses, k) * q**k * (1 - q) ** (guesses - k) for k in range(guesses + 1)]
    tail = sum(mass[right:])
    alpha = max(sum(mass[right - i : right]) / i for i in range(1, right + 1))
    expected = tail + 2 * canaries * delta * alpha
    assert p_value(math.log(3), float(delta), canaries, guesses, right) == pytest.approx(float(expected), rel=1e-12)
    assert p_value(math.log(3), 0.0, canaries, guesses, right) == pytest.approx(float(tail), rel=1e-12)
    assert p_value(0.0, 0.5, canaries, guesses, 0) == 1


@pytest.mark.parametrize(("delta", "right"), [(0.0, 190), (1e-4, 190), (1e-4, 200), (1e-3, 200)])
def test_the_lower_bound_is_where_the_chance_crosses_one_in_twenty(delta: float, right: int) -> None:
    bound = lower_bound(delta, 1000, 200, right)
    assert p_value(bound - 1e-4, delta, 1000, 200, right) < 0.05 < p_value(bound + 1e-4, delta, 1000, 200, right)


def test_chance_proves_nothing_and_delta_lowers_the_bound() -> None:
    assert lower_bound(0.0, 1000, 200, 100) == 0
    bounds = [lower_bound(delta, 1000, 200, 195) for delta in (0.0, 1e-5, 1e-4, 1e-3)]
    assert bounds == sorted(bounds, reverse=True) and bounds[0] > bounds[3] > 0


@pytest.mark.parametrize(("delta", "least"), [(0.0, 0.03), (1e-4, 0.005)])
def test_a_true_claim_is_refuted_one_time_in_twenty_at_most(delta: float, least: float) -> None:
    """Randomised response: each coin is told with chance e^ε / (1 + e^ε), or, with chance delta, in any case."""
    source, epsilon, canaries = np.random.default_rng(0), 1.5, 400
    q = 1 / (1 + math.exp(-epsilon))
    told = source.binomial(canaries, delta + (1 - delta) * q, size=20_000)
    values, times = np.unique(told, return_counts=True)
    refuted = [p_value(epsilon, delta, canaries, canaries, int(right)) < 0.05 for right in values]
    assert least < (times * refuted).sum() / 20_000 < 0.055


@pytest.mark.parametrize(("epsilon", "delta"), [(4.0, 1e-5), (2.0, 1e-3), (0.5, 0.0)])
def test_the_fewest_guesses_that_can_refute_a_claim(epsilon: float, delta: float) -> None:
    guesses = guesses_for(epsilon, delta, 2000)
    assert ceiling(delta, 2000, guesses) > epsilon >= (ceiling(delta, 2000, guesses - 20) if guesses > 20 else 0)


def test_no_number_of_guesses_refutes_a_large_claim() -> None:
    assert guesses_for(12.0, 1e-5, 2000) == 1800
    assert ceiling(1e-5, 2000, 1800) < 12


def test_right_guesses_by_hand() -> None:
    score = np.array([0.3, -2.0, 5.0, 0.1, -1.0, 4.0])
    included = np.array([True, False, True, False, True, False])
    assert right_guesses(score, included, 2) == 2  # out: -2, in: 5
    assert right_guesses(score, included, 4) == 2  # out: -2 and -1 (wrong), in: 5 and 4 (wrong)
    assert right_guesses(score, included, 6) == 4  # out: -2, -1 (wrong), .1; in: .3, 4 (wrong), 5


def test_impossible_counts_are_refused() -> None:
    for counts in ((10, 5, 6), (10, 11, 6), (10, 5, -1)):
        with pytest.raises(ValueError, match="cannot be"):
            p_value(1.0, 0.0, *counts)
