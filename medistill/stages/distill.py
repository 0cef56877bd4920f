"""DISTILL: what a method needs becomes a distilled set, with checkpoints on the way."""

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medistill.distill import importance, initial
from medistill.distill.course import Course, Films, Given, Made, Share, load_checkpoint, save_checkpoint
from medistill.distill.distilled import Distilled
from medistill.distill.methods import METHODS, Method
from medistill.errors import UserError
from medistill.experts.ledger import Ledger
from medistill.experts.trajectory import Trajectories
from medistill.files import sha256, write_json, write_tensors
from medistill.nets import Architecture, Flat
from medistill.parallel import PeerLostError
from medistill.report.plots import curves_figure, distilled_grid
from medistill.report.weights import weights_figure
from medistill.stages.experts import constants, experts_key, ledger_of, place, trained
from medistill.stages.load import Splits, load
from medistill.stages.progress import cost
from medistill.stages.public import Constants
from medistill.stages.session import Session, Work
from medistill.stages.start import distillation_seed, start_images

if TYPE_CHECKING:
    from medistill.track import StageRun

FILE, CHECKPOINT, WEIGHTS = "distilled.safetensors", "checkpoint.safetensors", "weights.png"
LEARNED = "learned.safetensors"
"""What a method learned beside the images, which stays in the house."""


def distill(session: Session) -> None:
    """`medistill distill`: run the method, or go on from the last checkpoint. In DP mode no film is opened."""
    if session.group.size > 1 and not _method(session).shares:
        session.say(f"note: {_method(session).title} works in one process; the others wait")
        session.lead(distill)
        return
    splits = None if session.config.experts.private.on else load(session)
    work = _work(session, splits)
    if session.done(work):
        ledger_of(session, splits)
        session.say(f"distill: done already -> {work.folder / FILE}")
        return
    settings, threads = session.config.distill, torch.get_num_threads()
    known = constants(session, splits)
    params = {"distill": asdict(settings), "net": asdict(session.config.net), "seed": session.config.seed}
    inputs = _inputs(session, splits)
    with session.stage(work, params, inputs) as run:
        course = _begin(session, work, known, splits)
        _announce(session, course)
        if run:
            for number, line in enumerate(course.history.tolist(), start=1):
                run.metrics(number, dict(zip(course.columns, line, strict=True)))
        _iterate(session, work, course, run)
        torch.set_num_threads(threads)
        made = course.made()
        files = _write(session, work, course, made, known) if session.group.leads else []
        if run:
            run.tag("set", sha256(work.folder / FILE))
            experts = {"experts": session.config.experts.count} if _method(session).experts else {}
            run.input(known.name, inputs.get("data", inputs.get("experts", "")), "training", experts)
            for figure in (name for name in ("curves.png", WEIGHTS) if name in files):
                run.figure(work.folder / figure)
            if settings.start in initial.PUBLIC:
                run.figure(work.folder / "distilled.png")
    if session.group.leads:
        work.finish(inputs, files)
    session.group.wait()
    session.say(f"distill: {_told(course)} -> {work.folder / FILE}")
    literal = made.provenance.get("importance") == "literal"
    if literal and course.history[-1, course.columns.index("weight_mean")] < 0.5:
        session.say(
            "note: the weights W have shrunk below one half on average, as unguarded descent does; the weighted "
            "loss falls by that alone"
        )


def _method(session: Session) -> Method:
    """The method of the config."""
    return METHODS[session.config.distill.method]


def _begin(session: Session, work: Work, known: Constants, splits: Splits | None) -> Course:
    """The course as the last checkpoint left it, in every process the same, or before its first iteration."""
    settings, group, threads = session.config.distill, session.group, torch.get_num_threads()
    course = _method(session).begin(_given(session, known, splits), settings)
    found = load_checkpoint(work.folder / CHECKPOINT, work.key)
    if found:
        course.resume(found)
        _reconcile(session, course, threads)
    if group.numbers([course.iteration]) != [course.iteration]:
        raise UserError(f"run: {work.folder} differs between the processes; name a folder that all machines share")
    return course


def _given(session: Session, known: Constants, splits: Splits | None) -> Given:
    """What the method takes."""
    method, group, channels = _method(session), session.group, known.shape[0]
    images, labels = start_images(session, known, splits)
    trajectories = trained(session, splits) if method.experts else None
    films = None
    if method.films and splits is not None:
        films = Films(splits.train.pixels().to(session.device), splits.train.labels.to(session.device))
    return Given(
        images,
        labels,
        trajectories.architecture if trajectories else session.architecture(channels, len(known.classes)),
        distillation_seed(session),
        trajectories,
        films,
        _wiener(session, trajectories) if trajectories and session.config.distill.importance == "wiener" else None,
        session.compiles,
        Share(group.rank, group.size, group.total),
    )


def _wiener(session: Session, trajectories: Trajectories) -> Tensor:
    """W (P,) from the noise that the ledger states."""
    config, net = session.config, Flat(trajectories.architecture)
    private, settings = config.experts.private, config.distill
    steps = private.steps // private.rows * settings.expert_epochs
    variance = steps * Ledger.read(place(session, None)[0].folder).step_variance(config.experts.lr)
    return importance.wiener(
        trajectories, net.numel, ~net.dead(), settings.max_start_epoch, settings.expert_epochs, variance
    )


def _reconcile(session: Session, course: Course, threads: int) -> None:
    """Let options that were given win over what a checkpoint remembers, and say what that means."""
    remembered = torch.get_num_threads()
    if remembered != threads and (session.config.threads or session.group.size > 1):
        torch.set_num_threads(threads)
        session.say(
            f"note: begun with threads {remembered}, goes on with {threads}: the same to rounding, not in bytes"
        )
    if course.compiled and session.compiled is False:
        course.compiled = False
        session.say("note: begun compiled, goes on without: the same to rounding, not in bytes")


def _announce(session: Session, course: Course) -> None:
    """Say what is about to be done, how long it will take and how much memory."""
    settings, group = session.config.distill, session.group
    if course.iteration:
        session.say(f"distill: going on from iteration {course.iteration} of {course.total}")
    if group.leads:
        used, left = course.rehearse(), course.total - course.iteration
        compiled = " compiled" if course.compiled else ""
        how = f" of {settings.inner_steps}{compiled} steps" if _method(session).experts else ""
        about = f", about {cost(used.seconds, used.bytes)}" if used else ""
        session.say(f"distill: {left} iterations{how}{about}")
    if settings.segments % group.size:
        session.say(
            f"note: distill.segments is {settings.segments}, which {group.size} processes cannot share evenly; a "
            "multiple of their number keeps all of them busy"
        )


def _iterate(session: Session, work: Work, course: Course, run: "StageRun | None") -> None:
    """Run the iterations that are left, with a checkpoint every few minutes and one when the run is stopped."""
    settings, group = session.config.distill, session.group
    # a signal can fall into the middle of an iteration: what is saved then is the last whole one
    whole, done, saved, saved_at = course.state(), course.iteration, course.iteration, time.monotonic()
    try:
        with session.bar(course.total, "distill", "it", course.iteration) as bar:
            for _ in course.run():
                line = dict(zip(course.columns, course.history[-1].tolist(), strict=True))
                bar.update(note=", ".join(f"{k} {v:.3g}" for k, v in line.items() if k != "weight_mean"))
                if run:
                    run.metrics(course.iteration, line)
                whole, done = course.state(), course.iteration
                if group.leads and time.monotonic() - saved_at >= 60 * settings.checkpoint_minutes:
                    save_checkpoint(work.folder / CHECKPOINT, whole, work.key)
                    saved, saved_at = done, time.monotonic()
        if group.leads:
            save_checkpoint(work.folder / CHECKPOINT, whole, work.key)
    except (KeyboardInterrupt, PeerLostError):
        if group.leads and done > saved:
            save_checkpoint(work.folder / CHECKPOINT, whole, work.key)
        raise


def distilled(session: Session, splits: Splits | None) -> tuple[Work, Distilled]:
    """The distilled set of this config; it must have been made."""
    work = _work(session, splits)
    if not work.done:
        raise UserError(
            "distill: the distilled set of this config is not there yet; run `medistill distill` with the same "
            "options first, or `medistill run` for every stage"
        )
    return work, Distilled.load(work.file(FILE))


def _inputs(session: Session, splits: Splits | None) -> dict[str, str]:
    """The digests of what the method reads."""
    experts = {"experts": experts_key(session, splits)} if _method(session).experts else {}
    return experts | ({"data": splits.train.digest} if splits else {})


def _work(session: Session, splits: Splits | None) -> Work:
    config, decides = session.config, {"distill": session.config.distill.decides(), "seed": session.config.seed}
    if _method(session).experts:
        decides |= {"experts": experts_key(session, splits), "count": config.experts.count}
    elif splits:
        decides |= {"data": splits.train.digest, "net": asdict(config.net)}
    return session.work("distill", decides | _method(session).digests(config.distill))


def _write(session: Session, work: Work, course: Course, made: Made, known: Constants) -> list[str]:
    """Write the distilled set, its history and pictures, and return the names of the files."""
    settings, method = session.config.distill, _method(session)
    unweighted = made.provenance.get("importance") == "off"
    final = Distilled(
        images=made.images.cpu(),
        labels=made.labels.cpu(),
        lr=made.lr,
        classes=known.classes,
        mean=known.mean,
        std=known.std,
        zca=known.zca,
        architecture=_architecture(session, known),
        augment=tuple(settings.augment),
        sequence=made.sequence,
        provenance={
            "method": METHODS["mtt"].title if unweighted and method is METHODS["iadd"] else method.title,
            "start": settings.start,
            "iterations": course.total,
            "reads": method.reads,
            "selected": "last iteration, fixed beforehand",
            **{name: _finite(value) for name, value in made.provenance.items()},
            **_guarantee(session),
        },
    )
    final.save(work.folder / FILE)
    history = {name: column.tolist() for name, column in zip(course.columns, course.history.T, strict=True)}
    write_json(work.folder / "history.json", {name: [_finite(v) for v in values] for name, values in history.items()})
    same = () if made.weights else ("loss_unweighted",)  # where W is 1
    drawn = {
        name: line
        for name, line in history.items()
        if name == course.columns[0] or (len(set(line)) > 1 and name not in same)
    }
    curves_figure(drawn, work.folder / "curves.png")
    distilled_grid(final.pictures().clamp(0, 1), final.targets, final.classes, work.folder / "distilled.png")
    files = [FILE, CHECKPOINT, "history.json", "curves.png", "distilled.png"]
    if made.weights:
        weights_figure(made.weights, work.folder / WEIGHTS)
        files.append(WEIGHTS)
    if made.also:
        write_tensors(work.folder / LEARNED, made.also, {})
        files.append(LEARNED)
    return files


def _architecture(session: Session, known: Constants) -> Architecture:
    return session.architecture(known.shape[0], len(known.classes))


def _told(course: Course) -> str:
    """Where the loss began and where it ended."""
    unweighted = "loss_unweighted" in course.columns
    line = course.history[:, course.columns.index("loss_unweighted") if unweighted else 0].tolist()
    name = "unweighted loss" if unweighted else course.columns[0].replace("_", " ")
    skipped = ""
    if "skipped" in course.columns:
        skipped = f" ({int(course.history[:, course.columns.index('skipped')].sum())} skipped)"
    return f"{name} {line[0]:.3f} -> {line[-1]:.3f} in {course.total} iterations{skipped}"


def _guarantee(session: Session) -> dict[str, str]:
    """What the ledger promises of this set, in words; nothing of a set from plain experts."""
    if not session.config.experts.private.on:
        return {}
    ledger = Ledger.read(place(session, None)[0].folder)
    return {"guarantee": ledger.terms.words, "ledger": ledger.id}


def _finite(value: Any) -> Any:
    """A number for JSON, which knows no NaN: a skipped iteration has none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
