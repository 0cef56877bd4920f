"""What right guesses prove about epsilon when all canaries take part in one run.

Steinke, Nasr and Jagielski 2023, arXiv 2305.08846: m fair coins decide who takes part; of r guesses v are right. Under
(epsilon, delta) differential privacy the chance of that is at most beta + 2 m delta alpha (theorem 5.2).
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom

LEVEL = 0.05
HIGHEST = 30.0  # of the epsilons tried
STRIDE = 20  # between the numbers of guesses tried
MOST = 0.9  # of the canaries that are guessed


def p_value(epsilon: float, delta: float, canaries: int, guesses: int, right: int) -> float:
    """The largest chance of `right` or more right guesses under (epsilon, delta).

    beta = P[B >= v] for B of r trials, each right with e^ε / (1 + e^ε); alpha the largest P[v > B >= v - i] / i.

    Raises:
        ValueError: unless right <= guesses <= canaries.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses on {canaries} canaries cannot be")
    chance = 1 / (1 + math.exp(-epsilon))
    alpha = 0.0
    if right:
        below = binom.pmf(np.arange(right - 1, -1, -1), guesses, chance).cumsum()  # P[v > B >= v - i], i = 1 to v
        alpha = float((below / np.arange(1, right + 1)).max())
    return min(1.0, float(binom.sf(right - 1, guesses, chance)) + 2 * canaries * delta * alpha)


def lower_bound(delta: float, canaries: int, guesses: int, right: int) -> float:
    """The largest epsilon that so many right guesses refute at the 5 % level; 0 where they refute none."""

    def excess(epsilon: float) -> float:
        return p_value(epsilon, delta, canaries, guesses, right) - LEVEL

    return float(brentq(excess, 0.0, HIGHEST, xtol=1e-6)) if excess(0.0) < 0 else 0.0


def ceiling(delta: float, canaries: int, guesses: int) -> float:
    """The largest epsilon that so many guesses can refute: all of them right."""
    return lower_bound(delta, canaries, guesses, guesses)


def guesses_for(epsilon: float, delta: float, canaries: int) -> int:
    """The fewest guesses with which `epsilon` can be refuted, the most where none suffices; even.

    Few guesses are taken from the scores' far ends and seldom wrong, but prove little. The most are nine tenths of all:
    coins fall unevenly, and half of all guesses would be "in" where fewer are.
    """
    most = range(STRIDE, int(MOST * canaries) + 1, STRIDE)
    return next((r for r in most if p_value(epsilon, delta, canaries, r, r) < LEVEL), most[-1])


def right_guesses(score: NDArray[np.float64], included: NDArray[np.bool_], guesses: int) -> int:
    """How many guesses are right: half of them "in", on the highest scores, and half "out", on the lowest."""
    order = score.argsort(kind="stable")
    half = guesses // 2
    return int((~included[order[:half]]).sum() + included[order[len(order) - half :]].sum())
