"""Whether an audit lets a set be released, and who answered for it where it does not do so by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medistill.distill.initial import PUBLIC
from medistill.errors import UserError


@dataclass(frozen=True)
class Signed:
    """A person's word, as it is stored in the release, beside the audit and in MLflow."""

    name: str
    reason: str

    @classmethod
    def parse(cls, option: str, text: str) -> "Signed | None":
        """Read "name: reason"; None for an empty text.

        Raises:
            UserError: one of the two is missing.
        """
        if not text.strip():
            return None
        name, _, reason = (" ".join(part.split()) for part in text.partition(":"))
        if not (name and reason):
            raise UserError(
                f'{option} is {text!r}; give who answers for it and why, as in "Dr. A. Example: phantom films only"'
            )
        return cls(name, reason)


def decide(
    audit: Mapping[str, Any], start: str, *, override: str = "", accept: str = "", failed_before: Sequence[str] = ()
) -> dict[str, Any]:
    """Whether a set from this start may be released.

    A pass needs nobody's word. What is inconclusive, and a check that was not run, needs an acceptance. A check that
    failed needs an override; so does anything but a pass where the start shows patients, for there a leak is the
    likely case (check 0 leaves such a start open, so it always does). An override covers what an acceptance covers.

    Args:
        audit: what `medistill.audit.gate.audit_json` returns.
        start: of the distilled set, as in its provenance.
        override: "name: reason" of who releases it nevertheless; "" for nobody.
        accept: "name: reason" of who accepts what is inconclusive; "" for nobody.
        failed_before: checks that failed in other audits of this set.

    Returns:
        {"verdict": str, "failed": [name, ...], "inconclusive": [...], "not_run": [...], "override": {"name", "reason"}
        or None, "accepted": likewise}; words that were not needed are left out.

    Raises:
        UserError: it may not; or a word is not of the form.
    """
    overridden = Signed.parse("release.override", override)
    accepted = Signed.parse("release.accept", accept)
    failed, open_ = [*_named(audit, "fail"), *failed_before], _named(audit, "inconclusive")
    not_run = [str(check["name"]) for check in audit.get("not_run", [])]
    verdict = audit["verdict"]
    hard = bool(failed) or verdict == "fail" or (verdict != "pass" and start not in PUBLIC)
    if hard and overridden is None:
        raise UserError(_failed(audit, start, failed_before) if failed else _unclear_start(verdict, start))
    if not hard and verdict != "pass" and overridden is None and accepted is None:
        raise UserError(_unaccepted(open_, not_run))
    return {
        "verdict": verdict,
        "failed": failed,
        "inconclusive": open_,
        "not_run": not_run,
        "override": vars(overridden) if overridden and (hard or verdict != "pass") else None,
        "accepted": vars(accepted) if accepted and verdict == "inconclusive" and not hard else None,
    }


def _named(audit: Mapping[str, Any], verdict: str) -> list[str]:
    """The names of the checks with this verdict."""
    return [str(check["name"]) for check in audit["checks"] if check["verdict"] == verdict]


def _failed(audit: Mapping[str, Any], start: str, failed_before: Sequence[str]) -> str:
    remedy = (
        "distil again with experts.private.epsilon, from more patients or for fewer images a class"
        if start in PUBLIC
        else "distil again from noise or phantom films instead of real ones"
    )
    reasons = [
        f"{check['name']!r} ({check['explanation'].rstrip('.')})"
        for check in audit["checks"]
        if check["verdict"] == "fail"
    ] + [f"{name!r}, an audit of the same set" for name in failed_before]
    return (
        f"audit: {', '.join(reasons)} failed, so nothing is released; {remedy} and repeat the audit "
        '(or answer for it: the same command with --override "name: reason", stored in the release)'
    )


def _unclear_start(verdict: str, start: str) -> str:
    return (
        f"audit: verdict {verdict} for a set that started from {start} films, so nothing is released; such a start "
        "shows patients: start from noise or phantom films (or answer for it: the same command with "
        '--override "name: reason", stored in the release)'
    )


def _unaccepted(inconclusive: list[str], not_run: list[str]) -> str:
    found = [
        *([f"inconclusive: {', '.join(inconclusive)}"] if inconclusive else []),
        *([f"not run: {', '.join(not_run)}"] if not_run else []),
    ]
    return (
        f"audit: no leak was found, but not every check could speak ({'; '.join(found) or 'none applied'}), so nothing "
        "is released yet; read summary.md beside audit.json, then accept it: the same command with "
        '--accept "name: reason"'
    )
