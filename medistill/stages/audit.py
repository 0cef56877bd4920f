"""AUDIT: what the distilled set tells about patients; pictures of real films stay in the run's folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from medistill.audit.check import Candidate, Check, Private
from medistill.audit.gate import audit_json
from medistill.audit.page import page
from medistill.audit.table import TABLE, Row
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.experts.ledger import FILE as LEDGER
from medistill.files import read_json, write_json, write_text
from medistill.stages.distill import FILE as DISTILLED
from medistill.stages.distill import distilled
from medistill.stages.experts import ledger_of, trained
from medistill.stages.load import Splits, load
from medistill.stages.session import Session, Work
from medistill.stages.start import start_films

FILE, PAGE, PRIVATE = "audit.json", "summary.md", "private"


def audit(session: Session) -> None:
    """`medistill audit`: every check of the table, or the quick ones; each is done once, also after a kill."""
    splits = load(session)
    made, final = distilled(session, splits)
    work = _work(session, made, splits)
    _require_account(session, splits, made, final)
    if work.done:
        verdict = read_json(work.file(FILE))["verdict"]
        session.say(f"audit: done already, verdict {verdict} -> {work.folder / FILE}")
        return
    settings, train = session.config.audit, splits.train
    tags = {"data": train.digest, "distilled": made.key, "set": made.digest(DISTILLED)}
    with session.stage(work, {"audit": asdict(settings)}, tags) as run:
        candidate = Candidate(final, ledger_of(session, splits))
        private = _private(session, splits, work)
        chosen = [row for row in TABLE if row.quick or not settings.quick]
        not_run = [row for row in TABLE if row not in chosen]
        checks, figures = [], []
        for row in chosen:
            check, drawn = _once(session, work, row, candidate, private)
            checks.append(check)
            figures += drawn
        report = audit_json(checks, _context(session, candidate, private), not_run)
        write_json(work.folder / FILE, report)
        write_text(work.folder / PAGE, page(report))
        if run:
            run.input(train.name, train.digest, "audited against", {"films": len(train)})
            run.metrics(0, {f"power/{check.number:02d}": check.power for check in checks if check.power is not None})
            run.tag("verdict", report["verdict"])
            run.text("audit.json", (work.folder / FILE).read_text())
            run.text("summary.md", (work.folder / PAGE).read_text())
            for figure in figures:
                if not figure["shows_patients"]:
                    run.figure(work.folder / figure["name"])
    if report["verdict"] == "fail" and session.tracker is not None:
        session.tracker.settle()  # a model of this set may stand there as released
    work.finish({"distilled": made.key}, [FILE, PAGE, *(figure["name"] for figure in figures)])
    for line in report["words"]:
        session.say(f"audit: {line}")
    session.say(f"audit: verdict {report['verdict']} -> {work.folder / FILE}, on one page in {PAGE}")
    for figure in figures:
        if figure["shows_patients"]:
            session.say(f"audit: {work.folder / figure['name']} shows real films: keep it in the house")


def _once(
    session: Session, work: Work, row: Row, candidate: Candidate, private: Private
) -> tuple[Check, list[dict[str, Any]]]:
    """Run a check and draw its figures, or read what was written when it was run."""
    kept = work.folder / PRIVATE / f"check_{row.number:02d}.json"
    if kept.exists():
        read = read_json(kept)
    else:
        session.say(f"audit: {row.number} {row.name}")
        outcome = row.check(candidate, private)
        work.folder.mkdir(parents=True, exist_ok=True)
        for figure in outcome.figures:
            figure.draw(work.folder / figure.name)
        figures = [{"name": figure.name, "shows_patients": figure.shows_patients} for figure in outcome.figures]
        read = {"check": outcome.check.to_json(), "figures": figures}
        write_json(kept, read)
    return Check.from_json(read["check"]), read["figures"]


def _private(session: Session, splits: Splits, work: Work) -> Private:
    """What the checks are given of the house."""
    val, test = splits.val, splits.test
    holdout = replace(
        test,
        split="holdout",
        images=torch.cat([val.images, test.images]),
        labels=torch.cat([val.labels, test.labels]),
        groups=torch.cat([val.groups, test.groups]),
    )
    try:
        trajectories = trained(session, splits)
    except UserError:
        trajectories = None
    real = session.config.distill.start == "real"
    return Private(
        train=splits.train,
        holdout=holdout,
        config=session.config,
        trajectories=trajectories,
        start=start_films(session, splits) if real else None,
        device=session.device,
        folder=work.folder / PRIVATE,
        say=lambda line: session.say(f"audit: {line}"),
    )


def _require_account(session: Session, splits: Splits, made: Work, final: Distilled) -> None:
    """Raise a UserError when the set was made of experts of another account than the one that stands there now."""
    ledger = ledger_of(session, splits)
    if ledger and final.provenance.get("ledger") != ledger["id"]:
        raise UserError(
            f"{made.folder.name}: was made of private experts whose account is not {LEDGER} of this run, which "
            f"therefore says nothing of it; delete the folder {made.folder.name} and run `medistill distill` again, "
            "and take the epsilon of the lost account for spent"
        )


def failed_before(session: Session, work: Work, made: Work) -> list[str]:
    """The checks that failed in other audits of this very set, which another audit's silence does not undo.

    Their names alone, for they leave with the release: an audit's key is a digest of all films.
    """
    failed = []
    for done in _audits_of(session, made):
        if done.parent != work.folder:
            checks = read_json(done.with_name(FILE))["checks"]
            here = [str(check["name"]) for check in checks if check["verdict"] == "fail"]
            if here:
                session.say(f"note: another audit of this set failed: {', '.join(here)} -> {done.with_name(FILE)}")
            failed += here
    return failed


def _audits_of(session: Session, made: Work) -> list[Path]:
    """The marks of all finished audits of a set, whatever their options."""
    marks = sorted(session.folder.glob("audit-*/done.json"))
    return [mark for mark in marks if read_json(mark)["inputs"].get("distilled") == made.key]


def _context(session: Session, candidate: Candidate, private: Private) -> dict[str, Any]:
    """What was audited, in counts."""
    return {
        "start": candidate.distilled.provenance["start"],
        "synthetic": len(candidate.distilled.images),
        "training_films": len(private.train),
        "training_patients": len(private.train.groups.unique()),
        "holdout_films": len(private.holdout),
        "holdout_patients": len(private.holdout.groups.unique()),
        "quick": session.config.audit.quick,
        "seed": session.config.seed,
    }


def audited(session: Session, splits: Splits) -> tuple[Work, dict[str, Any]]:
    """The audit of this config; it must have been made."""
    made, _ = distilled(session, splits)
    work = _work(session, made, splits)
    if not work.done:
        others = [place.parent.name for place in _audits_of(session, made)]
        seen = f" (this set was audited with other options, such as --quick: {', '.join(others)})" if others else ""
        raise UserError(
            f"audit: this config was not audited yet{seen}; run `medistill audit` with the same options first, "
            "or `medistill run` for every stage"
        )
    return work, read_json(work.file(FILE))


def _work(session: Session, made: Work, splits: Splits) -> Work:
    ledger = ledger_of(session, splits)
    decides = {
        "distilled": made.key,
        "set": made.digest(DISTILLED),
        **({"ledger": ledger} if ledger else {}),
        "audit": asdict(session.config.audit),
        "data": splits.digests,
        "seed": session.config.seed,
    }
    return session.work("audit", decides)
