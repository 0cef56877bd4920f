"""The audit on one page, for a data protection officer: questions, answers, and what was not asked."""

from collections.abc import Mapping
from typing import Any

from medistill.audit.gate import SUMMARY
from medistill.audit.table import TABLE
from medistill.evaluate.small_cells import LEAST

SIGN = {
    "pass": "no leak found",
    "fail": "LEAK FOUND",
    "inconclusive": "cannot tell",
    "not applicable": "does not apply",
}


def page(audit: Mapping[str, Any]) -> str:
    """What `medistill.audit.gate.audit_json` says, as one page of Markdown.

    Every answer stands with its power, for a search that could not have found a leak has shown nothing by its silence.
    """
    context, checks = audit["context"], audit["checks"]
    questions = {row.number: row.question for row in TABLE}
    lines = [
        "# What this set may tell about patients",
        "",
        f"**{audit['verdict'].capitalize()}.** {SUMMARY[audit['verdict']]}",
        "",
        f"Examined: {context['synthetic']} synthetic images that started from {context['start']}, made with "
        f"{_films(context, 'training')} patients; compared with {_films(context, 'holdout')} other patients. "
        f"{guarantee(audit)}",
        "",
        "| | question | answer | of planted leaks it would find |",
        "|---|---|---|---|",
    ]
    answers = {row["number"]: ("was not run", None) for row in audit["not_run"]}
    answers |= {check["number"]: (SIGN[check["verdict"]], check["power"]) for check in checks}
    for number, (answer, power) in sorted(answers.items()):
        lines.append(f"| {number} | {questions[number]} | {answer} | {'–' if power is None else f'{power:.0%}'} |")
    told = [check for check in checks if check["verdict"] in ("fail", "inconclusive")]
    if told:
        lines += ["", "## What needs a decision", ""]
        lines += [f"- **{check['name']}** ({check['verdict']}): {check['explanation']}" for check in told]
    lines += [
        "",
        "## How to read it",
        "",
        "- An answer holds for the attack that was run, at the power it states; another may succeed.",
        "- *Cannot tell* is no acquittal: the search would have missed too many leaks, mostly for want of films of "
        "other patients, or of patients with several films.",
        "- Who releases a set that is not cleared signs for it: the name and the reason travel with the set.",
        "- Every number behind this page stands in `audit.json`.",
    ]
    return "\n".join(lines) + "\n"


def _films(context: Mapping[str, Any], side: str) -> str:
    """`360 films of 60`; of few patients neither number is told, for this page is shared."""
    films, patients = context[f"{side}_films"], context[f"{side}_patients"]
    return f"films of fewer than {LEAST}" if 0 < patients < LEAST else f"{films} films of {patients}"


def guarantee(audit: Mapping[str, Any]) -> str:
    """The mathematical guarantee in a sentence, or that there is none."""
    for check in audit["checks"]:
        if check["number"] == 10 and check["verdict"] == "pass":
            return f"A mathematical guarantee was given: {check['explanation']}"
    return "There is no mathematical guarantee (differential privacy)."
