"""DISTILL: trajectories and a start become a distilled set, with checkpoints on the way."""

import math
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medistill.distill import importance, initial
from medistill.distill.distilled import Distilled
from medistill.distill.iadd import Share, kernels_for, rehearse, result
from medistill.distill.iadd import distill as iterate
from medistill.distill.state import HISTORY, State
from medistill.errors import UserError
from medistill.experts.ledger import Ledger
from medistill.experts.trajectory import Trajectories
from medistill.files import write_json
from medistill.kernels import Kernels, earns_compiling
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


def distill(session: Session) -> None:
    """`medistill distill`: run IADD, or go on from the last checkpoint. In DP mode no film is opened."""
    splits = None if session.config.experts.private.on else load(session)
    key = experts_key(session, splits)
    work = _work(session, key)
    if session.done(work):
        ledger_of(session, splits)
        session.say(f"distill: done already -> {work.folder / FILE}")
        return
    trajectories, settings, threads = trained(session, splits), session.config.distill, torch.get_num_threads()
    known = constants(session, splits)
    params = {"distill": asdict(settings), "net": asdict(session.config.net), "seed": session.config.seed}
    inputs = {"experts": key} | ({"data": splits.train.digest} if splits else {})
    with session.stage(work, params, inputs) as run:
        state = _begin(session, work, known, splits, trajectories)
        kernels = kernels_for(trajectories, state, settings)
        _announce(session, kernels, state)
        if run:
            for number, line in enumerate(state.history.tolist(), start=1):
                run.metrics(number, dict(zip(HISTORY, line, strict=True)))
        _iterate(session, work, kernels, trajectories, state, run)
        torch.set_num_threads(threads)
        files = _write(session, work, state, known, trajectories) if session.group.leads else []
        if run:
            run.input(known.name, inputs.get("data", key), "training", {"experts": len(trajectories)})
            for figure in ("curves.png", *([WEIGHTS] if settings.learns_weights else [])):
                run.figure(work.folder / figure)
            if settings.start in initial.PUBLIC:
                run.figure(work.folder / "distilled.png")
    if session.group.leads:
        work.finish(inputs, files)
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


def _begin(session: Session, work: Work, known: Constants, splits: Splits | None, trajectories: Trajectories) -> State:
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
        images, labels = start_images(session, known, splits)
        seen = settings.iterations * settings.segments * settings.inner_steps * (settings.batch or len(images))
        compiled = session.compiles(earns_compiling(Flat(trajectories.architecture), seen))
        state = State.begin(images, labels, trajectories.size, settings, compiled)
        if settings.importance == "wiener":
            state.weight = _wiener(session, trajectories).to(state.weight)
        return state
    return found


def _wiener(session: Session, trajectories: Trajectories) -> Tensor:
    """W (P,) from the noise that the ledger states."""
    config, net = session.config, Flat(trajectories.architecture)
    private, settings = config.experts.private, config.distill
    steps = private.steps // private.rows * settings.expert_epochs
    variance = steps * Ledger.read(place(session, None)[0].folder).step_variance(config.experts.lr)
    return importance.wiener(
        trajectories, net.numel, ~net.dead(), settings.max_start_epoch, settings.expert_epochs, variance
    )


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
            for _ in iterate(kernels, trajectories, state, settings, distillation_seed(session), share):
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


def distilled(session: Session, splits: Splits | None) -> tuple[Work, Distilled]:
    """The distilled set of this config; it must have been made."""
    work = _work(session, experts_key(session, splits))
    if not work.done:
        raise UserError(
            "distill: the distilled set of this config is not there yet; run `medistill distill` with the same "
            "options first, or `medistill run` for every stage"
        )
    return work, Distilled.load(work.file(FILE))


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


def _write(session: Session, work: Work, state: State, known: Constants, trajectories: Trajectories) -> list[str]:
    """Write the distilled set, its history and pictures, and return the names of the files."""
    settings = session.config.distill
    images, labels, alpha = result(state, settings)
    last = dict(zip(HISTORY, state.history[-1].tolist(), strict=True))
    final = Distilled(
        images=images.cpu(),
        labels=labels.cpu(),
        lr=alpha,
        classes=known.classes,
        mean=known.mean,
        std=known.std,
        zca=known.zca,
        architecture=trajectories.architecture,
        augment=tuple(settings.augment),
        provenance={
            "method": "IADD" if settings.learns_weights else "MTT",
            "importance": settings.importance,
            **({"granularity": settings.granularity} if settings.learns_weights else {}),
            "start": settings.start,
            "iterations": settings.iterations,
            "experts": len(trajectories),
            "weight_share": _finite(last["weight_share"]),
            "selected": "last iteration, fixed beforehand",
            **_guarantee(session),
        },
    )
    final.save(work.folder / FILE)
    history = {name: column.tolist() for name, column in zip(HISTORY, state.history.T, strict=True)}
    plain = {name: [_finite(value) for value in values] for name, values in history.items()}
    write_json(work.folder / "history.json", plain)
    same = () if settings.learns_weights else ("loss_unweighted",)  # where W is 1
    drawn = {
        name: line for name, line in history.items() if name == "loss" or (len(set(line)) > 1 and name not in same)
    }
    curves_figure(drawn, work.folder / "curves.png")
    distilled_grid(final.pictures().clamp(0, 1), final.targets, final.classes, work.folder / "distilled.png")
    files = [FILE, CHECKPOINT, "history.json", "curves.png", "distilled.png"]
    if settings.learns_weights:
        weights_figure(_layers(trajectories.architecture, state.weight.cpu()), work.folder / WEIGHTS)
        files.append(WEIGHTS)
    return files


def _layers(architecture: Architecture, weight: Tensor) -> dict[str, Tensor]:
    """W (P,) by parameter tensor, without those that cannot matter."""
    net = Flat(architecture)
    dead = net.unflatten(net.dead())
    return {name: part for name, part in net.unflatten(weight).items() if not dead[name].all()}


def _guarantee(session: Session) -> dict[str, str]:
    """What the ledger promises of this set, in words; nothing of a set from plain experts."""
    if not session.config.experts.private.on:
        return {}
    ledger = Ledger.read(place(session, None)[0].folder)
    terms = ledger.terms
    return {
        "guarantee": f"epsilon {terms.epsilon:g}, delta {terms.delta:.3g}, unit {terms.unit}; see the privacy ledger",
        "ledger": ledger.id,
    }


def _finite(value: float) -> float | None:
    """A number for JSON, which knows no NaN: a skipped iteration has none."""
    return value if math.isfinite(value) else None
