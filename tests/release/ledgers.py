"""A privacy ledger made in no time, whose epsilon is what its entries spend."""

from dataclasses import replace
from typing import Any

from medistill.experts.accountant import spent
from medistill.experts.ledger import Entry, Terms


def ledger(account: str, noise: float, delta: float = 1e-4, unit: str = "patient") -> dict[str, Any]:
    """As two experts of one step each at full batch leave it: one Gaussian mechanism of mu = sqrt(2) / noise."""
    entries = [Entry(f"expert {k}", 0, 1, noise, 1.0) for k in range(2)]
    epsilon = spent([entry.mechanism for entry in entries], delta).prv
    terms = {
        "unit": unit, "patients": 500, "epsilon": 2 * epsilon, "delta": delta, "clip": 1.0, "rate": 1.0, "experts": 2,
        "steps": 1, "reserve": 0, "means": 0.0,
    }  # fmt: skip
    spend = {"epsilon": epsilon, "epsilon_rdp": epsilon, "delta": delta}
    return {
        "format": 1,
        "id": account,
        "terms": terms,
        "noise": {"step": noise, "means": 0.0},
        "entries": [vars(entry) for entry in entries],
        "spent": spend,
    }


def kept(parts: dict[str, Any], account: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `write_release` as they are in DP mode, with the guarantee of this account."""
    terms, recorded = Terms(**account["terms"]), account["spent"]["epsilon"]
    made = parts["distilled"]
    promise = {"guarantee": terms.words, "ledger": account["id"]}
    statistic = {"epsilon": recorded, "epsilon_promised": terms.epsilon, "epsilon_recorded": recorded, "experts": 2}
    statement = {
        "number": 10,
        "name": "DP statement",
        "verdict": "pass",
        "explanation": "Kept.",
        "statistic": statistic | {"delta": terms.delta, "unit": terms.unit},
    }
    audit = parts["audit"]
    checks = [*({**check, "number": 1} for check in audit["checks"]), statement]
    return parts | {
        "distilled": replace(made, provenance=made.provenance | promise),
        "audit": audit | {"checks": checks, "words": ["All passed."]},
        "ledger": account,
    }
