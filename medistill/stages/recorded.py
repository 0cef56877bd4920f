"""What MLflow keeps of a release, so that `medistill trace` can begin at its digest."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medistill.files import read_json, sha256
from medistill.release.load import AUDIT, SUMS, ReleasedSet
from medistill.release.merge import PARTS
from medistill.stages.session import Session, Work
from medistill.track.registry import Origin
from medistill.track.store import AFTERWARDS, RELEASE

if TYPE_CHECKING:
    from medistill.track import StageRun

SIGNATURE = "signature.json"


def record(run: "StageRun", folder: Path) -> None:
    """Record a release that is written: its digest, every file's, who answers for it and who signed it."""
    run.text("SHA256SUMS", (folder / SUMS).read_text())
    run.json("decision.json", _decision(folder))
    for name, value in _facts(folder).items():
        run.tag(name, value)


def record_again(session: Session, work: Work, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
    """Record a release that was written, unless MLflow knows it: it was cut off before, or has been signed since."""
    if session.tracker is None or session.tracker.knows("release", _facts(work.folder)):
        return
    with session.stage(work, params, {**tags, AFTERWARDS: "true"}) as run:
        if run:
            record(run, work.folder)


def origin(data: ReleasedSet) -> Origin:
    """A release as the registry keeps it beside a model: as it was verified, whatever lies in its folder by now."""
    merged = list(_merged(data.provenance))
    known = frozenset(digest for one in merged for digest in _digests(one))
    failed = frozenset(digest for one in merged if one.get("verdict") == "fail" for digest in _digests(one))
    return Origin(data.digest, data.images_sha256, data.audit, known, failed)


def _merged(provenance: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The record of every release that was merged into a set, however deep; from elsewhere, so of any form."""
    waiting = [provenance]
    while waiting:
        found = waiting.pop().get(PARTS)
        records = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        yield from records
        waiting += records


def _digests(record: Mapping[str, Any]) -> Iterator[str]:
    """By what a release is known that was merged."""
    for name in ("digest", "images_sha256"):
        digest = record.get(name)
        if isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest):
            yield digest


def _decision(folder: Path) -> dict[str, Any]:
    """Who answers for a release, as it stands in it."""
    decision: dict[str, Any] = read_json(folder / AUDIT)["decision"]
    return decision


def _facts(folder: Path) -> dict[str, str]:
    """The tags by which a release is found and judged."""
    decision = _decision(folder)
    words = {name: decision[name] for name in ("override", "accepted") if decision[name]}
    signed = {"signer": read_json(folder / SIGNATURE)["fingerprint"]} if (folder / SIGNATURE).exists() else {}
    return {
        RELEASE: sha256(folder / SUMS),
        "verdict": decision["verdict"],
        **{name: f"{word['name']}: {word['reason']}" for name, word in words.items()},
        **signed,
    }
