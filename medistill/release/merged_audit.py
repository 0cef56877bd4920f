"""The audit of merged releases: every check of every part under its site's name, and the worst of their verdicts.

Nothing is attacked anew. Merging reads no patient: what an attacker learns from the merged set, anyone can who holds
the parts, which were shared before. What no part was audited for, an attack on the parts together, is said not to have
been run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from medistill.release.consistent import overall_verdict
from medistill.release.part import Part

NOT_AUDITED = (
    "The merged set was not attacked as a whole: these are the checks of each release in it, by the name of its "
    "source. Merging reads no patient, so what the merged set tells, the releases told before."
)
NUMBER = 10  # of the check that states a formal promise
TELLING = ("real", "class_mean", "private_means", "phantom", "noise")
"""Starts, the one that shows most of patients first."""


def start_of(parts: Sequence[Part]) -> str:
    """What a merged set started from: of its parts' starts the one that shows most; one that is not known shows all."""
    starts = [str(part.distilled.provenance.get("start", "unknown")) for part in parts]
    return min(starts, key=lambda start: TELLING.index(start) if start in TELLING else -1)


def merged_audit(parts: Sequence[Part], ledger: Mapping[str, Any] | None) -> dict[str, Any]:
    """The audit as `medistill.audit.gate.audit_json` makes one.

    Args:
        parts: the releases.
        ledger: what `medistill.release.composition.compose` returns.
    """
    audits = {part.name: part.verified.audit for part in parts}
    checks = [
        {**check, "name": f"{name}: {check['name']}", "site": name}
        for name, audit in audits.items()
        for check in audit["checks"]
    ]
    checks += [_promise(ledger)] if ledger else []
    not_run = [
        {**row, "name": f"{name}: {row['name']}", "site": name}
        for name, audit in audits.items()
        for row in audit.get("not_run", [])
    ]
    verdict = overall_verdict([check["verdict"] for check in checks], not not_run)
    return {
        "verdict": verdict,
        "context": {"start": start_of(parts), "merged": {name: _told(audit) for name, audit in audits.items()}},
        "checks": checks,
        "not_run": not_run,
        "words": [NOT_AUDITED, *(f"{name}: {audit['verdict']}." for name, audit in audits.items())],
    }


def _told(audit: Mapping[str, Any]) -> dict[str, Any]:
    """An audit less its checks, which stand with all others."""
    return {key: value for key, value in audit.items() if key not in ("checks", "not_run")}


def _promise(ledger: Mapping[str, Any]) -> dict[str, Any]:
    """The formal promise of the whole, as a check; it does not apply where there is none."""
    whole = ledger["composition"] != "none"
    stated = (
        f"Epsilon {ledger['epsilon']:.3g} at delta {ledger['delta']:.2g} for each {ledger['unit']}: " if whole else ""
    )
    return {
        "number": NUMBER,
        "name": "DP statement of the whole",
        "verdict": "pass" if whole else "not applicable",
        "statistic": {key: ledger[key] for key in ("composition", "epsilon", "delta", "unit")},
        "interval": None,
        "power": None,
        "positive_control": "none: composed from the ledgers of the releases",
        "negative_control": "none: composed from the ledgers of the releases",
        "explanation": f"{stated}{ledger['explanation']}.",
    }


def words_of(parts: Sequence[Part]) -> dict[str, Any]:
    """Who answered for the parts, as `medistill.release.decision.decide` takes it for the whole.

    Every part passed by itself or somebody answered for it; `decide` lets the word of who overrode an audit count for
    the whole, if anybody did, and else that of who accepted what was open.
    """
    overrides, accepted = (_together(parts, key) for key in ("override", "accepted"))
    failed = [f"{part.name}: {name}" for part in parts for name in _failed_before(part.verified.audit)]
    return {"override": overrides, "accept": accepted, "failed_before": failed}


def _together(parts: Sequence[Part], key: str) -> str:
    """ "names: reasons" of those who gave this word, each with the name of what they answered for."""
    given = [(part.name, word) for part in parts if (word := part.verified.audit["decision"][key])]
    names = ", ".join(f"{word['name']} ({_plain(name)})" for name, word in given)
    reasons = "; ".join(f"{_plain(name)}: {word['reason']}" for name, word in given)
    return f"{names}: {reasons}" if given else ""


def _plain(name: str) -> str:
    """A source's name without the mark that parts a person's name from a reason."""
    return name.replace(":", " ")


def _failed_before(audit: Mapping[str, Any]) -> list[str]:
    """Checks that failed in other audits of a part."""
    failed: list[str] = audit["decision"]["failed"]
    return failed[sum(check["verdict"] == "fail" for check in audit["checks"]) :]
