"""EXPERTS in DP mode: one film of each known patient, one ledger, and constants for those who may not see the films."""

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill import seeds
from medistill.data import phantom
from medistill.data.cohort import UNKNOWN
from medistill.data.imageset import ImageSet
from medistill.errors import UserError
from medistill.experts.ledger import FILE as LEDGER
from medistill.experts.ledger import Ledger, Terms, Unit, recorded
from medistill.experts.means import noisy_sums, shrink
from medistill.experts.private import one_film_each, train_private
from medistill.experts.trajectory import save_trajectory
from medistill.files import read_json, write_json, write_tensors
from medistill.stages.experts import CONSTANTS, MEANS, architecture_of, ledger_of, place
from medistill.stages.load import Splits, cohort_table
from medistill.stages.public import Constants
from medistill.stages.session import Session, Work

HOUSE = "data.json"
"""The digest of the films these experts saw. A function of patients without noise: it stays in the house."""


def experts_in_dp_mode(session: Session, splits: Splits) -> None:
    """Train the private experts that are not there yet; what an aborted run has drawn stays spent."""
    work, files = place(session, splits)
    _require_same_data(work, splits.train)
    missing = [index for index, file in enumerate(files) if not file.exists()]
    if not missing and work.done:
        ledger_of(session, splits)
        session.say(f"experts: {len(files)} private trajectories are there already -> {work.folder}")
        return
    settings = session.config.experts
    index, unit = units(session, splits)
    terms = Terms.of(settings, len(splits.train.groups[index].unique()), unit)
    params = {"experts": asdict(settings), "net": asdict(session.config.net), "seed": session.config.seed}
    with session.stage(work, params, {}) as run, Ledger.open(work.folder, terms) as ledger:
        write_json(work.folder / HOUSE, {"data": splits.train.digest})
        Constants.of(splits.train).save(work.folder / CONSTANTS)
        _announce(session, ledger, len(splits.train) - len(index))
        if terms.means:
            _means(session, splits, index, ledger)
        _train(session, splits, index, ledger, files, missing)
        if run:
            run.text(LEDGER, ledger.path.read_text())
    spent = recorded(work.folder)["spent"]
    work.finish(
        {"data": splits.train.digest},
        [*(file.name for file in files), CONSTANTS, LEDGER, *([MEANS] if terms.means else [])],
    )
    session.say(
        f"experts: {len(missing)} private trained, {len(files)} in all, epsilon {spent['epsilon']:.3f} at delta "
        f"{spent['delta']:.2g} spent -> {work.folder}"
    )


def units(session: Session, splits: Splits) -> tuple[Tensor, Unit]:
    """The training films that private experts may see, (n,) int64, and what one gradient of theirs stands for.

    Films without a patient id are left out: nobody knows whose others they are. A benchmark without patients is
    protected image by image.

    Raises:
        UserError: no film has a patient id.
    """
    table = cohort_table(session)
    rows = table[table["split"] == "train"]
    if "patient_id" not in rows:
        return torch.arange(len(rows)), "image"
    index = torch.from_numpy((rows["patient_id"] != UNKNOWN).to_numpy().nonzero()[0])
    if not len(index):
        raise UserError(
            "experts.private: no training film has a patient id, whom the guarantee is to; give ids in data.cohort"
        )
    return index, "patient"


def _train(
    session: Session, splits: Splits, index: Tensor, ledger: Ledger, files: list[Path], missing: list[int]
) -> None:
    """Train these experts and write a file each; rows of one that is not finished stand in a file beside it."""
    settings, train, architecture = session.config.experts, splits.train, architecture_of(session, splits)
    beside = {number: file.with_suffix(".begun.safetensors") for number, file in enumerate(files)}
    ledger.require_own([file for file in [*files, *beside.values()] if file.exists()])
    begun = {number: load_file(beside[number])["theta"] for number in missing if beside[number].exists()}
    pixels = train.as_seen(train.images[index]).to(session.device)
    labels, groups = train.labels[index].to(session.device), train.groups[index]
    rows_done = sum(len(rows) - 1 for rows in begun.values())
    with session.bar(len(missing) * settings.rows, "private experts", "row", rows_done) as bar:

        def keep(number: int, rows: Tensor) -> None:
            save_trajectory(beside[number], rows, architecture, index=number, ledger=ledger.id)
            bar.update(note=f"expert {number}, row {len(rows) - 1}")

        for number, rows in train_private(
            pixels, labels, groups, architecture, settings, session.config.seed, ledger, missing, begun=begun, keep=keep
        ):
            save_trajectory(files[number], rows, architecture, index=number, ledger=ledger.id)
            beside[number].unlink(missing_ok=True)


def _means(session: Session, splits: Splits, index: Tensor, ledger: Ledger) -> None:
    """Write the noisy class means, around the mean phantom, of the films that the experts see."""
    path = ledger.path.with_name(MEANS)
    if path.exists():
        ledger.require_own([path])
        return
    train, seed = splits.train, session.config.seed
    films, _ = phantom.films(8, max(64, train.images.shape[-1]), seeds.derive(seed, "mean phantom"))
    public = shrink(films).mean(0).expand(train.images.shape[1], -1, -1)
    chosen = index[one_film_each(train.as_seen(train.images[index]), train.groups[index], seed)]
    ledger.charge_means()
    sums = noisy_sums(train.images[chosen], train.labels[chosen], len(train.classes), public, ledger.noise.means)
    write_tensors(path, {"sums": sums, "public": public}, {"ledger": ledger.id})


def _announce(session: Session, ledger: Ledger, left_out: int) -> None:
    """Say what is promised, to whom, and who is not in it."""
    terms, noise = ledger.terms, ledger.noise
    session.say(
        f"experts: epsilon {terms.epsilon:g} at delta {terms.delta:.2g}, unit {terms.unit}, {terms.patients} of them: "
        f"{terms.experts} experts of {terms.steps} steps (reserve {terms.reserve}), noise {noise.step:.3f} x clip "
        f"{terms.clip:g}, rate {terms.rate:g}"
    )
    others = [path for path in session.folder.glob(f"experts-*/{LEDGER}") if path != ledger.path]
    if others:
        total = terms.epsilon + sum(recorded(path.parent)["spent"]["epsilon"] for path in others)
        session.say(
            f"note: {len(others)} more ledgers stand in {session.folder}; who sees sets of all of them has epsilon "
            f"{total:.3g} about the patients they share"
        )
    if left_out:
        session.say(f"note: {left_out} training films without a patient id are left out")
    if terms.unit == "image":
        session.say(
            "note: no patients are known here, so the guarantee is an image's; of k images of one person it is k-fold"
        )


def _require_same_data(work: Work, train: ImageSet) -> None:
    """Raise a UserError when these experts have seen other films."""
    path = work.folder / HOUSE
    if path.exists() and read_json(path)["data"] != train.digest:
        raise UserError(
            f"{work.folder.name}: the films have changed since these private experts saw them, and a budget belongs to "
            "patients; name another folder in `run`, and add the two epsilons up if both are released"
        )
