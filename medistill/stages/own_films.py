"""Labelled films of a hospital's own, on which a network trained on a release is measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medistill.data.cohort import SHOWN, Cohort, read_cohort
from medistill.errors import UserError
from medistill.evaluate import metrics
from medistill.evaluate.proportions import wilson
from medistill.evaluate.small_cells import LEAST
from medistill.files import plain
from medistill.release.reading import Reading
from medistill.seeds import generator
from medistill.stages.progress import Progress
from medistill.stages.reading import cores, read

NAMES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc_macro", "auroc_positive")
"""Those of all metrics that need no threshold: none could be fixed on other patients here."""

RESAMPLES = 1000
WITHHELD = f"a class has fewer than {LEAST} patients, so figures would speak of single ones: they are shown, not kept"


@dataclass(frozen=True)
class OwnFilms:
    """Films with labels and patients.

    Attributes:
        images: (N, 1, S, S) float32 in [0, 1], their border not blanked yet.
        labels: (N,) int64, an index into the network's classes.
        groups: (N,) int64, the patient as a number.
        left_out: how many films could not be read.
    """

    images: Tensor
    labels: Tensor
    groups: Tensor
    left_out: int


def own_films(
    cohort: Cohort, classes: Sequence[str], reading: Reading, workers: int, say: Callable[[str], None]
) -> OwnFilms:
    """Read the films that --test names; what cannot be read is told, counted and left out.

    Raises:
        UserError: no film that can be read.
    """
    with Progress(len(cohort), "reading films", "film", 0, say) as bar:
        found = read(cohort.paths, reading, cores(workers), bar)
    for number, index in enumerate(sorted(found.errors)):
        if number < SHOWN:
            say(f"note: {found.errors[index]}")
    if found.errors:
        say(f"note: {len(found.errors)} of {len(cohort)} films cannot be used and were left out")
    good = found.good
    if not good:
        raise UserError(f"--test: none of the {len(cohort)} films could be read; the sentences above say why")
    kept = cohort.keep(good)
    labels = [list(classes).index(label) for label in kept.table["label"]]
    return OwnFilms(found.images[good], torch.tensor(labels), torch.from_numpy(kept.groups), len(found.errors))


def own_table(source: Path, columns: Mapping[str, str], classes: Sequence[str], say: Callable[[str], None]) -> Cohort:
    """The table of the test films."""
    try:
        cohort = read_cohort(source, columns=dict(columns), unknown_patients=True)
    except UserError as error:
        words = str(error).replace("data.columns", "--columns").replace("data.cohort", "--test")
        raise UserError(words) from error
    strangers = sorted(set(cohort.classes) - set(classes))
    if strangers:
        raise UserError(
            f"--test: labels {', '.join(strangers)}, but the release knows {', '.join(classes)}; name these "
            "so, or leave the films out"
        )
    if cohort.given_split is not None:
        rows = [row for row, split in enumerate(cohort.given_split) if split == "test"]
        if not rows:
            raise UserError("--test: the table's column split calls no film test; give a table of test films")
        say(f"test: {len(rows)} of {len(cohort)} films are test films by the table's column split; the others are left")
        cohort = cohort.keep(rows)
    if cohort.unknown_patients:
        say(
            f"note: {cohort.unknown_patients} films have no patient id; each counts as a patient of its own, so that "
            "intervals may be too narrow"
        )
    return cohort


def measure(
    probabilities: Tensor, films: OwnFilms, classes: Sequence[str], positive: str | None, seed: int
) -> dict[str, Any]:
    """What S networks' answers (S, N, K) are worth; the classifier is their mean probability, and says the likeliest.

    No operating point: its threshold would need patients of its own.

    Returns:
        JSON-able: {"films", "patients", "left_out", "positive", "metrics": {name: {"value": of the classifier,
        "interval": 95 % by patient, "mean", "sd": over the networks}}, "classes": {name: {"films", "patients",
        "recall", "interval": Wilson's, which takes films for independent}}, "confusion": K x K films, true class by
        row}; None for what these films do not determine, as a class without one.
    """
    target = positive or classes[0]
    classifier, never = probabilities.mean(0), 0.5
    value = metrics.measure(classifier, films.labels, classes, target, never)
    runs = metrics.summary([metrics.measure(p, films.labels, classes, target, never) for p in probabilities])
    drawn = metrics.bootstrap_by_patient(
        [classifier], films.labels, films.groups, classes, target, [never], generator(seed, "bootstrap"), RESAMPLES
    )
    names = [name for name in NAMES if positive or name != "auroc_positive"]
    table = {
        name: {"value": value[name], "interval": drawn.intervals[name], "mean": runs[name][0], "sd": runs[name][1]}
        for name in names
    }
    guess = classifier.argmax(1)
    found = {
        "films": len(films.labels),
        "patients": len(films.groups.unique()),
        "left_out": films.left_out,
        "positive": positive,
        "metrics": table,
        "classes": {name: _recall(guess, films, number) for number, name in enumerate(classes)},
        "confusion": metrics.confusion(classifier, films.labels),
    }
    return plain(found)


def _recall(guess: Tensor, films: OwnFilms, number: int) -> dict[str, Any]:
    """How many films of one class are called so."""
    own = films.labels == number
    of, hits = int(own.sum()), int((guess[own] == number).sum())
    return {
        "films": of,
        "patients": len(films.groups[own].unique()),
        "recall": hits / of if of else None,
        "interval": wilson(hits, of),
    }


def few(found: Mapping[str, Any]) -> bool:
    """Whether a class is of so few patients that figures must not be kept; one without a film speaks of nobody."""
    sizes = np.array([row["patients"] for row in found["classes"].values()])
    return bool(((sizes > 0) & (sizes < LEAST)).any())
