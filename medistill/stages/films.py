"""Films of a hospital: a cohort of files, read by the rules for DICOM and pictures, split by patient."""

import json
import os
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medistill.data.cohort import Cohort, CohortError, read_cohort
from medistill.errors import UserError
from medistill.files import digest_of
from medistill.stages.session import Session
from medistill.stages.source import Examined, find, require_positive

if TYPE_CHECKING:
    from medistill.data.store import Stored

LEFT_OUT = "left_out.txt"
MEAN, STD = (0.5,), (0.25,)
"""Constants of the normalisation, not statistics of the data: nothing about a patient is in them."""


@dataclass
class Films:
    """The films that `data.cohort` names, or the phantom cohort, which is written when it is asked for."""

    session: Session

    def fingerprint(self) -> str:
        """A digest that changes when a film or a row of the cohort changes."""
        cohort = self.cohort
        stats = [path.stat() for path in cohort.paths]
        films = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
        return digest_of([json.loads(cohort.table.to_json(orient="values")), cohort.classes, films])

    def examine(self) -> Examined:
        """Read every film of the cohort, tell all that is wrong at once, and split the patients.

        Raises:
            UserError: one line a mistake; with `on_bad_file: skip` files that cannot be read are left out and counted.
        """
        from medistill.data.duplicates import require_distinct
        from medistill.data.split import split_patients

        data = self.session.config.data
        try:
            cohort = self.cohort
        except CohortError as error:
            raise self._with_bad_files(error) from error
        decoded = self._decoded(cohort.paths)
        left_out = [decoded.errors[index] for index in sorted(decoded.errors)]
        notes = self._bad_files(left_out, len(cohort))
        good = decoded.good
        kept = cohort.keep(good)
        split = split_patients(
            kept.labels,
            kept.groups,
            classes=kept.classes,
            given=kept.given_split,
            val_fraction=data.val_fraction,
            test_fraction=data.test_fraction,
            seed=self.session.config.seed,
        )
        names = [path.name for path in kept.paths]
        hashes = [decoded.hashes[i] for i in good]
        require_distinct(names, hashes, kept.table["label"].tolist(), split.tolist())
        if kept.unknown_patients:
            notes.append(f"{kept.unknown_patients} films have no patient id; each counts as a patient of its own")
        choices = [decoded.choices[i] for i in good]
        read = {name: [each.get(name, "") for each in choices] for name in choices[0]}
        # a picture's header names no view, and a cohort's table may
        read["view"] = [film or row for film, row in zip(read["view"], kept.table["view"], strict=True)]
        return Examined(
            images=decoded.images.keep(good, data.mask),
            labels=torch.from_numpy(kept.labels),
            groups=torch.from_numpy(kept.groups),
            split=split,
            classes=kept.classes,
            mean=MEAN,
            std=STD,
            names=names,
            table=kept.table.assign(split=split, **read),
            unit="films",
            notes=notes,
            left_out=left_out,
            hashes=hashes,
        )

    @cached_property
    def cohort(self) -> Cohort:
        """The table of the films, all its mistakes told at once."""
        data = self.session.config.data
        cohort = read_cohort(
            self._phantom() if data.cohort == "phantom" else find(data),
            columns=data.columns,
            classes=data.classes or None,
            unknown_patients=data.unknown_patients,
        )
        require_positive(data, cohort.classes)
        return cohort

    def _decoded(self, paths: list[Path]) -> "Stored":
        """These films; worker processes read those that the run's folder does not hold yet."""
        from medistill.data.decode import Reading, stream
        from medistill.data.store import FilmStore

        data = self.session.config.data
        rules = {"modalities": data.modalities, "views": data.views}
        cores = data.workers or os.cpu_count() or 1

        def decode(absent: Sequence[Path]) -> Generator[tuple[range, list[Reading]], None, None]:
            workers = min(cores, max(1, len(absent) // 8))
            return stream(absent, data.size, modalities=data.modalities, views=data.views, workers=workers)

        with (
            FilmStore.open(self.session.folder, data.size, rules) as store,
            self.session.bar(len(paths), "reading films", "film", store.count(paths)) as bar,
        ):
            return store.read(paths, decode, lambda done: bar.update(done - bar.n))

    def _phantom(self) -> Path:
        """The table of the embedded cohort."""
        from medistill.data.phantom_files import write_cohort

        made, seed = self.session.config.data.phantom, self.session.config.seed
        key = digest_of([asdict(made), seed])[:8]
        folder = self.session.folder / f"phantom-{key}"
        return write_cohort(folder, patients=made.patients, films=made.films, size=made.size, seed=seed)

    def _with_bad_files(self, error: CohortError) -> UserError:
        """The mistakes of the table and, where bad files are mistakes too, those of the files it names."""
        if self.session.config.data.on_bad_file == "skip" or not error.films:
            return error
        bad = self._decoded(error.films).errors
        if not bad:
            return error
        return UserError("\n".join([str(error), self._told([bad[index] for index in sorted(bad)], len(error.films))]))

    def _bad_files(self, lines: list[str], films: int) -> list[str]:
        """A note on files that cannot be used, or a UserError that lists them, as `data.on_bad_file` says."""
        if not lines:
            return []
        if self.session.config.data.on_bad_file == "error":
            raise UserError(self._told(lines, films))
        return [f"{len(lines)} of {films} files cannot be used and were left out"]

    @staticmethod
    def _told(lines: list[str], films: int) -> str:
        """A line for each file that cannot be used, and what to do."""
        advice = "mend or remove them, or set data.on_bad_file to skip"
        return "\n".join([*lines, f"data: {len(lines)} of {films} files cannot be used; {advice}"])
