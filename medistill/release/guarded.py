"""What a release does not say: in DP mode all that was measured on patients, and elsewhere what speaks of few."""

from collections.abc import Mapping
from typing import Any

# Checks whose numbers no patient has a part in: canaries run on pseudo-patients, the statement on the ledger.
FREE = (7, 10)
OUTSIDE = "measured on real patients, so outside epsilon: the numbers stay in the house, the verdict stands here"
FEW = "a class has fewer than 10 test patients, so figures would speak of single ones and stay"
WITHHELD_FEW = {"withheld": FEW}
WITHHELD = {"withheld": "figures measured on real patients are outside epsilon and stay in the house"}


def verdicts_only(audit: Mapping[str, Any], why: str = OUTSIDE) -> dict[str, Any]:
    """An audit without any number that patients have a part in, not even a digest of those numbers; it says why."""
    return {
        "verdict": audit["verdict"],
        "context": {"start": audit["context"].get("start"), "quick": audit["context"].get("quick")},
        "checks": [check if check["number"] in FREE else _verdict(check, why) for check in audit["checks"]],
        "not_run": audit.get("not_run", []),
        "words": [audit["words"][0]],
    }


def _verdict(check: Mapping[str, Any], why: str) -> dict[str, Any]:
    """A check with its verdict alone."""
    return {
        "number": check["number"],
        "name": check["name"],
        "verdict": check["verdict"],
        "statistic": {},
        "interval": None,
        "power": None,
        "positive_control": f"none: {why}",
        "negative_control": f"none: {why}",
        "explanation": sentence(why),
    }


def sentence(words: str) -> str:
    """Words as a sentence of the card."""
    return f"{words[:1].upper()}{words[1:]}."
