"""RELEASE: the folder that is shared, if the audit allows it."""

from pathlib import Path

import yaml

from medistill.files import write_json
from medistill.release.bundle import refuse_whitened, write_release
from medistill.release.decision import decide
from medistill.release.load import verify
from medistill.stages.audit import audited, ledger_of
from medistill.stages.distill import distilled
from medistill.stages.evaluate import evaluated
from medistill.stages.load import SPLITS, load
from medistill.stages.session import Session


def release(session: Session) -> Path:
    """`medistill release`: write the folder to share; refused when a check of the audit failed."""
    splits = load(session)
    made, final = distilled(session, splits)
    refuse_whitened(final)
    measured, evaluation = evaluated(session, splits)
    checked, audit = audited(session, splits)
    data = session.config.data
    overview = {
        "name": data.name,
        "citation": data.citation,
        "licence": data.licence,
        "counts": {name: dict(zip(final.classes, getattr(splits, name).counts, strict=True)) for name in SPLITS},
        "patients": {name: len(getattr(splits, name).groups.unique()) for name in SPLITS},
    }
    parts = {"distilled": made.key, "evaluate": measured.key, "audit": checked.key}
    words = {"override": session.config.release.override, "accept": session.config.release.accept}
    decision = decide(audit, final.provenance["start"], **words)
    signed = {key: decision[key] for key in ("override", "accepted") if decision[key]}
    work = session.work("release", {**parts, "overview": overview, **signed})
    folder = work.folder
    if folder.exists():
        verify(folder)
        session.say(f"release: written already -> {folder}")
        return folder
    with session.stage(work, {"release": data.name, **signed}, {"distilled": made.key}) as run:
        write_release(
            folder,
            distilled=final,
            config_yaml=yaml.safe_dump(session.config.to_dict(), sort_keys=False),
            evaluation=evaluation,
            audit=audit,
            overview=overview,
            ledger=ledger_of(session, splits),
            **words,
        )
        write_json(checked.folder / "decision.json", decision)
        if run:
            run.text("decision.json", (checked.folder / "decision.json").read_text())
            run.text("SHA256SUMS", (folder / "SHA256SUMS").read_text())
    session.say(f"release: -> {folder}")
    return folder
