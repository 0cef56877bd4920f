"""AUDIT: what the distilled set tells about patients; pictures of real films stay in the run's folder."""

from dataclasses import asdict
from typing import Any

import torch

from medistill import seeds
from medistill.audit.gate import audit_json
from medistill.audit.nearest import nearest_check
from medistill.errors import UserError
from medistill.files import read_json, write_json
from medistill.report.neighbours import neighbours_figure
from medistill.stages.distill import distilled
from medistill.stages.load import Splits, load
from medistill.stages.session import Session, Work

FILE, PICTURE = "audit.json", "neighbours.png"


def audit(session: Session) -> None:
    """`medistill audit`: compare every synthetic image with every training film, with controls."""
    splits = load(session)
    made, final = distilled(session, splits)
    work = _work(session, made, splits)
    if work.done:
        verdict = read_json(work.file(FILE))["verdict"]
        session.say(f"audit: done already, verdict {verdict} -> {work.folder / FILE}")
        return
    settings, train = session.config.audit, splits.train
    with session.stage(work, {"audit": asdict(settings)}, {"data": train.digest, "distilled": made.key}) as run:
        session.say("audit: searching the nearest real film of every synthetic image, with planted copies")
        holdout = torch.cat([splits.val.images, splits.test.images])
        if settings.holdout and settings.holdout < len(holdout):
            order = torch.randperm(len(holdout), generator=seeds.generator(session.config.seed, "holdout"))
            holdout = holdout[order[: settings.holdout]]
        synthetic = final.pictures()
        check, found = nearest_check(
            synthetic, train.images, holdout, seed=session.config.seed, planted=settings.planted
        )
        context = {
            "start": final.provenance["start"],
            "synthetic": len(synthetic),
            "training_films": len(train),
            "holdout_films": len(holdout),
            "seed": session.config.seed,
        }
        report = audit_json([check], context)
        write_json(work.folder / FILE, report)
        size = session.config.data.size
        values = {"ZNCC": found.matches[f"zncc_{size}"].value, "SSIM": found.matches[f"ssim_{size}"].value}
        neighbours_figure(synthetic, train.images, found.index, values, work.folder / PICTURE)
        if run:
            run.input(train.name, train.digest, "audited against", {"films": len(train)})
            run.metrics(0, {"fired": check.statistic["fired"], "power": check.power or 0.0})
            run.text("audit.json", (work.folder / FILE).read_text())
    work.finish({"distilled": made.key}, [FILE, PICTURE])
    for line in report["words"]:
        session.say(f"audit: {line}")
    session.say(f"audit: verdict {report['verdict']} -> {work.folder / FILE}")
    session.say(f"audit: {work.folder / PICTURE} shows real films: keep it in the house")


def audited(session: Session, splits: Splits) -> tuple[Work, dict[str, Any]]:
    """The audit of this config; it must have been made."""
    made, _ = distilled(session, splits)
    work = _work(session, made, splits)
    if not work.done:
        raise UserError(
            "audit: this config was not audited yet; run `medistill audit` with the same options first, "
            "or `medistill run` for every stage"
        )
    return work, read_json(work.file(FILE))


def _work(session: Session, made: Work, splits: Splits) -> Work:
    decides = {
        "distilled": made.key,
        "audit": asdict(session.config.audit),
        "data": splits.digests,
        "seed": session.config.seed,
    }
    return session.work("audit", decides)
