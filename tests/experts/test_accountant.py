"""Oracles: integrals of the densities, the closed Gaussian formulas, and the likelihood ratio test itself."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm

from medistill.errors import UserError
from medistill.experts.accountant import Mechanism, gaussian_epsilon, max_tpr, noise_multiplier, spent

DELTA = 1e-5


def gaussian_delta(epsilon: float, mu: float) -> float:
    """The integral of (p - e^ε q)+ for p = N(μ, 1), q = N(0, 1); from where p exceeds e^ε q."""
    from_here = epsilon / mu + mu / 2
    integral, _ = quad(lambda x: norm.pdf(x - mu) - math.exp(epsilon) * norm.pdf(x), from_here, mu + 12, epsabs=1e-13)
    return float(integral)


def mixture(x: NDArray[np.float64], rate: float, sigma: float) -> NDArray[np.float64]:
    """The density of a subsampled unit of size 1 in noise of sd sigma."""
    return np.asarray((1 - rate) * norm.pdf(x, 0, sigma) + rate * norm.pdf(x, 1, sigma))


@pytest.mark.parametrize("mu", [0.1, 0.815, 3.0, 8.0])
def test_the_gaussian_epsilon_solves_the_integral(mu: float) -> None:
    for delta in (1e-3, 1e-5):
        epsilon = gaussian_epsilon(mu, delta)
        assert gaussian_delta(epsilon, mu) == pytest.approx(delta, rel=1e-5)
    assert gaussian_epsilon(mu, 1 - 1e-5) == 0
    assert gaussian_epsilon(0, DELTA) == 0 and gaussian_epsilon(math.inf, DELTA) == math.inf


@pytest.mark.parametrize(
    ("sigma", "steps", "delta"),
    [(84.0, 800, 1e-5), (28.0, 800, 1e-4), (150.0, 240, 7e-5), (8.0, 800, 1e-5), (0.3, 1, 1e-4)],
)
def test_all_accountants_agree_at_full_batch(sigma: float, steps: int, delta: float) -> None:
    found = spent([Mechanism(sigma, 1, steps)], delta)
    exact = gaussian_epsilon(math.sqrt(steps) / sigma, delta)
    assert found.gaussian == pytest.approx(exact)
    assert exact <= found.prv <= 1.02 * exact
    assert found.prv <= found.rdp <= 1.2 * found.prv


@pytest.mark.parametrize(
    ("sigma", "rate", "steps"),
    [(8.0, 0.1, 800), (3.0, 0.1, 800), (10.0, 0.3, 800), (1.0, 0.02, 1600), (30.0, 0.25, 400)],
)
def test_rdp_bounds_prv_when_subsampling(sigma: float, rate: float, steps: int) -> None:
    found = spent([Mechanism(sigma, rate, steps)], DELTA)
    assert found.gaussian is None
    assert found.prv <= found.rdp <= 1.2 * found.prv


def test_prv_when_subsampling_equals_the_integral_over_two_steps() -> None:
    rate, sigma = 0.3, 1.2
    found = spent([Mechanism(sigma, rate, 2)], 1e-3)
    x = np.linspace(-10, 12, 4001)
    p, q = mixture(x, rate, sigma), norm.pdf(x, 0, sigma)
    joint = np.outer(p, p) - math.exp(found.prv) * np.outer(q, q)
    delta = np.maximum(joint, 0).sum() * (x[1] - x[0]) ** 2
    assert 0.96 * 1e-3 < delta <= 1e-3


def test_what_is_composed_and_in_which_order() -> None:
    """A plain release and two kinds of steps spend what one Gaussian of their joint signal spends."""
    parts = [Mechanism(30, 1, 400), Mechanism(2, 1, 1), Mechanism(40, 1, 300), Mechanism(30, 1, 100)]
    mu = math.sqrt(500 / 30**2 + 1 / 4 + 300 / 40**2)
    found = spent(parts, DELTA)
    assert found.prv == pytest.approx(gaussian_epsilon(mu, DELTA), rel=0.01)
    assert found == spent(parts[::-1], DELTA)
    assert found == spent([*parts, Mechanism(1, 0.5, 0)], DELTA)
    mixed = spent([Mechanism(5, 0.2, 100), Mechanism(2, 1, 1)], DELTA)
    assert mixed.gaussian is None
    assert mixed.prv > max(spent([Mechanism(5, 0.2, 100)], DELTA).prv, spent([Mechanism(2, 1, 1)], DELTA).prv)


def test_nothing_and_no_noise() -> None:
    nothing = spent([], DELTA)
    assert (nothing.prv, nothing.rdp, nothing.gaussian) == (0, 0, 0)
    bare = spent([Mechanism(0, 0.5, 1)], DELTA)
    assert (bare.prv, bare.rdp, bare.gaussian) == (math.inf, math.inf, None)
    assert spent([Mechanism(0, 1, 1)], DELTA).gaussian == math.inf
    loud = spent([Mechanism(0.01, 1, 100)], DELTA)
    assert loud.gaussian is not None and loud.prv == loud.rdp > loud.gaussian > 1e5


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate", "steps"),
    [(3, 1e-4, 1.0, 800), (0.3, 1e-4, 1.0, 400), (8, 1e-5, 0.1, 800), (1, 1e-3, 0.25, 100)],
)
def test_the_noise_meets_the_target_and_no_more(epsilon: float, delta: float, rate: float, steps: int) -> None:
    sigma = noise_multiplier(epsilon, delta, rate, steps)
    assert 0.9995 * epsilon < spent([Mechanism(sigma, rate, steps)], delta).prv <= epsilon
    if rate == 1:
        assert gaussian_epsilon(math.sqrt(steps) / sigma, delta) == pytest.approx(epsilon, rel=0.01)


def test_noise_grows_with_the_root_of_the_experts_and_with_what_else_is_spent() -> None:
    one, eight = (noise_multiplier(3, DELTA, 1, 50 * experts) for experts in (1, 8))
    assert eight / one == pytest.approx(math.sqrt(8), rel=1e-3)
    start = Mechanism(4.0, 1, 1)
    more = noise_multiplier(3, DELTA, 1, 400, also=[start])
    assert 400 / more**2 + 1 / 16 == pytest.approx(400 / eight**2, rel=1e-3)
    with pytest.raises(UserError, match="spends epsilon"):
        noise_multiplier(0.9, DELTA, 1, 400, also=[start])


def test_the_highest_tpr_at_full_batch_is_the_gaussian_trade_off() -> None:
    fpr = np.array([1e-3, 0.01, 0.2, 0.6])
    tpr = max_tpr([Mechanism(20, 1, 300), Mechanism(10, 1, 100)], fpr)
    mu = math.sqrt(300 / 400 + 1)
    assert tpr == pytest.approx(1 - norm.cdf(norm.isf(fpr) - mu))
    near = max_tpr([Mechanism(20, 1 - 1e-9, 300), Mechanism(10, 1 - 1e-9, 100)], fpr)
    assert (near >= tpr).all() and near == pytest.approx(tpr, rel=0.01)
    assert 1 - near == pytest.approx(1 - tpr, rel=0.02)


@pytest.mark.parametrize(("rate", "sigma"), [(0.3, 0.8), (0.1, 2.0), (0.6, 0.5)])
def test_no_likelihood_ratio_test_beats_the_highest_tpr(rate: float, sigma: float) -> None:
    """Of one step, both ways: against noise alone, and noise alone against the mixture."""
    t = np.linspace(-3, 6, 60)
    noise, mixed = norm.sf(t, 0, sigma), (1 - rate) * norm.sf(t, 0, sigma) + rate * norm.sf(t, 1, sigma)
    bound = max_tpr([Mechanism(sigma, rate, 1)], noise)
    assert (bound >= mixed - 1e-9).all()
    assert (max_tpr([Mechanism(sigma, rate, 1)], 1 - mixed) >= 1 - noise - 1e-9).all()
    small = (noise > 1e-4) & (noise < 0.2)
    assert bound[small] == pytest.approx(mixed[small], rel=0.03)


def test_without_noise_or_release_the_highest_tpr_is_one_or_chance() -> None:
    fpr = np.array([0.001, 0.3])
    assert max_tpr([Mechanism(0, 0.5, 3)], fpr).tolist() == [1, 1]
    assert max_tpr([Mechanism(0, 1, 3)], fpr).tolist() == [1, 1]
    assert max_tpr([Mechanism(0.01, 0.5, 3)], fpr).tolist() == [1, 1]
    assert max_tpr([], fpr) == pytest.approx(fpr)


def test_nonsense_is_refused() -> None:
    for mechanism in (
        Mechanism(-1, 1, 1),
        Mechanism(1, 0, 1),
        Mechanism(1, 1.5, 1),
        Mechanism(1, 1, -1),
        Mechanism(math.nan, 1, 1),
    ):
        with pytest.raises(ValueError, match="no mechanism"):
            spent([mechanism], DELTA)
    for delta in (0.0, 1.0):
        with pytest.raises(ValueError, match="delta"):
            spent([], delta)
    for epsilon, steps in ((0.0, 3), (1.0, 0)):
        with pytest.raises(ValueError, match="must be positive"):
            noise_multiplier(epsilon, DELTA, 1, steps)
