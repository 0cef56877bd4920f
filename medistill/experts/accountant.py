"""What a private run spends: epsilon by opacus' accountants, the noise a target needs, and what an attack can reach.

All functions take the whole run as a list of `Mechanism`: the steps of all experts together, and any other release
that reads patients. The unit is what one clipped gradient belongs to; neighbours differ by adding or removing one.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from medistill.errors import UserError

# Opacus' orders end at 63, below the best one for an epsilon under .5; its steps between 11 and 12 are kept.
ORDERS = [1 + i / 10 for i in range(1, 100)] + [*range(11, 64), 64, 80, 96, 128, 192, 256, 384, 512, 1024]
MESH = 0.01  # the most that the PRV accountant's discretisation may add to epsilon
TOLERANCE = 1e-5  # of the noise multiplier's logarithm
PROFILE = 256  # points of (epsilon, delta) behind a trade-off curve
TAIL = 1e-9  # the delta at which that curve's largest epsilon lies
HOPELESS = 100.0  # the PRV accountant's memory grows with epsilon
SLACK = 1e-4  # share of the target left, so that a sum in another order does not overspend by rounding


class Mechanism(NamedTuple):
    """Equal steps of the Poisson-subsampled Gaussian mechanism.

    Attributes:
        noise_multiplier: standard deviation of the noise over the clipping norm; 0: no noise, epsilon is infinite.
        rate: the chance of each unit to take part in a step; 1: all do, the plain Gaussian mechanism.
        steps: how often it is run.
    """

    noise_multiplier: float
    rate: float
    steps: int


@dataclass(frozen=True)
class Spent:
    """What a list of mechanisms spends at one delta.

    Attributes:
        delta: of all epsilons here.
        prv: epsilon by numerical composition, an upper bound (Gopi et al. 2021, arXiv 2106.02848); where rdp is over
            100, which protects nobody, rdp instead.
        rdp: epsilon by Rényi divergence, a looser upper bound (Mironov et al. 2019, arXiv 1908.10530).
        gaussian: the exact epsilon where every rate is 1 (Balle and Wang 2018, arXiv 1805.06530), else None.
    """

    delta: float
    prv: float
    rdp: float
    gaussian: float | None


def spent(mechanisms: Sequence[Mechanism], delta: float) -> Spent:
    """Epsilon of all mechanisms composed, by each accountant.

    Raises:
        ValueError: for a delta outside (0, 1), a rate outside (0, 1], negative noise or steps.
    """
    history = _grouped(mechanisms, delta)
    exact = gaussian_epsilon(_mu(history), delta) if all(m.rate == 1 for m in history) else None
    if not history:
        return Spent(delta, 0.0, 0.0, exact)
    rdp = _rdp(history, delta)
    return Spent(delta, _prv(history, delta, rdp) if rdp <= HOPELESS else rdp, rdp, exact)


def renyi(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """Epsilon by Rényi divergence alone, in no time; errors as `spent`."""
    return _rdp(_grouped(mechanisms, delta), delta)


def work(mechanisms: Sequence[Mechanism], rdp: float) -> float:
    """How much numerical composition has to do where RDP finds this epsilon; 1e5 take about a second."""
    steps = sum(mechanism.steps for mechanism in mechanisms)
    return math.sqrt(steps) / min(MESH, MESH * rdp / 2) if rdp > 0 else math.inf


def noise_multiplier(epsilon: float, delta: float, rate: float, steps: int, also: Sequence[Mechanism] = ()) -> float:
    """The least noise multiplier with which `steps` steps, composed with `also`, stay within (epsilon, delta).

    Solved by the PRV accountant, to a ten-thousandth of epsilon below it.

    Args:
        epsilon: the target for the whole run.
        delta: its delta.
        rate: the chance of each unit to take part in a step.
        steps: of all experts together, with the reserve for steps drawn twice.
        also: what is spent besides.

    Raises:
        UserError: where `also` alone spends epsilon.
        ValueError: as `spent`; for a target that is not positive, or no step.
    """
    if not epsilon > 0 or steps < 1:
        raise ValueError(f"epsilon {epsilon} and steps {steps} must be positive")
    before = spent(also, delta).prv
    target = epsilon * (1 - SLACK)
    if before >= target:
        raise UserError(
            f"experts.private: what reads patients besides the experts spends epsilon {before:.3g} of {epsilon:.3g}; "
            "raise experts.private.epsilon or leave it out"
        )

    def run(logarithm: float) -> list[Mechanism]:
        return [*also, Mechanism(math.exp(logarithm), rate, steps)]

    def over(logarithm: float) -> float:
        return spent(run(logarithm), delta).prv - target

    # PRV is slow where epsilon is far above the target; RDP tells at next to no cost where it is near.
    high, near = 0.0, max(1.5 * target, 1.1 * _rdp(also, delta))
    while _rdp(run(high), delta) > near:
        high += 0.5
    while _rdp(run(high), delta) <= near:
        high -= 0.5
    low = high + 0.5
    high = low + 0.25
    while over(high) > 0:
        low, high = high, 2 * high - low
    while over(low) <= 0:
        low, high = low - 0.25, low
    root = float(brentq(over, low, high, xtol=TOLERANCE))
    return math.exp(root + TOLERANCE)


def max_tpr(mechanisms: Sequence[Mechanism], fpr: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest true positive rate any test for one unit can have at each false positive rate.

    At rate 1 the exact Gaussian trade-off Φ(Φ⁻¹(fpr) + μ), μ² = Σ steps / σ² (Dong et al. 2019, arXiv 1905.02383,
    theorem 2.7). Otherwise the least of e^ε fpr + δ and 1 - e^-ε (1 - δ - fpr) over the run's (ε, δ) (Kairouz et al.
    2015, arXiv 1311.0776, theorem 2.1), by the PRV accountant.

    Returns:
        (len(fpr),) rates in [fpr, 1].
    """
    history = _grouped(mechanisms, 0.5)
    alpha = np.asarray(fpr, dtype=np.float64)
    if all(m.rate == 1 for m in history):
        return np.asarray(norm.cdf(norm.ppf(alpha) + _mu(history)))
    if _rdp(history, TAIL) > HOPELESS:
        return np.ones_like(alpha)
    bound = np.ones_like(alpha)
    for epsilon, delta in _profile(history):
        raised, rest = math.exp(epsilon) * alpha + delta, 1 - math.exp(-epsilon) * (1 - delta - alpha)
        bound = np.minimum(bound, np.minimum(raised, rest))
    return np.maximum(bound, alpha)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The exact epsilon of Gaussian noise at a signal of mu standard deviations (Balle and Wang 2018, theorem 8)."""
    if mu == 0 or math.isinf(mu):
        return mu

    def excess(epsilon: float) -> float:
        return float(norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)) - delta)

    # The first term alone is at most delta from here on.
    highest = mu * (mu / 2 - float(norm.ppf(delta)))
    return float(brentq(excess, 0.0, highest, xtol=1e-12)) if excess(0.0) > 0 else 0.0


def _grouped(mechanisms: Sequence[Mechanism], delta: float) -> list[Mechanism]:
    """The mechanisms, equal ones added up, in an order of their own."""
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; give a number between 0 and 1")
    steps: Counter[tuple[float, float]] = Counter()
    for sigma, rate, count in mechanisms:
        if not (sigma >= 0 and 0 < rate <= 1 and count >= 0):
            raise ValueError(f"no mechanism has noise multiplier {sigma}, rate {rate} and {count} steps")
        steps[sigma, rate] += count
    return [Mechanism(sigma, rate, count) for (sigma, rate), count in sorted(steps.items()) if count]


def _mu(history: Sequence[Mechanism]) -> float:
    """Signal over noise of all steps together, at rate 1."""
    return math.sqrt(sum(math.inf if s == 0 else count / s**2 for s, _, count in history))


def _rdp(history: Sequence[Mechanism], delta: float) -> float:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = list(history)
    with _quiet():
        return max(0.0, float(accountant.get_epsilon(delta, alphas=ORDERS)))


def _prv(history: Sequence[Mechanism], delta: float, rdp: float) -> float:
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = list(history)
    with _quiet():
        return max(0.0, float(accountant.get_epsilon(delta, eps_error=min(MESH, MESH * rdp / 2))))


def _profile(history: Sequence[Mechanism]) -> list[tuple[float, float]]:
    """Points (epsilon, delta) that the run satisfies.

    With the discretisation's errors η in epsilon and d in delta, delta(ε) is at most the estimate at ε - η, plus d
    (Gopi et al. 2021, theorem 5.5).
    """
    from opacus.accountants import PRVAccountant

    highest = _rdp(history, TAIL)
    error = min(MESH, MESH * highest / 10)
    accountant = PRVAccountant()
    accountant.history = list(history)
    with _quiet():
        loss = accountant._get_dprv(eps_error=error, delta_error=TAIL / 10)
        grid = np.linspace(0, highest, PROFILE).tolist()
        return [(e, float(loss.compute_delta_estimate(e - error)) + TAIL / 10) for e in grid]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back warnings that have no consequence here.

    At rate 1 opacus takes the logarithm of 0 where the loss has no lower end, and rightly gets minus infinity. Where
    the best Rényi order is the first or last one, epsilon is a bound all the same.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is")
        yield
