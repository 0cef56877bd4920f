"""Whether the privacy ledger of a release is the account of this very set, and all that is said of it the same."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medistill.errors import ReleaseError, UserError
from medistill.experts.ledger import FILE, Entry, Noise, Terms, require_form
from medistill.release.composition import RECORD, compose, promise_of
from medistill.release.decision import Signed
from medistill.release.manifest import AGAIN, AUDIT
from medistill.release.merge import PARTS
from medistill.release.parse import DAMAGED

NUMBER = 10  # of the check that states a formal promise
MOST_ENTRIES = 100_000


def require_promise(provenance: Mapping[str, Any], audit: Mapping[str, Any], ledger: Mapping[str, Any] | None) -> None:
    """Raise a ReleaseError where a ledger, the set's provenance and the audit's check 10 do not promise the same.

    Args:
        provenance: of the set.
        audit: audit.json.
        ledger: privacy_ledger.json; None: there is none.
    """
    checks = [check for check in audit["checks"] if check.get("number") == NUMBER]
    try:
        if PARTS in provenance:
            _require_merged(provenance, ledger, checks)
        else:
            _require_own(provenance, ledger, checks)
            if ledger is not None:
                promise_of(FILE, ledger)
    except ReleaseError:
        raise
    except (UserError, *DAMAGED) as error:
        raise ReleaseError(f"{FILE}: damaged, or not the account of this set; {AGAIN}") from error


def _require_own(
    story: Mapping[str, Any], ledger: Mapping[str, Any] | None, checks: Sequence[Mapping[str, Any]] | None
) -> None:
    """A set that was distilled: its ledger is the account that its provenance names, spent by nothing else.

    `checks` are the audit's of this number; None: they are not looked at.
    """
    if ledger is None:
        if "guarantee" in story or "ledger" in story:
            raise ReleaseError(f"{FILE}: missing, though the set says that it has a guarantee; {AGAIN}")
        if any(check["verdict"] == "pass" for check in checks or ()):
            raise ReleaseError(f"{AUDIT}: states a guarantee, but the set makes none; {AGAIN}")
        return
    if story.get("ledger") != ledger["id"] or "guarantee" not in story:
        raise ReleaseError(f"{FILE}: not the account of this set, which its provenance would name; {AGAIN}")
    require_form(dict(ledger))
    terms, noise, entries = Terms(**ledger["terms"]), Noise(**ledger["noise"]), ledger["entries"]
    if story["guarantee"] != terms.words or ledger["spent"]["delta"] != terms.delta:
        raise ReleaseError(f"{FILE}: promises something else than the set says; {AGAIN}")
    if len(entries) > MOST_ENTRIES or not all(_drawn_as_said(Entry(**entry), terms, noise) for entry in entries):
        raise ReleaseError(f"{FILE}: charges noise that this account does not draw; {AGAIN}")
    whole = _whole(entries, terms.steps)
    if whole < terms.experts or (story.get("start") == "private_means" and not _means(entries)):
        raise ReleaseError(f"{FILE}: does not charge all that the set was made of; {AGAIN}")
    if checks is not None:
        _require_stated(ledger, terms, whole, checks)


def _require_stated(ledger: Mapping[str, Any], terms: Terms, whole: int, checks: Sequence[Mapping[str, Any]]) -> None:
    """The audit states the terms of the ledger and what it spends, once."""
    recorded = ledger["spent"]["epsilon"]
    if len(checks) != 1:
        raise ReleaseError(f"{AUDIT}: does not state the guarantee of {FILE} once; {AGAIN}")
    said = checks[0].get("statistic") or {}
    stated = {
        "epsilon_promised": terms.epsilon,
        "epsilon_recorded": recorded,
        "delta": terms.delta,
        "unit": terms.unit,
        "experts": whole,
    }
    near = isinstance(said.get("epsilon"), float) and math.isclose(said["epsilon"], recorded, rel_tol=2 * RECORD)
    if {key: said.get(key) for key in stated} != stated or not near:
        raise ReleaseError(f"{AUDIT}: states another guarantee than {FILE}; {AGAIN}")


def _drawn_as_said(entry: Entry, terms: Terms, noise: Noise) -> bool:
    """Whether an entry is a step of an expert, or the class means, with the noise of the account."""
    drawn = (entry.noise_multiplier, entry.rate)
    means = entry.what == "class means" and drawn == (noise.means, 1.0)
    return means or (entry.what.startswith("expert ") and drawn == (noise.step, terms.rate))


def _whole(entries: Sequence[Mapping[str, Any]], steps: int) -> int:
    """How many experts are charged for so many steps or more."""
    charged: Counter[str] = Counter()
    for entry in entries:
        charged[entry["what"]] += entry["steps"]
    return sum(count >= steps for what, count in charged.items() if what.startswith("expert "))


def _means(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the class means are charged."""
    return any(entry["what"] == "class means" for entry in entries)


def _require_merged(
    story: Mapping[str, Any], ledger: Mapping[str, Any] | None, checks: Sequence[Mapping[str, Any]]
) -> None:
    """A set that was merged: its ledger holds each part's, and composes them by the word in the provenance."""
    own = [check for check in checks if "site" not in check]
    _require_parts(story[PARTS], ledger, checks)
    if ledger is None:
        if own:
            raise ReleaseError(f"{AUDIT}: states a guarantee, but no part of the set makes one; {AGAIN}")
        return
    word = story.get("disjoint")
    whole = compose(
        {part["name"]: ledger["parts"][part["name"]] for part in story[PARTS]}, Signed(**word) if word else None
    )
    if whole is None or not all(_same(ledger[key], value) for key, value in whole.items()):
        raise ReleaseError(f"{FILE}: says something else than its parts come to; {AGAIN}")
    stated = {key: ledger[key] for key in ("composition", "epsilon", "delta", "unit")}
    verdict = "not applicable" if ledger["composition"] == "none" else "pass"
    if [(check.get("statistic"), check["verdict"]) for check in own] != [(stated, verdict)]:
        raise ReleaseError(f"{AUDIT}: states another guarantee than {FILE}; {AGAIN}")


def _require_parts(
    records: Sequence[Mapping[str, Any]],
    ledger: Mapping[str, Any] | None,
    checks: Sequence[Mapping[str, Any]] | None,
) -> None:
    """Each part's ledger is that of its record; `checks` are those of the audit, None: they are not looked at."""
    held = {} if ledger is None else ledger["parts"]
    if ledger is not None and sorted(held) != sorted(record["name"] for record in records):
        raise ReleaseError(f"{FILE}: of other parts than the set; {AGAIN}")
    for record in records:
        name, account = record["name"], held.get(record["name"])
        if PARTS in record:
            _require_parts(record[PARTS], account, None)
            continue
        told = None if checks is None else [check for check in checks if check.get("site") == name]
        _require_own(record, account, told)


def _same(said: object, value: object) -> bool:
    """Whether they are equal, numbers but for rounding."""
    if isinstance(said, float) and isinstance(value, float):
        return math.isclose(said, value, rel_tol=1e-9)
    return said == value
