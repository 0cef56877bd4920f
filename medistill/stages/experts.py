"""EXPERTS: train what is missing, one file each."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medistill.data.imageset import ImageSet, Seen, require_classes
from medistill.errors import UserError
from medistill.experts.ledger import FILE as LEDGER
from medistill.experts.ledger import Ledger, recorded
from medistill.experts.train import train_experts
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.nets import Architecture
from medistill.stages.load import Splits, load
from medistill.stages.public import Constants
from medistill.stages.session import ChangedError, Session, Work

if TYPE_CHECKING:
    from medistill.track import StageRun

CONSTANTS, MEANS = "constants.json", "means.safetensors"
SHARE = 0.25
"""The share of a GPU's free memory that the training images may take; the networks need the rest."""


def experts(session: Session) -> None:
    """`medistill experts`: train the experts that are not there yet, shared out among the processes."""
    splits = load(session)
    require_classes(splits.train)
    if session.config.experts.private.on:
        # imported here, for opacus takes seconds
        from medistill.stages.private import experts_in_dp_mode

        session.lead(lambda solo: experts_in_dp_mode(solo, splits))  # one process, for the budget is one
        return
    work, files = place(session, splits)
    group = session.group
    absent = [index for index, file in enumerate(files) if not file.exists()] if group.leads else []
    missing = group.numbers(absent)
    if not missing and session.done(work):
        session.say(f"experts: {len(files)} trajectories are there already -> {work.folder}")
        return
    settings, train = session.config.experts, splits.train
    params = {"experts": asdict(settings), "net": asdict(session.config.net), "seed": session.config.seed}
    with session.stage(work, params, {"data": train.digest}) as run:
        if run:
            run.input(train.name, train.digest, "training", {"films": len(train), "per_class": train.counts})
        mine = missing[group.rank :: group.size]
        # a run that was killed between its last file and the mark has nothing left but to be recorded
        losses = group.total(_train(session, splits, files, mine, run)) if missing else torch.zeros(0)
        if run:
            for index in sorted(set(missing) - set(mine)):
                for epoch, loss in enumerate(losses[index].tolist(), start=1):
                    run.metrics(epoch, {f"loss/expert_{index:03d}": loss})
    if group.leads:
        work.finish({"data": train.digest}, [file.name for file in files])
    session.say(f"experts: {len(missing)} trained, {len(files)} in all -> {work.folder}")


def _train(session: Session, splits: Splits, files: list[Path], mine: list[int], run: "StageRun | None") -> Tensor:
    """Train these experts, write a file each and return (experts, epochs) the losses, 0 for all the others."""
    settings, train = session.config.experts, splits.train
    images, labels = _images(train, session.device), train.labels.to(session.device)
    architecture = architecture_of(session, splits)
    each = " in each process" if session.group.size > 1 else ""
    losses = torch.zeros(len(files), settings.epochs, dtype=torch.float64)
    with session.bar(len(mine) * settings.epochs, "experts", "epoch") as bar:

        def progress(index: int, epoch: int, loss: float) -> None:
            losses[index, epoch - 1] = loss
            bar.update(note=f"expert {index}, loss {loss:.3f}")
            if run:
                run.metrics(epoch, {f"loss/expert_{index:03d}": loss})

        told = bar.estimate(f"experts: {len(mine)} to train{each}, {settings.epochs} epochs of each")
        for index, rows in train_experts(
            images, labels, architecture, settings, session.config.seed, mine, progress, session.compiled, told
        ):
            save_trajectory(files[index], rows, architecture, data=train.digest, index=index)
    return losses


def _images(train: ImageSet, device: torch.device) -> Tensor | Seen:
    """The training images as the networks see them: on a GPU with room all of them, else from the file as needed."""
    if train.zca is not None:
        return train.pixels().to(device)
    seen = Seen(train, device)
    if device.type == "cuda" and train.images.nbytes < SHARE * torch.cuda.mem_get_info(device)[0]:
        return seen.held()
    return seen


def experts_key(session: Session, splits: Splits | None) -> str:
    """The key of the experts, whether they are trained or not; in DP mode it needs no data."""
    return place(session, splits)[0].key


def trained(session: Session, splits: Splits | None) -> Trajectories:
    """The trajectories of the experts; they must have been trained. In DP mode this needs no data."""
    work, files = place(session, splits)
    missing = [file for file in files if not file.exists()]
    if missing:
        raise UserError(
            f"experts: {len(missing)} of {len(files)} trajectories of this config are not trained yet; "
            "run `medistill experts` with the same options first, or `medistill run` for every stage"
        )
    if session.config.experts.private.on:
        if work.done:
            ledger_of(session, splits)
        means = [work.folder / MEANS] if session.config.experts.private.means else []
        Ledger.read(work.folder).require_own([*files, *means])
    return Trajectories.open(files)


def ledger_of(session: Session, splits: Splits | None) -> dict[str, Any] | None:
    """The privacy ledger of experts in DP mode, as their stage left it; None for plain experts. It reads no film.

    Raises:
        UserError: it is gone, or another one now.
    """
    if not session.config.experts.private.on:
        return None
    work, _ = place(session, splits)
    if not (work.done and (work.folder / LEDGER).exists()):
        raise UserError(
            f"{work.folder.name}/{LEDGER}: not there, or the experts are not all there, so nothing tells what was "
            "spent on this set; put the folder back as `medistill experts` left it"
        )
    try:
        return recorded(work.file(LEDGER).parent)
    except ChangedError as error:
        raise UserError(
            f"{work.folder.name}/{LEDGER}: was changed after the experts were trained, so nobody knows what is spent, "
            "and deleting it would not bring that back; put back a copy, or take all of its epsilon for spent and name "
            "another folder in `run`"
        ) from error


def constants(session: Session, splits: Splits | None) -> Constants:
    """What is public of the data; in DP mode as the trained experts' stage wrote it down."""
    return Constants.load(place(session, None)[0].folder / CONSTANTS) if splits is None else Constants.of(splits.train)


def architecture_of(session: Session, splits: Splits) -> Architecture:
    """The network for these images."""
    return session.architecture(splits.train.images.shape[1], len(splits.train.classes))


def place(session: Session, splits: Splits | None) -> tuple[Work, list[Path]]:
    """The experts' folder and files. Their number is no part of its key, so that more can join.

    In DP mode the key holds the number, on which the noise depends, and nothing that was read from a film: who
    distils must find the place without them.
    """
    settings = session.config.experts
    decides: dict[str, Any] = {"experts": settings.decides(), "seed": session.config.seed}
    if settings.private.on:
        data = session.config.data
        named = {"name": data.name, "size": data.size, "classes": data.classes}
        decides |= {"experts": settings.decides_private(), "net": asdict(session.config.net), "data": named}
    elif splits is not None:
        decides |= {"net": asdict(architecture_of(session, splits)), "data": splits.train.digest}
    work = session.work("experts", decides)
    return work, [work.folder / f"expert_{index:04d}.safetensors" for index in range(settings.count)]
