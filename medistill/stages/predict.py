"""PREDICT: what a trained classifier answers to films, one row of a CSV each."""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from medistill.config.predict import Predict
from medistill.errors import UserError
from medistill.files import atomic
from medistill.leftovers import sweep
from medistill.release.model import Model, load_model
from medistill.release.reading import Reading
from medistill.stages.progress import Progress
from medistill.stages.reading import cores, device_named, read, require_gray

Say = Callable[[str], None]

FIRST = ("file", "class")
"""How the header of a table of predictions begins."""

AT_ONCE = 2048
"""Films in memory at a time."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute; a class's name may come from elsewhere."""


def predict(settings: Predict, say: Say) -> None:
    """`medistill predict`: a CSV with a row for each film; a film that cannot be read gets its sentence there."""
    say("Not for diagnosis: a network trained on synthetic images guesses here, approved by nobody.")
    model = load_model(Path(settings.model))
    require_gray(model.architecture.channels)
    device = device_named(settings.device)
    source, out = Path(settings.films), Path(settings.out)
    _require_ours(out)
    sweep(out)  # a killed call's table speaks of patients too
    names, paths = _films(source, out)
    reading = _reading(model, settings)
    if reading.adapter != "films":
        say(f"note: the release was made of {reading.adapter}, not of films as a hospital has them; expect little")
    model.to(device)
    header, workers = _header(model), cores(settings.workers)
    rows: list[list[str]] = []
    unread = 0
    with Progress(len(paths), "films", "film", 0, say) as bar:
        for start in range(0, len(paths), AT_ONCE):
            some = paths[start : start + AT_ONCE]
            found = read(some, reading, workers, bar)
            unread += len(found.errors)
            answers = model.probabilities(found.images, device)  # (S, B, K)
            for index, name in enumerate(names[start : start + AT_ONCE]):
                error = _in_our_options(found.errors.get(index, ""))
                cells = [""] * (len(header) - 2) if error else _cells(answers[:, index], model.classes)
                rows.append([plain_cell(name), *cells, error])
    _write(out, header, rows)
    say(
        f"predict: {len(paths) - unread} of {len(paths)} films -> {out}, which speaks of patients: keep it in the house"
    )
    if unread == len(paths):
        raise UserError(f"none of the {unread} files could be read; the column error of {out} says why")
    if unread:
        say(f"note: {unread} files could not be read; the column error says why")


def _reading(model: Model, settings: Predict) -> Reading:
    """How films are read: as the release's were, but for what the options accept."""
    own = model.reading
    return replace(
        own,
        modalities=tuple(settings.modalities) or own.modalities,
        views=tuple(settings.views) or own.views,
    )


def _films(source: Path, out: Path) -> tuple[list[str], list[Path]]:
    """The files to read, by name within the folder and by path; never the table that is written."""
    if source.is_file():
        return [source.name], [source]
    if not source.is_dir():
        raise UserError(f"{source}: no such file or folder; give a film, or a folder of films")
    found = []
    for root, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(root, name) for name in sorted(files) if not name.startswith(".")]
    paths = [path for path in found if path.is_file() and path.resolve() != out.resolve()]
    if not paths:
        raise UserError(f"{source}: holds no file; give a folder of films")
    return [path.relative_to(source).as_posix() for path in paths], paths


def _in_our_options(error: str) -> str:
    """A film's sentence with this verb's options for those of a run."""
    return error.replace("data.modalities", "--modalities").replace("data.views", "--views")


def _header(model: Model) -> list[str]:
    """The columns: file, class, a probability a class, the spread over several networks, the error."""
    spread = ["spread"] if len(model.students) > 1 else []
    return [*FIRST, *(f"p({name})" for name in model.classes), *spread, "error"]


def _cells(answers: Tensor, classes: Sequence[str]) -> list[str]:
    """Class, probabilities and spread of one film, from S networks' answers (S, K)."""
    mean = answers.mean(0)
    best = int(mean.argmax())
    spread = [f"{float(answers[:, best].std()):.6f}"] if len(answers) > 1 else []
    return [plain_cell(classes[best]), *(f"{share:.6f}" for share in mean.tolist()), *spread]


def plain_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _require_ours(out: Path) -> None:
    """Raise a UserError unless the place of the CSV is free, or taken by an earlier one."""
    if not out.exists():
        return
    first = ""
    if out.is_file():
        with out.open(encoding="utf-8", errors="replace") as file:
            first = file.readline(200)
    if not first.startswith(",".join(FIRST) + ","):
        raise UserError(f"--out: {out} exists and holds no predictions; name another file")


def _write(out: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write the table, atomically."""
    with atomic(out) as temporary, temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
