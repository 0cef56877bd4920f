"""The gate: one verdict over all checks; `medistill.release.bundle` refuses to write when it is fail."""

from collections.abc import Mapping, Sequence
from typing import Any

from medistill.audit.check import Check, Verdict

_SUMMARY: dict[Verdict, str] = {
    "fail": "At least one check found a leak: this set must not be released as it is.",
    "inconclusive": "No check found a leak, but at least one could not have seen one, or none applied.",
    "pass": "Every check that applies passed at the power it states; attacks not run may still succeed.",
}


def summarise(checks: Sequence[Check]) -> Verdict:
    """One verdict: fail if any check fails, else inconclusive if any is, else pass.

    Checks that do not apply have no say; where none applies nothing was shown: inconclusive.
    """
    verdicts = {check.verdict for check in checks} - {"not applicable"}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "inconclusive"


def audit_json(checks: Sequence[Check], context: Mapping[str, Any]) -> dict[str, Any]:
    """The audit as it is written to disk and shown.

    Args:
        checks: the outcomes, in the order in which they shall be read.
        context: what was audited (digests, counts, seed), JSON-able and free of patients.

    Returns:
        {"verdict": str,             the verdict of `summarise`
         "context": {...},           `context` as given
         "checks": [{...}, ...],     `Check.to_json` of each check
         "words": [str, ...]}        the summary in a sentence, then one sentence a check
    """
    verdict = summarise(checks)
    return {
        "verdict": verdict,
        "context": dict(context),
        "checks": [check.to_json() for check in checks],
        "words": [_SUMMARY[verdict], *(f"{c.name}: {c.verdict}. {c.explanation}" for c in checks)],
    }
