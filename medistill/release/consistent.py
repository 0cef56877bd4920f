"""Whether the parts of a release say the same: a verdict that its own checks do not bear out is a downgraded audit."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError, UserError
from medistill.foreign import shown
from medistill.release.card import METRICS
from medistill.release.decision import decide
from medistill.release.manifest import AGAIN, AUDIT, CARD, CONFIG, EVALUATION

VERDICTS = ("pass", "fail", "inconclusive", "not applicable")
DECIDED = ("verdict", "failed", "inconclusive", "not_run", "override", "accepted")

_IN_CARD = re.compile(r"Overall verdict: \*\*(.*?)\*\*")


def overall_verdict(verdicts: Iterable[object], all_run: bool) -> Literal["pass", "fail", "inconclusive"]:
    """One verdict over all checks: fail if any fails, else inconclusive if any is or was not run, else pass.

    Checks that do not apply have no say; where none applies nothing was shown: inconclusive.
    """
    found = set(verdicts) - {"not applicable"}
    if "fail" in found:
        return "fail"
    return "pass" if found == {"pass"} and all_run else "inconclusive"


def require_honest_audit(audit: Mapping[str, Any], start: object) -> None:
    """Raise a ReleaseError unless an audit's verdict and decision follow from its checks.

    Args:
        audit: audit.json.
        start: what the set started from, as in its provenance.
    """
    checks, not_run = _rows(audit, "checks"), _rows(audit, "not_run")
    verdicts = [check.get("verdict") for check in checks]
    if wrong := [verdict for verdict in verdicts if verdict not in VERDICTS]:
        raise ReleaseError(f"{AUDIT}: a check with the verdict {shown(wrong[0], 40)!r}; {AGAIN}")
    if not all(isinstance(check.get("explanation"), str) for check in checks):
        raise ReleaseError(f"{AUDIT}: a check without an explanation; {AGAIN}")
    follows, stated = overall_verdict(verdicts, not not_run), audit.get("verdict")
    if stated != follows:
        raise ReleaseError(
            f"{AUDIT}: says {shown(stated, 40)!r}, but its checks come to {follows!r}: it was altered; {AGAIN}"
        )
    decision = audit.get("decision")
    if not isinstance(decision, dict):
        raise ReleaseError(f"{AUDIT}: does not say who decided on the release and how; {AGAIN}")
    _require_decided(audit, decision, str(start))


def _rows(audit: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of named rows of an audit."""
    rows = audit.get(name, [] if name == "not_run" else None)
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows
    ):
        raise ReleaseError(f"{AUDIT}: its {name} are no list of named checks; {AGAIN}")
    return rows


def _require_decided(audit: Mapping[str, Any], decision: dict[str, Any], start: str) -> None:
    """Decide anew with the words that stand in the decision: the outcome must be the decision."""
    failed = decision.get("failed")
    if not isinstance(failed, list) or not all(isinstance(name, str) for name in failed):
        raise ReleaseError(f"{AUDIT}: its decision does not name what failed; {AGAIN}")
    own = [check["name"] for check in audit["checks"] if check["verdict"] == "fail"]
    words = {option: _word(decision, key) for option, key in (("override", "override"), ("accept", "accepted"))}
    try:
        anew = decide(audit, start, failed_before=failed[len(own) :], **words)
    except UserError as error:
        raise ReleaseError(
            f"{AUDIT}: verdict {audit['verdict']!r} from {shown(start, 40)} films, but nobody answers for its release "
            f"by name and reason: it was altered; {AGAIN}"
        ) from error
    if different := [key for key in DECIDED if key not in decision or decision[key] != anew[key]]:
        raise ReleaseError(f"{AUDIT}: {different[0]!r} of its decision does not follow from its checks; {AGAIN}")


def _word(decision: Mapping[str, Any], key: str) -> str:
    """Who answered and why, as `decide` takes it; "" for nobody."""
    word = decision.get(key)
    if word is None:
        return ""
    if (
        not isinstance(word, dict)
        or set(word) != {"name", "reason"}
        or not all(isinstance(w, str) for w in word.values())
    ):
        raise ReleaseError(f"{AUDIT}: {key!r} of its decision is not a name with a reason; {AGAIN}")
    return f"{word['name']}: {word['reason']}"


def require_sound_evaluation(evaluation: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Raise a ReleaseError for an evaluation of other classes, or whose figures are no numbers."""
    if "classes" in evaluation and evaluation["classes"] != list(classes):
        raise ReleaseError(f"{EVALUATION}: of other classes than the set has; {AGAIN}")
    arms = evaluation.get("arms", {})
    if not isinstance(arms, dict) or not all(isinstance(arm, dict) for arm in arms.values()):
        raise ReleaseError(f"{EVALUATION}: its arms are no JSON objects; {AGAIN}")
    for arm in arms.values():
        for name in ("mean", "sd"):
            figures = arm.get(name, {})
            if not isinstance(figures, dict) or not all(_is_number(figure) for figure in figures.values()):
                raise ReleaseError(f"{EVALUATION}: a figure that is no number; {AGAIN}")
            if any(figure is not None and not 0 <= figure <= 1 for key, figure in figures.items() if key in METRICS):
                raise ReleaseError(f"{EVALUATION}: a figure that is not between 0 and 1; {AGAIN}")


def _is_number(value: object) -> bool:
    """Whether it is a figure; None stands for one that could not be computed."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def require_agreement(distilled: Distilled, audit: Mapping[str, Any], config: Mapping[str, Any], card: str) -> None:
    """Raise a ReleaseError where the config or the card says another thing than the set and the audit do."""
    net, known = distilled.architecture, distilled.provenance
    claims = {
        ("data", "size"): net.size,
        ("net", "name"): net.name,
        ("distill", "start"): known.get("start"),
    }
    for (section, name), held in claims.items():
        part = config.get(section)
        said = part.get(name) if isinstance(part, dict) else None
        if isinstance(said, str | int) and held is not None and said != held:
            raise ReleaseError(
                f"{CONFIG}: {section}.{name} is {shown(said, 40)}, but the set says {shown(held, 40)}; {AGAIN}"
            )
    if wrong := [said for said in _IN_CARD.findall(card) if said != audit["verdict"]]:
        raise ReleaseError(f"{CARD}: says {shown(wrong[0], 40)!r}, {AUDIT} says {audit['verdict']!r}; {AGAIN}")
    for key in ("override", "accepted"):
        word = audit["decision"][key]
        if word and " ".join(word["name"].split()) not in card.replace("\\", ""):
            raise ReleaseError(f"{CARD}: does not name who answered for the release, {AUDIT} does; {AGAIN}")
