"""LOAD and check: a cohort becomes three image sets on disk, or a list of everything that is wrong with it."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medistill.config import Data
from medistill.data.cohort import Cohort, read_cohort
from medistill.data.imageset import ImageSet
from medistill.errors import UserError
from medistill.files import digest_of, write_text
from medistill.stages.session import Session, Work

LEFT_OUT = "left_out.txt"
SPLITS = ("train", "val", "test")
MEAN, STD = (0.5,), (0.25,)
"""Constants of the normalisation, not statistics of the data: nothing about a patient is in them."""


@dataclass(frozen=True)
class Splits:
    """The three image sets, memory-mapped, and how many files of the cohort could not be used."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    left_out: int

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each."""
        return {name: getattr(self, name).digest for name in SPLITS}


@dataclass(frozen=True)
class Examined:
    """A cohort whose every film was read.

    Attributes:
        cohort: the good films.
        images: (N, 1, S, S) in [0, 1].
        split: (N,) train, val or test.
        table: the cohort with split and the reader's choices for each film; it stays in the house.
        notes: sentences worth telling: films left out, patients unknown. They name no file.
        left_out: a sentence for each file that cannot be used.
    """

    cohort: Cohort
    images: torch.Tensor
    split: np.ndarray
    table: Any
    notes: list[str]
    left_out: list[str]


def find_cohort(session: Session) -> Path:
    """The path of the cohort; the phantom cohort is written when it is asked for."""
    data = session.config.data
    if data.cohort == "phantom":
        from medistill.data.phantom_files import write_cohort

        made = data.phantom
        key = digest_of([asdict(made), session.config.seed])[:8]
        return write_cohort(
            session.folder / f"phantom-{key}",
            patients=made.patients,
            films=made.films,
            size=made.size,
            seed=session.config.seed,
        )
    places = [Path(data.cohort)]
    if not places[0].is_absolute() and "MEDISTILL_DATA" in os.environ:
        places.append(Path(os.environ["MEDISTILL_DATA"]) / data.cohort)
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"data.cohort: {data.cohort} is neither in the current folder nor in the folder that MEDISTILL_DATA names "
        f"({os.environ.get('MEDISTILL_DATA', 'not set')}); correct the path or set MEDISTILL_DATA"
    )


def examine(session: Session) -> Examined:
    """Read every film of the cohort, tell all that is wrong at once, and split the patients.

    Raises:
        UserError: one line a mistake; with `on_bad_file: skip` files that cannot be read are left out and counted.
    """
    from medistill.data.decode import decode
    from medistill.data.duplicates import require_distinct
    from medistill.data.split import split_patients

    data = session.config.data
    cohort = _read(session)
    workers = data.workers or os.cpu_count() or 1
    with session.bar(len(cohort), "reading films", "film") as bar:
        decoded = decode(
            cohort.paths,
            data.size,
            modalities=data.modalities,
            views=data.views,
            workers=min(workers, max(1, len(cohort) // 8)),
            progress=lambda done, total: bar.update(done - bar.n),
        )
    notes: list[str] = []
    left_out: list[str] = []
    if decoded.errors:
        lines = [decoded.errors[index] for index in sorted(decoded.errors)]
        if data.on_bad_file == "error":
            advice = "mend or remove them, or set data.on_bad_file to skip"
            raise UserError("\n".join([*lines, f"data: {len(lines)} of {len(cohort)} files cannot be used; {advice}"]))
        left_out = lines
        notes.append(f"{len(lines)} of {len(cohort)} files cannot be used and were left out: see {LEFT_OUT}")
    good = decoded.good
    kept = cohort.keep(good)
    images = decoded.images[good]
    split = split_patients(
        kept.labels,
        kept.groups,
        classes=kept.classes,
        given=kept.given_split,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=session.config.seed,
    )
    names = [path.name for path in kept.paths]
    require_distinct(names, [decoded.hashes[i] for i in good], kept.table["label"].tolist(), split.tolist())
    if kept.unknown_patients:
        notes.append(f"{kept.unknown_patients} films have no patient id; each counts as a patient of its own")
    choices = [decoded.choices[i] for i in good]
    table = kept.table.assign(split=split, **{k: [c.get(k, "") for c in choices] for k in choices[0]})
    return Examined(kept, images, split, table, notes, left_out)


def check(session: Session) -> None:
    """`medistill check`: read everything, write nothing, tell what was found."""
    examined = examine(session)
    for note in examined.left_out + examined.notes + _look_alikes(session, examined):
        session.say(f"note: {note}")
    groups = examined.cohort.groups
    for name in SPLITS:
        here = examined.split == name
        counts = examined.table[here]["label"].value_counts()
        films = ", ".join(f"{label} {counts.get(label, 0)}" for label in examined.cohort.classes)
        session.say(f"{name}: {here.sum()} films of {len(set(groups[here]))} patients ({films})")
    session.say("check: the cohort is ready")


def _look_alikes(session: Session, examined: Examined) -> list[str]:
    """A sentence for each pair of films in different splits that may be one patient; it names files."""
    from medistill.data.duplicates import near_duplicates

    threshold = session.config.data.near_duplicate
    if threshold == 1:
        return []
    names, split = [path.name for path in examined.cohort.paths], examined.split.tolist()
    return [
        f"{names[pair.first]} ({split[pair.first]}) and {names[pair.second]} ({split[pair.second]}) look alike "
        f"(correlation {pair.correlation:.3f}); if they are one patient, give both one patient_id"
        for pair in near_duplicates(examined.images, split, threshold=threshold)
    ]


def load(session: Session) -> Splits:
    """The image sets of the run; they are made anew only when the cohort or its settings changed."""
    data = session.config.data
    cohort = _read(session)
    work = session.work("data", _decides(data, session.config.seed))
    seen = _fingerprint(cohort)
    mark = work.folder / "fingerprint.txt"
    if not (work.done and mark.exists() and mark.read_text() == seen):
        with session.stage(work, {"data": asdict(data), "seed": session.config.seed}, {}) as run:
            examined = examine(session)
            sets = _write(work, examined, data)
            if run:
                for images in sets:
                    run.input(data.name, images.digest, images.split, {"films": len(images)})
                run.metrics(0, {f"films/{images.split}": len(images) for images in sets})
                run.metrics(0, {"films/left_out": len(cohort) - len(examined.cohort)})
        work.finish({}, [*(f"{name}.safetensors" for name in SPLITS), "cohort.csv", LEFT_OUT])
        write_text(mark, seen)
        for note in examined.notes:
            session.say(f"note: {note}")
        session.say(f"load: {len(examined.cohort)} films -> {work.folder}")
    train, val, test = (
        replace(
            ImageSet.load(work.folder / f"{name}.safetensors"),
            name=data.name,
            citation=data.citation,
            licence=data.licence,
        )
        for name in SPLITS
    )
    return Splits(train, val, test, len((work.folder / LEFT_OUT).read_text().splitlines()))


def cohort_table(session: Session) -> Any:
    """The cohort's table (pandas) of a run that was loaded: labels, split and the reader's choices."""
    import pandas as pd

    work = session.work("data", _decides(session.config.data, session.config.seed))
    return pd.read_csv(work.folder / "cohort.csv", dtype=str, keep_default_na=False)


def _decides(data: Data, seed: int) -> dict[str, Any]:
    """The settings that decide the images and their split; name, citation and licence do not."""
    settings = asdict(data)
    for name in ("workers", "near_duplicate", "name", "citation", "licence", "positive"):
        del settings[name]
    return {"data": settings, "seed": seed}


def _read(session: Session) -> Cohort:
    data = session.config.data
    cohort = read_cohort(
        find_cohort(session),
        columns=data.columns,
        classes=data.classes or None,
        unknown_patients=data.unknown_patients,
    )
    if data.positive not in cohort.classes:
        raise UserError(
            f"data.positive is {data.positive!r}, but the classes are {', '.join(cohort.classes)}; name one of them"
        )
    return cohort


def _fingerprint(cohort: Cohort) -> str:
    """A digest that changes when a film or a row of the cohort changes; it stays in the house."""
    stats = [path.stat() for path in cohort.paths]
    films = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return digest_of([json.loads(cohort.table.to_json(orient="values")), cohort.classes, films])


def _write(work: Work, examined: Examined, data: Data) -> list[ImageSet]:
    """Write the three sets and the table; without the marks of completeness they do not count."""
    cohort = examined.cohort
    labels, groups = torch.from_numpy(cohort.labels), torch.from_numpy(cohort.groups)
    (work.folder / "fingerprint.txt").unlink(missing_ok=True)
    sets = []
    for name in SPLITS:
        index = torch.from_numpy(np.flatnonzero(examined.split == name))
        images = ImageSet(
            examined.images[index],
            labels[index],
            groups[index],
            cohort.classes,
            data.name,
            name,
            MEAN,
            STD,
            data.citation,
            data.licence,
        )
        images.save(work.folder / f"{name}.safetensors")
        sets.append(images)
    write_text(work.folder / LEFT_OUT, "".join(f"{line}\n" for line in examined.left_out))
    write_text(work.folder / "cohort.csv", examined.table.to_csv(index=False, lineterminator="\n"))
    return sets
