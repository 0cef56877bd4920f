"""What a release claims of itself, held against what the tracking store recorded of it."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from medistill.release.guarded import FEW, WITHHELD_FEW, verdicts_only
from medistill.release.redact import redact
from medistill.release.verify import Verified
from medistill.track.reading import Record
from medistill.track.store import AFTERWARDS
from medistill.track.walk import Step, Walk

# releases written before bore the key of the audit behind the check's name
_BY_KEY = re.compile(r" \(audit-[0-9a-f]{8}\)$")


def disagreements(found: Verified, way: Walk, record: Record) -> list[str]:
    """A sentence for everything in which a verified release and its record differ, gaps of the record included."""
    release = way.steps["release"]
    return [
        *way.gaps,
        *_sums(found, way, record),
        *_decision(found, release, record),
        *_config(found, release),
        *(_audit(found, way.steps["audit"], record) if "audit" in way.steps else ()),
        *(_evaluation(found, way.steps["evaluate"]) if "evaluate" in way.steps else ()),
        *_other_audits(found, way),
        *_aliases(found, way),
    ]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings, by dotted name, that differ between two configs; who answers for a release is none of them."""
    first, second = (dict(_flat({**config, "release": {}})) for config in (one, other))
    names = sorted(first.keys() | second.keys())
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _sums(found: Verified, way: Walk, record: Record) -> Iterator[str]:
    """Whether the run lists the very files of the folder, and the same signatory."""
    text = record.text(way.steps["release"].run.run_id, "SHA256SUMS")
    if text is None:
        yield "release: SHA256SUMS of its run is missing"
    elif hashlib.sha256(text.encode()).hexdigest() != found.digest:
        yield "SHA256SUMS: the release's run recorded other files than the folder holds"
    if way.signer != found.fingerprint:
        here, there = found.fingerprint or "nobody's key", way.signer or "nobody's key"
        yield f"signature.json: the folder is signed by {here}, its record says {there}"


def _decision(found: Verified, release: Step, record: Record) -> Iterator[str]:
    """Whether the same people answered for it."""
    decision = found.audit["decision"]
    text = record.text(release.run.run_id, "decision.json")
    if text is None:
        yield "release: decision.json of its run is missing"
    elif _parsed(text) != decision:
        yield "audit.json: its decision is not the one that the release's run recorded"
    for name in ("override", "accepted"):
        word = decision[name]
        if release.run.tags.get(name) != (f"{word['name']}: {word['reason']}" if word else None):
            yield f"audit.json: who answered ({name}) is not whom the release's run names"
    if release.run.tags.get("verdict") != decision["verdict"]:
        yield f"audit.json: verdict {decision['verdict']}, but the release's run says {release.run.tags.get('verdict')}"


def _config(found: Verified, release: Step) -> Iterator[str]:
    """Whether the settings are those of the run, of the one that wrote it."""
    if AFTERWARDS in release.run.tags or not release.config:
        return
    for name, (here, there) in differing(found.config, redact(release.config)).items():
        yield f"config.yaml: {name} is {here!r}, in the release's run {there!r}"


def _reduced(audit: Mapping[str, Any], found: Verified) -> list[dict[str, Any]]:
    """What may leave of an audit whose numbers stay in the house."""
    guarded = [verdicts_only(audit)] if "guarantee" in found.distilled.provenance else []
    return guarded + ([verdicts_only(audit, FEW)] if found.evaluation == WITHHELD_FEW else [])


def _audit(found: Verified, audit: Step, record: Record) -> Iterator[str]:
    """Whether the audit is the one that was recorded; in DP mode it leaves without its numbers."""
    text = record.text(audit.run.run_id, "audit.json")
    if text is None:
        yield "audit: audit.json of its run is missing"
        return
    told, here = _parsed(text), {name: value for name, value in found.audit.items() if name != "decision"}
    if told == here or (told is not None and here in _reduced(told, found)):
        return
    yield "audit.json: not what the audit's run recorded"


def _evaluation(found: Verified, evaluate: Step) -> Iterator[str]:
    """Whether the means of each arm are those that were recorded."""
    for arm, values in found.evaluation.get("arms", {}).items():
        for metric, mean in values.get("mean", {}).items():
            told = evaluate.run.metrics.get(f"{metric}/{arm}")
            if told is not None and mean is not None and abs(told - mean) > 1e-9:
                yield f"evaluation.json: {metric} of {arm} is {mean:.6g}, in the evaluation's run {told:.6g}"


def _other_audits(found: Verified, way: Walk) -> Iterator[str]:
    """Failures of the same set of which the release does not speak."""
    own = sum(check["verdict"] == "fail" for check in found.audit["checks"])
    said = Counter(_BY_KEY.sub("", name) for name in found.audit["decision"]["failed"][own:])
    for one in way.audits:
        failed = Counter(one.failed or ("a check that its run does not name",))
        if one.verdict == "fail" and not failed <= said:
            yield (
                f"another audit of the same set failed ({', '.join(failed)}; run {one.run_id}), and the release "
                "does not say so"
            )
        elif one.verdict == "fail":
            said -= failed


def _aliases(found: Verified, way: Walk) -> Iterator[str]:
    """Models called released although an audit of the set failed."""
    failed = found.audit["decision"]["failed"] or any(one.verdict == "fail" for one in way.audits)
    cleared = found.audit["verdict"] == "pass" and not failed
    for model in way.models:
        if "released" in model.aliases and not cleared:
            yield f"model {model.name} version {model.version}: called released, but the audit does not clear this set"


def _parsed(text: str) -> Any:
    """The value of a JSON text; None for any other."""
    try:
        return json.loads(text)
    except ValueError:
        return None
