"""The formal promise of several releases together, from the ledger of each.

Releases of disjoint patients compose in parallel: a patient's films reach one of them alone, so the whole keeps the
largest epsilon and the largest delta (McSherry, Privacy integrated queries, SIGMOD 2009, theorem 4; with a delta, and
neighbours that differ by one patient added or removed, the same one line proves it). Otherwise they compose in
sequence: epsilons and deltas add up (Dwork et al. 2006). Who is a patient of which site, no release can show.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from medistill.errors import ReleaseError, UserError
from medistill.experts.accountant import HOPELESS, renyi, spent, work
from medistill.experts.ledger import Entry, Terms
from medistill.foreign import shown
from medistill.release.decision import Signed

How = Literal["parallel", "sequence", "none"]
RECORD = 1e-3
"""Share by which a ledger's recorded epsilon may lie below the one computed anew."""

MOST_WORK = 3e5
"""Of numerical composition, a few seconds; beyond, RDP is taken, which lies above it by the share `ROUGH` at most."""

ROUGH = 0.2

DEEPEST = 16
"""How often a release may have been merged before."""

ADDED = "nobody answers for it that no patient is in two of the releases, so epsilons and deltas are added up"


@dataclass(frozen=True)
class Promise:
    """What a ledger promises.

    Attributes:
        epsilon: spent.
        delta: of that epsilon.
        unit: patient or image.
        accounts: the random names of the accounts behind it: one name is one group of patients.
    """

    epsilon: float
    delta: float
    unit: str
    accounts: frozenset[str]


def compose(ledgers: Mapping[str, Mapping[str, Any] | None], disjoint: Signed | None) -> dict[str, Any] | None:
    """The ledger of releases merged, by name; None when none of them has one.

    Args:
        ledgers: each release's ledger, plain or of releases merged before; None: it makes no promise.
        disjoint: who answers for it that no patient is in two of them, and why; None: nobody.

    Returns:
        {"format": 1, "composition": "parallel", "sequence" or "none", "epsilon", "delta", "unit": of the whole, None
        without a promise, "disjoint": {"name", "reason"} or None, "explanation": a sentence, "parts": {name: ledger}}.

    Raises:
        UserError: patients are said to be disjoint, but two releases were drawn on one account.
        ReleaseError: a ledger is damaged, or its entries spend more than it says.
    """
    present = {name: ledger for name, ledger in ledgers.items() if ledger is not None}
    if not present:
        return None
    promises = {name: promise_of(name, ledger) for name, ledger in present.items()}
    how, epsilon, delta, explanation = _composed(list(ledgers), promises, disjoint)
    units = {promise.unit for promise in promises.values() if promise}
    return {
        "format": 1,
        "composition": how,
        "epsilon": epsilon,
        "delta": delta,
        "unit": units.pop() if how != "none" else None,
        "disjoint": vars(disjoint) if disjoint else None,
        "explanation": explanation,
        "parts": dict(ledgers),
    }


def _composed(
    names: Sequence[str], promises: Mapping[str, Promise | None], disjoint: Signed | None
) -> tuple[How, float | None, float | None, str]:
    """How they compose, epsilon, delta and a sentence."""
    if lacking := [name for name in names if promises.get(name) is None]:
        why = f"no guarantee for the whole: {', '.join(lacking)} makes none; each other release keeps its own"
        return "none", None, None, why
    held = {name: promise for name, promise in promises.items() if promise}
    if len({promise.unit for promise in held.values()}) > 1:
        told = ", ".join(f"{name}: {promise.unit}" for name, promise in held.items())
        return "none", None, None, f"no guarantee for the whole: the units differ ({told}); each release keeps its own"
    if disjoint:
        _require_apart(held)
        epsilon, delta = max(one.epsilon for one in held.values()), max(one.delta for one in held.values())
        why = f"no patient is in two of the releases, for which {disjoint.name} answers: {disjoint.reason}"
        return "parallel", epsilon, delta, f"the largest epsilon and delta of the releases, provided that {why}"
    once = {promise.accounts: promise for promise in sorted(held.values(), key=lambda one: (one.epsilon, one.delta))}
    return "sequence", sum(one.epsilon for one in once.values()), sum(one.delta for one in once.values()), ADDED


def _require_apart(promises: Mapping[str, Promise]) -> None:
    """Raise a UserError when two releases come from one account, whose patients are the same."""
    seen: dict[str, str] = {}
    for name, promise in promises.items():
        for account in promise.accounts:
            if account in seen:
                raise UserError(
                    f"--disjoint: {name} and {seen[account]} were drawn on one privacy account, so their patients are "
                    "the same; leave --disjoint out, or merge one of them"
                )
            seen[account] = name


def promise_of(name: str, ledger: Mapping[str, Any], levels: int = DEEPEST) -> Promise | None:
    """What a ledger promises, its epsilon computed anew from its entries; None for a merged one without a promise."""
    try:
        if not levels:
            raise ValueError("merged too often")
        promise = _of_merged(name, ledger, levels) if "composition" in ledger else _of_account(name, ledger)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"{shown(name, 80)}: its privacy ledger is damaged ({type(error).__name__}); ask its "
            "source for a sound release"
        ) from error
    if promise and not (0 <= promise.epsilon < math.inf and 0 < promise.delta < 1):
        return None
    return promise


def _of_account(name: str, ledger: Mapping[str, Any]) -> Promise:
    """The promise of experts trained on one account."""
    terms, recorded = Terms(**ledger["terms"]), float(ledger["spent"]["epsilon"])
    mechanisms = [Entry(**entry).mechanism for entry in ledger["entries"]]
    rough = renyi(mechanisms, terms.delta)
    # a ledger may be made up so that numerical composition takes days
    slow = rough <= HOPELESS and work(mechanisms, rough) > MOST_WORK
    found, share = (rough, ROUGH) if slow else (spent(mechanisms, terms.delta).prv, RECORD)
    if not recorded >= found * (1 - share):
        raise ReleaseError(
            f"{shown(name, 80)}: its privacy ledger records epsilon {recorded:.4g}, but its entries spend {found:.4g}; "
            "ask its source for a sound release"
        )
    return Promise(recorded, terms.delta, str(terms.unit), frozenset([str(ledger["id"])]))


def _of_merged(name: str, ledger: Mapping[str, Any], levels: int) -> Promise | None:
    """The promise of releases merged before: composed anew from their ledgers, by the word that was given then."""
    parts, word = ledger["parts"], ledger["disjoint"]
    held = {part: promise_of(f"{name}, {part}", own, levels - 1) for part, own in parts.items() if own is not None}
    how, epsilon, delta, _ = _composed(list(parts), held, Signed(**word) if word else None)
    if not held or how != ledger["composition"]:
        raise ValueError("composed otherwise")
    if epsilon is None or delta is None:
        return None
    if not (ledger["epsilon"] >= epsilon * (1 - RECORD) and ledger["delta"] >= delta * (1 - RECORD)):
        raise ReleaseError(
            f"{shown(name, 80)}: its privacy ledger says epsilon {ledger['epsilon']:.4g}, but its parts come to "
            f"{epsilon:.4g}; ask its source for a sound release"
        )
    promises = [promise for promise in held.values() if promise]
    return Promise(epsilon, delta, promises[0].unit, frozenset(a for promise in promises for a in promise.accounts))
