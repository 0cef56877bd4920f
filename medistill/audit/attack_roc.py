"""How well membership scores tell members from others: ROC, area, and true positive rates where alarms are rare.

The unit is the patient. Where few false alarms decide, a bootstrap of what was seen knows nothing of what was not (0 of
50 gives [0, 0]); so each interval is the wider of a bootstrap over patients and of exact bounds, which hold for any
distribution of the scores.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta, betabinom, binom

from medistill.evaluate.metrics import weighted_auroc

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

RATES = (0.01, 0.001)
LEVEL = 0.95
CHUNK = 2**22
"""Numbers of a block of resamples."""


@dataclass(frozen=True)
class Scores:
    """Scores of patients under one or several attacked models.

    Attributes:
        values: (M,) higher for a member.
        member: (M,) True where the attacked model, or what it was made from, has seen the patient.
        patient: (M,) int64, the patient: under several models it appears several times.
    """

    values: Array
    member: Bools
    patient: NDArray[np.int64]

    @classmethod
    def of(cls, values: torch.Tensor, member: torch.Tensor, keep: torch.Tensor | None = None) -> "Scores":
        """From (T, G) scores of G patients under T models; `keep` (T, G) leaves others out."""
        patient = torch.arange(values.shape[1]).expand_as(values)
        kept = torch.ones_like(values, dtype=torch.bool) if keep is None else keep
        return cls(values[kept].double().numpy(), member[kept].numpy(), patient[kept].numpy())

    @cached_property
    def curve(self) -> tuple[Array, Array]:
        """False and true positive rates from (0, 0) on, one point for each different score."""
        fpr, tpr = _rates(*self._ordered, np.ones((1, len(self.values))))
        return np.concatenate([[0.0], fpr[0]]), np.concatenate([[0.0], tpr[0]])

    @cached_property
    def _ordered(self) -> tuple[Bools, NDArray[np.intp], NDArray[np.intp]]:
        """Members by falling score, the order, and the last place of each different score."""
        order = np.argsort(-self.values, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(self.values[order]) != 0, True))
        return self.member[order], order, ends


@dataclass(frozen=True)
class Rate:
    """A true positive rate at a false positive rate, and its 95 % interval."""

    fpr: float
    tpr: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Roc:
    """What scores are worth.

    Attributes:
        members: scores of members.
        others: scores of the others.
        patients: different patients among both.
        auc: area under the curve.
        auc_interval: its 95 % interval over patients.
        rates: at each false positive rate of RATES.
    """

    members: int
    others: int
    patients: int
    auc: float
    auc_interval: tuple[float, float]
    rates: tuple[Rate, ...]

    def rate(self, fpr: float) -> Rate:
        """The true positive rate at one of RATES."""
        return next(rate for rate in self.rates if rate.fpr == fpr)

    def to_json(self) -> dict[str, Any]:
        """Numbers for a report."""
        rates = {f"tpr_at_{rate.fpr:g}": {"tpr": rate.tpr, "interval": list(rate.interval)} for rate in self.rates}
        counts = {"members": self.members, "others": self.others, "patients": self.patients}
        return counts | {"auc": self.auc, "auc_interval": list(self.auc_interval)} | rates


def measure(scores: Scores, generator: torch.Generator, resamples: int = 1000, level: float = LEVEL) -> Roc:
    """Area and rates with intervals over patients, drawn with replacement together with all their scores.

    Raises:
        ValueError: where there is no member, or nobody else.
    """
    members, others = int(scores.member.sum()), int((~scores.member).sum())
    if not members or not others:
        raise ValueError(f"{members} members and {others} others; both are needed")
    names, patient = np.unique(scores.patient, return_inverse=True)
    even = np.ones((1, len(scores.values)))
    auc = float(weighted_auroc(scores.values, scores.member, even)[0])
    plain = [float(tpr_at(scores, even, fpr)[0]) for fpr in RATES]
    drawn: list[Array] = []
    block = max(1, CHUNK // len(scores.values))
    for first in range(0, resamples, block):
        picked = torch.randint(len(names), (min(block, resamples - first), len(names)), generator=generator).numpy()
        times = np.stack([np.bincount(row, minlength=len(names)) for row in picked]).astype(np.float64)
        weights = times[:, patient]  # (R, M)
        columns = [weighted_auroc(scores.values, scores.member, weights)]
        drawn.append(np.stack(columns + [tpr_at(scores, weights, fpr) for fpr in RATES]))
    table = np.concatenate(drawn, axis=1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = [np.quantile(row[~np.isnan(row)], tails) for row in table]
    rates = []
    for fpr, tpr, (low, high) in zip(RATES, plain, intervals[1:], strict=True):
        least, most = exact_bounds(scores, fpr, level)
        rates.append(Rate(fpr, tpr, (min(float(low), least), max(float(high), most))))
    return Roc(members, others, len(names), auc, (float(intervals[0][0]), float(intervals[0][1])), tuple(rates))


def tpr_at(scores: Scores, weights: Array, fpr: float) -> Array:
    """(R,) the largest true positive rate whose false positive rate is at most `fpr`, for R weightings (R, M).

    NaN where a weighting leaves no member, or nobody else.
    """
    false, true = _rates(*scores._ordered, weights)
    reached = (false <= fpr * (1 + 1e-12)).sum(1)  # false rates rise along a row
    padded = np.pad(true, ((0, 0), (1, 0)))
    found = padded[np.arange(len(padded)), reached]
    return np.where(np.isnan(false[:, -1]) | np.isnan(true[:, -1]), np.nan, found)


def exact_bounds(scores: Scores, fpr: float, level: float = LEVEL) -> tuple[float, float]:
    """Bounds of the true positive rate at a false positive rate, exact for independent scores of any distribution.

    The k-th largest score of n others is exceeded by a stranger with a probability that is beta distributed (k, n + 1 -
    k). For the upper bound k is the smallest at which it is `fpr` or more, but for half of the permitted error. For the
    lower one k is the smallest at which it may be more, and the attack raises only so many of its alarms, by lot, that
    the false ones keep to `fpr`; so that few others tell something too. The share of members beyond gets the interval
    of Clopper and Pearson with the other half of the error.
    """
    others, members = np.sort(scores.values[~scores.member])[::-1], scores.values[scores.member]
    error = (1 - level) / 4
    k = upper_place(len(others), fpr, error)
    hits = len(members) if k > len(others) else int((members >= others[k - 1]).sum())
    high = 1.0 if hits == len(members) else float(beta.ppf(1 - error, hits + 1, len(members) - hits))
    k = int(binom.ppf(error, len(others), fpr)) + 1
    raised = min(1.0, fpr / float(beta.ppf(1 - error, k, len(others) + 1 - k)))
    hits = int((members > others[k - 1]).sum())
    low = raised * float(beta.ppf(error, hits, len(members) - hits + 1)) if hits else 0.0
    return low, high


def upper_place(others: int, fpr: float, error: float = (1 - LEVEL) / 4) -> int:
    """The smallest k whose k-th largest score of so many others has a false positive rate of `fpr` or more."""
    return int(binom.isf(error, others, fpr)) + 1


def resolves(members: int, others: int, fpr: float, limit: float) -> bool:
    """Whether the exact upper bound would be within `limit` nine times in ten if members scored like everybody else."""
    k = upper_place(others, fpr)
    if k > others:
        return False
    # the share beyond the k-th of the others is beta distributed
    hits = int(betabinom.ppf(0.9, members, k, others + 1 - k))
    return hits < members and float(beta.ppf(1 - (1 - LEVEL) / 4, hits + 1, members - hits)) <= limit


def needed(fpr: float, limit: float) -> int:
    """How many members, and as many others, are enough for `resolves`; found to a fiftieth."""
    count = 10
    while not resolves(count, count, fpr, limit):
        count = count + 1 + count // 50
    return count


def _rates(member: Bools, order: NDArray[np.intp], ends: NDArray[np.intp], weights: Array) -> tuple[Array, Array]:
    """False and true positive rates (R, distinct scores) by falling threshold, for weightings (R, M)."""
    ordered = weights[:, order]
    sums = [np.cumsum(ordered * chosen, axis=1) for chosen in (~member, member)]
    with np.errstate(invalid="ignore"):
        false, true = (total[:, ends] / total[:, -1:] for total in sums)
    return false, true
