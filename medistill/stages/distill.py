"""DISTILL: trajectories and a start become a distilled set, with checkpoints on the way."""

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill import seeds
from medistill.distill import initial
from medistill.distill.distilled import Distilled
from medistill.distill.iadd import Share, kernels_for, rehearse, result
from medistill.distill.iadd import distill as iterate
from medistill.distill.state import HISTORY, State
from medistill.errors import UserError
from medistill.experts.trajectory import Trajectories
from medistill.files import write_json
from medistill.kernels import Kernels, earns_compiling
from medistill.nets import Flat
from medistill.parallel import PeerLostError
from medistill.report.plots import curves_figure, distilled_grid
from medistill.stages.experts import experts_key, trained
from medistill.stages.load import Splits, load
from medistill.stages.progress import cost
from medistill.stages.session import Session, Work

if TYPE_CHECKING:
    from medistill.track import StageRun

FILE, CHECKPOINT = "distilled.safetensors", "checkpoint.safetensors"


def distill(session: Session) -> None:
    """`medistill distill`: run IADD, or go on from the last checkpoint."""
    splits = load(session)
    key = experts_key(session, splits)
    work = _work(session, key)
    if session.done(work):
        session.say(f"distill: done already -> {work.folder / FILE}")
        return
    trajectories, settings, threads = trained(session, splits), session.config.distill, torch.get_num_threads()
    params = {"distill": asdict(settings), "net": asdict(session.config.net), "seed": session.config.seed}
    with session.stage(work, params, {"data": splits.train.digest, "experts": key}) as run:
        state = _begin(session, work, splits, trajectories)
        kernels = kernels_for(trajectories, state, settings)
        _announce(session, kernels, state)
        if run:
            for number, line in enumerate(state.history.tolist(), start=1):
                run.metrics(number, dict(zip(HISTORY, line, strict=True)))
        _iterate(session, work, kernels, trajectories, state, run)
        torch.set_num_threads(threads)
        files = _write(session, work, state, splits, trajectories) if session.group.leads else []
        if run:
            run.input(splits.train.name, splits.train.digest, "training", {"experts": len(trajectories)})
            run.figure(work.folder / "curves.png")
            if settings.start in initial.PUBLIC:
                run.figure(work.folder / "distilled.png")
    if session.group.leads:
        work.finish({"data": splits.train.digest, "experts": key}, files)
    session.group.wait()
    skipped = int(state.history[:, HISTORY.index("skipped")].sum())
    session.say(
        f"distill: unweighted loss {state.history[0, 1]:.3f} -> {state.history[-1, 1]:.3f} in {settings.iterations} "
        f"iterations ({skipped} skipped) -> {work.folder / FILE}"
    )
    if settings.importance == "literal" and state.history[-1, HISTORY.index("weight_mean")] < 0.5:
        session.say(
            "note: the weights W have shrunk below one half on average, as unguarded descent does; the weighted "
            "loss falls by that alone"
        )


def _begin(session: Session, work: Work, splits: Splits, trajectories: Trajectories) -> State:
    """The state of the last checkpoint, in every process the same, or the start."""
    settings, group = session.config.distill, session.group
    threads = torch.get_num_threads()
    found = State.load(work.folder / CHECKPOINT, work.key, session.device)
    if found:
        _reconcile(session, found, threads)
    done = found.iteration if found else 0
    if group.numbers([done]) != [done]:
        raise UserError(f"run: {work.folder} differs between the processes; name a folder that all machines share")
    if found is None:
        images, labels = _start(session, splits)
        seen = settings.iterations * settings.segments * settings.inner_steps * (settings.batch or len(images))
        compiled = session.compiles(earns_compiling(Flat(trajectories.architecture), seen))
        return State.begin(images, labels, trajectories.size, settings, compiled)
    return found


def _reconcile(session: Session, found: State, threads: int) -> None:
    """Let options that were given win over what a checkpoint remembers, and say what that means."""
    remembered = torch.get_num_threads()
    if remembered != threads and (session.config.threads or session.group.size > 1):
        torch.set_num_threads(threads)
        session.say(
            f"note: begun with threads {remembered}, goes on with {threads}: the same to rounding, not in bytes"
        )
    if found.compiled and session.compiled is False:
        found.compiled.fill_(False)
        session.say("note: begun compiled, goes on without: the same to rounding, not in bytes")


def _announce(session: Session, kernels: Kernels, state: State) -> None:
    """Say what is about to be done, how long it will take and how much memory."""
    settings, group = session.config.distill, session.group
    if state.iteration:
        session.say(f"distill: going on from iteration {state.iteration} of {settings.iterations}")
    if group.leads:
        segment, left = rehearse(kernels, state, settings), settings.iterations - state.iteration
        seconds = left * math.ceil(settings.segments / group.size) * segment.seconds
        how = " compiled" if kernels.compiled else ""
        session.say(
            f"distill: {left} iterations of {settings.inner_steps}{how} steps, about {cost(seconds, segment.bytes)}"
        )
    if settings.segments % group.size:
        session.say(
            f"note: distill.segments is {settings.segments}, which {group.size} processes cannot share evenly; a "
            "multiple of their number keeps all of them busy"
        )


def _iterate(
    session: Session,
    work: Work,
    kernels: Kernels,
    trajectories: Trajectories,
    state: State,
    run: "StageRun | None",
) -> None:
    """Run the iterations that are left, with a checkpoint every few minutes and one when the run is stopped."""
    settings, group = session.config.distill, session.group
    share = Share(group.rank, group.size, group.total)
    # a signal can fall into the middle of an iteration: what is saved then is the last whole one
    whole, saved, saved_at = state.copy(), state.iteration, time.monotonic()
    try:
        with session.bar(settings.iterations, "distill", "it", state.iteration) as bar:
            for _ in iterate(kernels, trajectories, state, settings, _seed(session), share):
                line = dict(zip(HISTORY, state.history[-1].tolist(), strict=True))
                bar.update(note=", ".join(f"{k} {v:.3g}" for k, v in line.items() if k != "weight_mean"))
                if run:
                    run.metrics(state.iteration, line)
                whole = state.copy()
                if group.leads and time.monotonic() - saved_at >= 60 * settings.checkpoint_minutes:
                    state.save(work.folder / CHECKPOINT, work.key)
                    saved, saved_at = state.iteration, time.monotonic()
        if group.leads:
            state.save(work.folder / CHECKPOINT, work.key)
    except (KeyboardInterrupt, PeerLostError):
        if group.leads and whole.iteration > saved:
            whole.save(work.folder / CHECKPOINT, work.key)
        raise


def distilled(session: Session, splits: Splits) -> tuple[Work, Distilled]:
    """The distilled set of this config; it must have been made."""
    work = _work(session, experts_key(session, splits))
    if not work.done:
        raise UserError(
            "distill: the distilled set of this config is not there yet; run `medistill distill` with the same "
            "options first, or `medistill run` for every stage"
        )
    return work, Distilled.load(work.file(FILE))


def _seed(session: Session) -> int:
    """The seed of this distillation."""
    return seeds.derive(session.config.seed, "distillation", session.config.distill.seed)


def _work(session: Session, experts: str) -> Work:
    settings = asdict(session.config.distill)
    del settings["checkpoint_minutes"]
    return session.work(
        "distill",
        {
            "distill": settings,
            "experts": experts,
            "count": session.config.experts.count,
            "seed": session.config.seed,
        },
    )


def _start(session: Session, splits: Splits) -> tuple[Tensor, Tensor]:
    """Start images (M, C, H, W) and one-hot labels (M, K) on the device."""
    settings, train = session.config.distill, splits.train
    classes = len(train.classes)
    generator = seeds.generator(_seed(session), "start")
    shape = (classes * settings.ipc, *train.images.shape[1:])
    if settings.start == "noise":
        images = initial.noise(shape, settings.start_scale, settings.start_smooth, generator)
    elif settings.start == "phantom":
        images = train.as_seen(_phantoms(session, train.classes))
    elif settings.start == "class_mean":
        images = initial.class_means(train.pixels(), train.labels, classes, settings.ipc)
    else:
        images = train.pixels()[start_films(session, splits)]
    labels = F.one_hot(initial.labels_of(classes, settings.ipc), classes).to(images.dtype)
    return images.to(session.device), labels.to(session.device)


def start_films(session: Session, splits: Splits) -> Tensor:
    """(M,) int64: the training film that each synthetic image of a real start begins as."""
    settings, train = session.config.distill, splits.train
    generator = seeds.generator(_seed(session), "start")
    return initial.real(train.labels, train.groups, train.classes, settings.ipc, generator)


def _phantoms(session: Session, classes: tuple[str, ...]) -> Tensor:
    """Phantom films (M, 1, S, S) in [0, 1], by the likeness of the class names.

    A class named like COVID starts from diffuse opacities, one named like normal from clear lungs, any
    other from lobar opacities.
    """
    from medistill.data import phantom

    ipc = session.config.distill.ipc
    films, labels = phantom.films(ipc * len(classes), session.config.data.size, _seed(session))
    parts, used = [], [0] * len(phantom.CLASSES)
    for name in classes:
        kind = 2 if "covid" in name.lower() else 0 if "normal" in name.lower() else 1
        pool = films[labels == kind]
        parts.append(pool[used[kind] : used[kind] + ipc])
        used[kind] += ipc
    return torch.cat(parts)


def _write(session: Session, work: Work, state: State, splits: Splits, trajectories: Trajectories) -> list[str]:
    """Write the distilled set, its history and pictures, and return the names of the files."""
    settings, train = session.config.distill, splits.train
    images, labels, alpha = result(state, settings)
    last = dict(zip(HISTORY, state.history[-1].tolist(), strict=True))
    final = Distilled(
        images=images.cpu(),
        labels=labels.cpu(),
        lr=alpha,
        classes=train.classes,
        mean=train.mean,
        std=train.std,
        zca=train.zca,
        architecture=trajectories.architecture,
        augment=tuple(settings.augment),
        provenance={
            "method": "MTT" if settings.importance == "off" else "IADD",
            "importance": settings.importance,
            "start": settings.start,
            "iterations": settings.iterations,
            "experts": len(trajectories),
            "weight_share": _finite(last["weight_share"]),
            "selected": "last iteration, fixed beforehand",
        },
    )
    final.save(work.folder / FILE)
    history = {name: column.tolist() for name, column in zip(HISTORY, state.history.T, strict=True)}
    plain = {name: [_finite(value) for value in values] for name, values in history.items()}
    write_json(work.folder / "history.json", plain)
    curves_figure(history, work.folder / "curves.png")
    distilled_grid(final.pictures().clamp(0, 1), final.targets, final.classes, work.folder / "distilled.png")
    return [FILE, CHECKPOINT, "history.json", "curves.png", "distilled.png"]


def _finite(value: float) -> float | None:
    """A number for JSON, which knows no NaN: a skipped iteration has none."""
    return value if math.isfinite(value) else None
