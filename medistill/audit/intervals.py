"""Intervals and tests that several checks share."""

from scipy.stats import binomtest


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def clopper_pearson(hits: int, total: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934)."""
    interval = binomtest(hits, total).proportion_ci(method="exact")
    return float(interval.low), float(interval.high)
