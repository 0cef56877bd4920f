"""RELEASE: the folder that is shared, if the audit allows it."""

from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medistill.data.imageset import ImageSet
from medistill.distill.distilled import Distilled
from medistill.evaluate.small_cells import LEAST
from medistill.files import sha256, write_json
from medistill.release.bundle import refuse_whitened, write_release
from medistill.release.decision import decide
from medistill.release.guarded import FEW, WITHHELD, WITHHELD_FEW, verdicts_only
from medistill.release.keys import fingerprint
from medistill.release.load import verify
from medistill.release.metadata import FORMAT
from medistill.release.signature import write_signature
from medistill.stages.audit import audited, failed_before
from medistill.stages.distill import FILE as DISTILLED
from medistill.stages.distill import distilled
from medistill.stages.evaluate import evaluated
from medistill.stages.experts import ledger_of
from medistill.stages.load import SPLITS, Splits, load
from medistill.stages.recorded import record, record_again
from medistill.stages.session import Session
from medistill.stages.signing import require_own, signing_key
from medistill.stages.views import view_accuracy


def release(session: Session) -> Path:
    """`medistill release`: write the folder to share; refused when a check of the audit failed."""
    key = signing_key(session.config)
    splits = load(session)
    made, final = distilled(session, splits)
    refuse_whitened(final)
    measured, evaluation = evaluated(session, splits)
    checked, audit = audited(session, splits)
    few = fewest_patients(splits.test) < LEAST
    if few:
        evaluation = WITHHELD_FEW
        session.say(f"note: a class has fewer than {LEAST} test patients, so all figures measured on them stay inside")
    overview = _overview(session, splits, final)
    ledger = ledger_of(session, splits)
    words = {"override": session.config.release.override, "accept": session.config.release.accept}
    before = failed_before(session, checked, made)
    decision = decide(audit, final.provenance["start"], **words, failed_before=before)
    signed = {key: decision[key] for key in ("override", "accepted") if decision[key]}
    leaves = {**(verdicts_only(audit) if ledger else verdicts_only(audit, FEW) if few else audit), "decision": decision}
    stages = {"distilled": made.key, "evaluate": measured.key, "audit": checked.key}
    decides = {**stages, "overview": overview, **signed, **({"failed_before": before} if before else {})}
    if ledger:
        decides = {"distilled": sha256(made.file(DISTILLED)), **_covered(overview, ledger, leaves)}
    work = session.work("release", {"format": FORMAT, **decides})
    folder = work.folder
    params = {"release": session.config.data.name, **signed}
    keys = {**stages, "set": made.digest(DISTILLED)}
    if folder.exists():
        require_own(verify(folder), final, leaves)
        _sign(session, folder, key)
        record_again(session, work, params, keys)
        session.say(f"release: written already -> {folder}")
        return folder
    beside = checked.folder / f"decision-{work.key[:8]}.json"
    # who answers for it stands in audit.json, as one line
    config = {key: value for key, value in session.config.to_dict().items() if key != "release"}
    with session.stage(work, params, keys) as run:
        write_json(beside, decision)
        lost = WITHHELD if ledger else WITHHELD_FEW if few else view_accuracy(session, splits, final)
        write_release(
            folder,
            distilled=final,
            config_yaml=yaml.safe_dump(config, sort_keys=False),
            evaluation=evaluation,
            audit=verdicts_only(audit, FEW) if few else audit,
            overview=overview,
            ledger=ledger,
            failed_before=before,
            view_accuracy=lost,
            override=words["override"],
            accept=words["accept"],
            key=key,
        )
        if run:
            record(run, folder)
    session.say(f"release: -> {folder}")
    return folder


def _covered(overview: dict[str, Any], ledger: dict[str, Any], leaves: dict[str, Any]) -> dict[str, Any]:
    """What tells releases of a set in DP mode apart: the folder's name leaves too, so it comes from what leaves."""
    public = {name: overview[name] for name in ("name", "citation", "licence")}
    return {"overview": public, "ledger": ledger, "audit": leaves}


def _sign(session: Session, folder: Path, key: Ed25519PrivateKey | None) -> None:
    """Sign a release that was written before the key was given."""
    if key is not None:
        write_signature(folder, key)
        session.say(f"release: signed by the key with fingerprint {fingerprint(key.public_key())}")


def _overview(session: Session, splits: Splits, final: Distilled) -> dict[str, Any]:
    """The source, as the card takes it."""
    data = session.config.data
    return {
        "name": data.name,
        "citation": data.citation,
        "licence": data.licence,
        "counts": {name: dict(zip(final.classes, getattr(splits, name).counts, strict=True)) for name in SPLITS},
        "patients": {name: len(getattr(splits, name).groups.unique()) for name in SPLITS},
    }


def fewest_patients(test: ImageSet) -> int:
    """The patients of the class that has the fewest."""
    return min(len(test.groups[test.labels == label].unique()) for label in range(len(test.classes)))
