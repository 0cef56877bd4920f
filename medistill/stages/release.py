"""RELEASE: the folder that is shared, if the audit allows it."""

from pathlib import Path

import yaml

from medistill.release.bundle import refuse, refuse_whitened, write_release
from medistill.release.load import verify
from medistill.stages.audit import audited
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
    work = session.work("release", {**parts, "overview": overview})
    refuse(audit, final.provenance["start"])
    folder = work.folder
    if folder.exists():
        verify(folder)
        session.say(f"release: written already -> {folder}")
        return folder
    with session.stage(work, {"release": data.name}, {"distilled": made.key}) as run:
        write_release(
            folder,
            distilled=final,
            config_yaml=yaml.safe_dump(session.config.to_dict(), sort_keys=False),
            evaluation=evaluation,
            audit=audit,
            overview=overview,
        )
        if run:
            run.text("SHA256SUMS", (folder / "SHA256SUMS").read_text())
    session.say(f"release: -> {folder}")
    return folder
