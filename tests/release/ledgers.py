"""A privacy ledger made in no time, whose epsilon is what its entries spend."""

from typing import Any

from medistill.experts.accountant import spent
from medistill.experts.ledger import Entry


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
