"""Check 10, DP statement: what is promised formally, and does the account of it add up?

Epsilon is computed anew from the entries of the ledger, all experts and whatever else was drawn together, by PRV; RDP,
and the exact Gaussian formula where every record takes part in every step, are beside it.
"""

import math
from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from medistill.audit.check import Candidate, Check, Figure, Outcome, Private, Verdict, not_applicable
from medistill.experts.accountant import Spent, max_tpr, spent
from medistill.experts.ledger import Entry, Terms
from medistill.report.tradeoff import tradeoff_figure

NUMBER, NAME = 10, "DP statement"
RECORD = 1e-3  # share by which the recorded epsilon may lie below the one computed anew
RDP_RATIO = 1.2
GAUSSIAN_ERROR = 0.02
FPR = np.logspace(-5, 0, 101)
SHOWN = (0.001, 0.01, 0.1)  # false positive rates whose bound is printed


def check(candidate: Candidate, private: Private) -> Outcome:
    """Check the ledger against its own entries and the experts that were used."""
    if candidate.ledger is None:
        return not_applicable(NUMBER, NAME, "there is no formal guarantee: the experts saw patients without noise")
    used = 0 if private.trajectories is None else len(private.trajectories)
    return statement_check(candidate.ledger, used)


def statement_check(ledger: dict[str, Any], used: int = 0) -> Outcome:
    """Recompute and judge.

    Fails when the entries spend more than was promised or was recorded, when delta is above 1 / (10 patients), when
    the unit is neither patient nor image, or when an expert was used that the entries do not charge in full.
    Inconclusive when the accountants disagree: RDP outside PRV to 1.2 PRV, or PRV over 2 % from the exact formula.

    Args:
        ledger: as in `privacy_ledger.json`.
        used: how many experts there are.
    """
    terms = Terms(**ledger["terms"])
    entries = [Entry(**entry) for entry in ledger["entries"]]
    mechanisms = [entry.mechanism for entry in entries]
    found = spent(mechanisms, terms.delta)
    planted = spent([m._replace(noise_multiplier=m.noise_multiplier / 2) for m in mechanisms], terms.delta).prv
    caught = planted > terms.epsilon
    positive = {"planted": "the same entries at half the noise", "epsilon": _finite(planted), "caught": caught}
    negative = {
        "compared": "the accountants",
        "rdp_over_prv": _ratio(found.rdp, found.prv),
        "prv_over_gaussian": None if found.gaussian is None else _ratio(found.prv, found.gaussian),
    }
    whole = _charged(entries, terms.steps)
    bound = max_tpr(mechanisms, [*SHOWN, *FPR])
    shown = dict(zip(map(str, SHOWN), bound[: len(SHOWN)].tolist(), strict=True))
    statistic = {
        "epsilon": _finite(found.prv),
        "epsilon_rdp": _finite(found.rdp),
        "epsilon_gaussian": None if found.gaussian is None else _finite(found.gaussian),
        "epsilon_promised": terms.epsilon,
        "epsilon_recorded": _finite(ledger["spent"]["epsilon"]),
        "delta": terms.delta,
        "delta_limit": 0.1 / terms.patients,
        "unit": terms.unit,
        "accountant": "PRV",
        "experts": whole,
        "releases": sum(entry.steps for entry in entries),
        "max_tpr": shown,
    }
    faults = _faults(terms, found, ledger["spent"]["epsilon"], used, whole)
    verdict, explanation = _judge(terms, found, faults, caught, shown)
    label = f"epsilon {found.prv:.3g}, delta {terms.delta:.2g}"
    figure = Figure("tradeoff.png", partial(tradeoff_figure, FPR, bound[len(SHOWN) :], label))
    check = Check(NUMBER, NAME, verdict, statistic, None, float(caught), positive, negative, explanation)
    return Outcome(check, (figure,))


def _charged(entries: list[Entry], steps: int) -> int:
    """How many experts are charged for so many steps or more."""
    charged: Counter[str] = Counter()
    for entry in entries:
        charged[entry.what] += entry.steps
    return sum(count >= steps for what, count in charged.items() if what.startswith("expert "))


def _faults(terms: Terms, found: Spent, recorded: float, used: int, whole: int) -> list[str]:
    """What breaks the promise, in words."""
    faults = {
        f"the entries spend epsilon {found.prv:.4g}, {terms.epsilon:.4g} was promised": found.prv > terms.epsilon,
        f"the ledger records epsilon {recorded:.4g}, its entries spend {found.prv:.4g}": (
            recorded < found.prv * (1 - RECORD)
        ),
        f"delta {terms.delta:.2g} is above 1 / (10 patients)": terms.delta * terms.patients * 10 > 1 + 1e-9,
        f"the unit, {terms.unit}, is neither patient nor image": terms.unit not in ("patient", "image"),
        f"{used} experts were used, {whole} are charged in full": used > whole,
        "no expert is charged in full": whole == 0,
    }
    return [fault for fault, present in faults.items() if present]


def _judge(terms: Terms, found: Spent, faults: list[str], caught: bool, shown: dict[str, float]) -> tuple[Verdict, str]:
    """The verdict and why."""
    if faults:
        return "fail", f"The guarantee does not hold: {'; '.join(faults)}."
    if not agree(found):
        return "inconclusive", "The accountants disagree, so epsilon is not known."
    if not caught:
        return "inconclusive", "Half the noise would have kept the promise too, so this account proves little."
    unit = "patient" if terms.unit == "patient" else "image, not patient: k images of one patient have k times epsilon"
    return "pass", (
        f"Epsilon {found.prv:.3g} at delta {terms.delta:.2g} for each {unit}; "
        f"a test that accuses 1 % of outsiders finds {100 * shown['0.01']:.3g} % of the members at most."
    )


def agree(found: Spent) -> bool:
    """Whether RDP lies between PRV and 1.2 PRV, and PRV within 2 % of the exact formula where there is one."""
    exact = found.prv if found.gaussian is None else found.gaussian
    return found.prv <= found.rdp <= RDP_RATIO * found.prv and abs(found.prv - exact) <= GAUSSIAN_ERROR * exact


def _ratio(numerator: float, denominator: float) -> float | None:
    """Their ratio, where it is a number."""
    return numerator / denominator if denominator and math.isfinite(numerator) else None


def _finite(value: float) -> float | None:
    """The value, None where it is infinite: JSON has no infinity."""
    return value if math.isfinite(value) else None
