"""TRAIN: a classifier fitted on a release and on nothing else, and measured on films of one's own."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medistill.config.train import Train
from medistill.data.cohort import Cohort
from medistill.errors import UserError
from medistill.evaluate.student import fit_all, predict
from medistill.files import digest_of, read_json, write_json
from medistill.leftovers import sweep
from medistill.release.model import FACTS, METRICS, Model, card, load_model, read_facts, write_model
from medistill.seeds import generator
from medistill.stages.order import Order, order_of
from medistill.stages.own_films import NAMES, WITHHELD, OwnFilms, few, measure, own_films, own_table
from medistill.stages.progress import Progress
from medistill.stages.reading import device_named, require_gray
from medistill.stages.recorded import origin

if TYPE_CHECKING:
    from medistill.track import StageRun, Tracker

Say = Callable[[str], None]

LEARNT = 0.1
"""A network whose loss on its own training images stays this far above the least possible has not learnt them: it can
call all of them right and still know nothing of films (docs/using.md)."""


def train(settings: Train, say: Say) -> None:
    """`medistill train`: networks on a release, kept in a folder; measured on the films of --test."""
    order = order_of(settings, say)
    key = order.training["key"]
    folder = Path(settings.out or f"model-{key[:8]}")
    for path in (folder, folder / METRICS):
        sweep(path)
    device, done = device_named(settings.device), _there(folder, key)
    # before the work, so that a mistake in the table costs none
    table = own_table(Path(settings.test), settings.columns, order.data.classes, say) if settings.test else None
    tracker = _tracker(settings, order)
    if done:
        say(f"train: done already -> {folder}")
    if not done or (tracker and not tracker.knows("train", {"medistill.key": key})):
        with _recorded(tracker, "train", order, key) as run:
            if not done:
                _fit(folder, order, device, say)
            if tracker and run:
                _register(tracker, run, folder, order, say)
    if not done:
        say(f"train: -> {folder}, not for diagnosis")
    if table is not None:
        _test(table, settings.workers, tracker, folder, order, device, say)


def _there(folder: Path, key: str) -> bool:
    """Whether a folder holds the model of this key already. Raises UserError for another model's."""
    if not (folder / FACTS).exists():
        return False
    training = read_facts(folder).get("training")
    if not isinstance(training, dict) or training.get("key") != key:
        raise UserError(
            f"--out: {folder} holds a model of another release or other settings; name another folder, or move it away"
        )
    return True


def _fit(folder: Path, order: Order, device: torch.device, say: Say) -> None:
    """Train the networks and write their folder."""
    students = _students(order, device, say)
    answers = torch.stack([predict(student, order.data.images, device) for student in students])  # (S, M, K)
    found = _on_images(answers, order)
    for student in students:
        student.cpu()
    facts = {"release": order.source, "training": order.training, "positive": order.positive}
    data = order.data
    model = Model(order.architecture, data.classes, data.mean, data.std, order.reading, tuple(students), facts)
    write_model(folder, model, {"synthetic": found, "test": None}, card(facts, data.classes))
    say(
        f"train: {order.architecture.name}:{order.architecture.width} at step size {order.lr:g}: of its own training "
        f"images {found['accuracy']:.0%} right, loss {found['loss']:.3g} (at best {found['least']:.3g})"
    )
    if found["loss"] > found["least"] + LEARNT:
        say("note: it has not learnt them; give more --steps, or another --lr")


def _students(order: Order, device: torch.device, say: Say) -> list[nn.Module]:
    """The trained networks, in the order of their seeds."""
    generators = [generator(order.seed, "train", number) for number in range(order.students)]
    data, steps = order.data, order.recipe.steps
    with Progress(order.students * steps, "training", "step", 0, say) as bar:
        told = bar.estimate(f"training: {order.students} x {order.architecture.name} of {steps} steps")
        try:
            trained = fit_all(
                data.images,
                data.labels,
                order.architecture,
                order.lr,
                order.recipe,
                generators,
                device,
                bar.update,
                told=told,
                sequence=order.sequence,
            )
            done = dict(trained)
        except UserError as error:
            raise UserError(f"--lr: {order.architecture.name}: {str(error).removeprefix('evaluation: ')}") from error
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
                raise
            remedy = "lower --batch, or name a narrower network (--arch NAME:WIDTH)"
            raise UserError(f"{device}: out of memory while training {order.architecture.name}; {remedy}") from error
    return [done[number] for number in range(order.students)]


def _on_images(answers: Tensor, order: Order) -> dict[str, Any]:
    """Loss and accuracy on the synthetic images: that they were learnt, and nothing about films. Answers (S, M, K)."""
    labels, targets = order.data.labels, order.data.targets
    if not bool(answers.isfinite().all()):
        raise UserError(f"--lr: a network answers with NaN after training at step size {order.lr:g}; give a lower one")
    losses = [_cross_entropy(labels, p) for p in answers]
    right = [float((p.argmax(1) == targets).float().mean()) for p in answers]
    return {
        "loss": sum(losses) / len(losses),
        "accuracy": sum(right) / len(right),
        "least": _cross_entropy(labels, labels),
        "losses": losses,
        "accuracies": right,
    }


def _cross_entropy(labels: Tensor, answers: Tensor) -> float:
    """Mean over images of -sum label * log(answer), both (M, K); 0 log 0 = 0. Its least is the labels' entropy."""
    tiny = torch.finfo(answers.dtype).tiny
    return 0.0 - float((labels * answers.clamp_min(tiny).log()).sum(1).mean())


def _test(
    table: Cohort,
    workers: int,
    tracker: "Tracker | None",
    folder: Path,
    order: Order,
    device: torch.device,
    say: Say,
) -> None:
    """Measure the model of a folder on the films of --test, and keep the figures in its metrics.json."""
    require_gray(order.architecture.channels)
    model = load_model(folder)
    films = own_films(table, model.classes, model.reading, workers, say)
    digest = _digest(films)
    before = read_json(folder / METRICS)
    if before["test"] and before["test"].get("digest") == digest:
        _tell(before["test"], say)
        say(f"test: done already -> {folder / METRICS}")
        return
    answers = model.to(device).probabilities(films.images, device)
    found = measure(answers, films, model.classes, order.positive, order.seed)
    _tell(found, say)
    if few(found):
        say(f"note: {WITHHELD}")
        write_json(folder / METRICS, before | {"test": {"withheld": WITHHELD}})
        return
    with _recorded(tracker, "test", order, digest_of([order.training["key"], digest])) as run:
        write_json(folder / METRICS, before | {"test": found | {"digest": digest}})
        if run:
            run.input("films of their own", digest, "test", {"films": found["films"], "patients": found["patients"]})
            values = {name: row["value"] for name, row in found["metrics"].items() if row["value"] is not None}
            run.metrics(0, {f"test/{name}": value for name, value in values.items()})
    say(f"test: -> {folder / METRICS}")


def _digest(films: OwnFilms) -> str:
    """The identity of test films: pixels, labels, patients."""
    state = hashlib.sha256(repr(tuple(films.images.shape)).encode())
    for tensor in (films.images, films.labels, films.groups):
        state.update(tensor.contiguous().numpy().data)
    return state.hexdigest()


def _tell(found: Mapping[str, Any], say: Say) -> None:
    """The figures, for people."""
    say(f"test: {found['films']} films of {found['patients']} patients")
    for name in NAMES:
        row = found["metrics"].get(name, {"value": None})
        if row["value"] is not None:
            low, high = row["interval"]
            say(f"test: {name.replace('_', ' ')} {row['value']:.3f} ({low:.3f} to {high:.3f}, 95 % by patient)")
    for name, row in found["classes"].items():
        share = "no film" if row["recall"] is None else f"{row['recall']:.3f} of {row['films']} films called so"
        say(f"test: {name}: {share}")


def _register(tracker: "Tracker", run: "StageRun", folder: Path, order: Order, say: Say) -> None:
    """Record how a model learnt its images, and register it."""
    learnt = read_json(folder / METRICS)["synthetic"]
    run.metrics(0, {f"synthetic/{name}": learnt[name] for name in ("loss", "accuracy")})
    found = tracker.register(run.run_id, order.name, folder, origin(order.data))
    alias = "alias released" if found.released else f"without the alias released: {found.why}"
    say(f"registered: {found.name}, version {found.version}, {alias}")


def _tracker(settings: Train, order: Order) -> "Tracker | None":
    """The MLflow store; None where none is wanted. It is opened before the work, so that silence costs nothing."""
    if not settings.track:
        return None
    from medistill.track import open_tracker

    return open_tracker(order.name)


@contextmanager
def _recorded(tracker: "Tracker | None", stage: str, order: Order, key: str) -> "Iterator[StageRun | None]":
    """The MLflow record of what is done inside."""
    if tracker is None:
        yield None
        return
    release = {"medistill.release": order.source["digest"]}
    parent = tracker.parent(f"models of {order.name}", f"models-{order.source['digest'][:16]}", release)
    params = {"train": {name: value for name, value in order.training.items() if name != "key"}}
    with tracker.stage(parent, stage, key, params | {"net": asdict(order.architecture)}, release) as run:
        yield run
