"""The gate: one verdict over all checks; `medistill.release.decision` refuses a release on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from medistill.audit.check import Check, Verdict
from medistill.audit.table import Row
from medistill.release.consistent import overall_verdict

SUMMARY: dict[Verdict, str] = {
    "fail": "At least one check found a leak: this set must not be released as it is.",
    "inconclusive": "No check found a leak, but at least one could not have seen one, was not run, or none applied.",
    "pass": "Every check that applies passed at the power it states; attacks not run may still succeed.",
}


def summarise(checks: Sequence[Check], not_run: Sequence[Row] = ()) -> Verdict:
    """One verdict: fail if any check fails, else inconclusive if any is or was not run, else pass.

    Checks that do not apply have no say; where none applies nothing was shown: inconclusive.
    """
    return overall_verdict((check.verdict for check in checks), all_run=not not_run)


def audit_json(checks: Sequence[Check], context: Mapping[str, Any], not_run: Sequence[Row] = ()) -> dict[str, Any]:
    """The audit as it is written to disk and shown; docs/audit.md describes it field by field.

    Args:
        checks: the outcomes, in the order in which they shall be read.
        context: what was audited (digests, counts, seed), JSON-able and free of patients.
        not_run: rows of the table that were left out.

    Returns:
        {"verdict": str,             the verdict of `summarise`
         "context": {...},           `context` as given
         "checks": [{...}, ...],     `Check.to_json` of each check
         "not_run": [{"number": int, "name": str}, ...]
         "words": [str, ...]}        the summary in a sentence, then one sentence a check
    """
    verdict = summarise(checks, not_run)
    return {
        "verdict": verdict,
        "context": dict(context),
        "checks": [check.to_json() for check in checks],
        "not_run": [{"number": row.number, "name": row.name} for row in not_run],
        "words": [SUMMARY[verdict], *(f"{c.name}: {c.verdict}. {c.explanation}" for c in checks)],
    }
