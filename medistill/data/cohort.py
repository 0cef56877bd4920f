"""A cohort: one row per film with label and patient, from a CSV or folders; every mistake told at once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medistill.data.raw_table import read_raw
from medistill.errors import UserError
from medistill.foreign import listed, shown

COLUMNS = ("path", "label", "patient_id", "view", "sex", "age", "site", "split")
NEEDED = ("path", "label", "patient_id")
FILMS = (".dcm", ".png", ".jpg", ".jpeg", ".webp")
SPLITS = ("train", "val", "test")
UNKNOWN = "unknown"
KNOWN = "patient_known"  # not a column of the table: it says in a CSV whose ids stand for nobody known
SHOWN = 20  # mistakes of one kind that are spelt out before the rest is only counted
LONGEST = 100  # characters of a label: it names a folder of the release


class CohortError(UserError):
    """What is wrong with a table, one line a mistake.

    Attributes:
        films: the files it names that are there, each once.
    """

    def __init__(self, mistakes: list[str], films: list[Path]):
        super().__init__("\n".join(mistakes))
        self.films = films


@dataclass(frozen=True)
class Cohort:
    """Films with their labels and patients.

    Attributes:
        table: one row per film, the columns of COLUMNS as strings, "" where the source says nothing; `path`
            is absolute.
        classes: the class names in the order of the labels.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def paths(self) -> list[Path]:
        """The films' files."""
        return [Path(path) for path in self.table["path"]]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) indices into `classes`."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([numbers[label] for label in self.table["label"]], dtype=np.int64)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) the patient as a number in order of appearance; a film without one is its own group."""
        return patient_groups(self.table["patient_id"].tolist())

    @property
    def unknown_patients(self) -> int:
        """Films whose patient is said to be unknown."""
        return int((self.table["patient_id"] == UNKNOWN).sum())

    @property
    def given_split(self) -> list[str] | None:
        """The split each film comes with, or None when the source gives none."""
        split = self.table["split"].tolist()
        return split if any(split) else None

    def keep(self, rows: list[int]) -> "Cohort":
        """The cohort of some rows, in their order."""
        return Cohort(self.table.iloc[rows].reset_index(drop=True), self.classes)


def patient_groups(patient_ids: list[str]) -> NDArray[np.int64]:
    """(N,) numbers in order of appearance, a new one for every `unknown`."""
    keys = [(name, row if name == UNKNOWN else 0) for row, name in enumerate(patient_ids)]
    numbers: dict[tuple[str, int], int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def read_cohort(
    source: Path,
    *,
    columns: dict[str, str] | None = None,
    classes: list[str] | None = None,
    unknown_patients: bool = False,
) -> Cohort:
    """Read a cohort and tell all its mistakes at once.

    Args:
        source: a CSV whose paths are relative to it, or a folder of class folders, optionally under train/,
            val/ and test/.
        columns: our column name -> the CSV's, where they differ; `patient_known` names a column in which 0 makes a
            row's patient unknown, whatever its id.
        classes: the class names in the order of the labels; None takes those found, sorted.
        unknown_patients: permit films whose patient is unknown (`patient_id: unknown`, and class folders).

    Raises:
        UserError: one line for each kind of mistake and film; a CohortError where a table could be read.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; check data.cohort")
    if source.is_dir():
        table, names = _read_folder(source)
    else:
        table, names = _read_csv(source, columns or {})
    found = sorted(set(table["label"]) - {""})
    cohort = Cohort(table, tuple(classes if classes is not None else found))
    mistakes = _row_mistakes(cohort, names) + _cohort_mistakes(cohort, names, source, unknown_patients)
    if mistakes:
        named = dict.fromkeys(path for path in cohort.paths if _is_there(path))
        raise CohortError(mistakes, list(named))
    return cohort


def _read_csv(source: Path, columns: dict[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """The table of a CSV, and each row's name in messages."""
    strangers = sorted(set(columns) - {*COLUMNS, KNOWN})
    if strangers:
        raise UserError(
            f"data.columns: {listed(strangers)} is no column of a cohort; known are {', '.join((*COLUMNS, KNOWN))}"
        )
    name = shown(source.name)
    raw = read_raw(source, name)
    theirs = {ours: columns.get(ours, ours) for ours in COLUMNS}
    asked = theirs | {ours: name for ours, name in columns.items() if ours == KNOWN}
    missing = [their for ours, their in asked.items() if their not in raw and (ours in NEEDED or ours in columns)]
    if missing:
        raise UserError(
            f"{name}: no column {listed(missing)} among {listed(raw.columns)}; "
            "add it, or name the right one in data.columns"
        )
    table = pd.DataFrame(
        {ours: raw[their].str.strip() if their in raw else "" for ours, their in theirs.items()}, index=raw.index
    )
    if KNOWN in columns:
        table.loc[raw[columns[KNOWN]].str.strip() == "0", "patient_id"] = UNKNOWN
    names = [f"{name} row {row + 2} ({shown(path)})" for row, path in enumerate(table["path"])]
    table["path"] = [_resolved(source.parent, path) if path else "" for path in table["path"]]
    return table, names


def _resolved(folder: Path, path: str) -> str:
    """The absolute path of a film that is named relative to a folder; as it stands where no file can have it."""
    try:
        return str((folder / path).resolve())
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a null byte
        return str(folder.absolute() / path)


def _is_there(path: str | Path) -> bool:
    """Whether a path is a file's; one that no file can have is none's."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _read_folder(source: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table of a folder of class folders, and each row's name in messages."""
    folders = _subfolders(source)
    splits = [folder for folder in folders if folder.name in SPLITS]
    if splits and len(splits) < len(folders):
        others = ", ".join(folder.name for folder in folders if folder not in splits)
        raise UserError(f"{source}: holds {others} beside the folders of a split; move it, or list the films in a CSV")
    rows = []
    for top in splits or [source]:
        stray = sorted(path.name for path in top.iterdir() if path.is_file() and path.suffix.lower() in FILMS)
        if stray:
            raise UserError(
                f"{top}: {len(stray)} films stand beside the class folders ({stray[0]}); put each into its class's "
                "folder or move it away"
            )
        for folder in _subfolders(top):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and not _hidden(path):
                    rows.append((str(path.resolve()), folder.name, UNKNOWN, top.name if splits else ""))
    table = pd.DataFrame(rows, columns=["path", "label", "patient_id", "split"], dtype=str)
    table = table.reindex(columns=list(COLUMNS), fill_value="")
    root = source.resolve()
    return table, [
        shown(Path(path).relative_to(root) if Path(path).is_relative_to(root) else path, 200) for path in table["path"]
    ]


def _hidden(path: Path) -> bool:
    """Whether a file is one that systems leave behind in folders."""
    return path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini")


def _subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _row_mistakes(cohort: Cohort, names: list[str]) -> list[str]:
    """Mistakes that can be pinned on one row."""
    table = cohort.table
    mistakes: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    splits_given = cohort.given_split is not None
    for row, (path, label, patient, split) in enumerate(
        zip(table["path"], table["label"], table["patient_id"], table["split"], strict=True)
    ):

        def tell(kind: str, text: str, name: str = names[row]) -> None:
            mistakes.setdefault(kind, []).append(f"{name}: {text}")

        if not path:
            tell("path", "path is empty; name the film's file or delete the row")
        elif path in seen:
            first = seen[path]
            if table["label"][first] != label:
                tell(
                    "labels",
                    f"the film stands under two labels, {shown(table['label'][first], 80)} and {shown(label, 80)}; "
                    "decide for one",
                )
            else:
                tell("rows", "the film is listed twice; delete one row")
        elif not _is_there(path):
            tell("missing", "no such file; paths are relative to the table")
        seen.setdefault(path, row)
        if label not in cohort.classes:
            tell(
                "label",
                f"label {shown(label, 80) or 'empty'} is none of {listed(cohort.classes)}; mend it or data.classes",
            )
        elif not label.isprintable() or len(label) > LONGEST:
            tell("name", f"label {shown(label, 80)} is no plain name of up to {LONGEST} characters; give it another")
        if not patient:
            tell("patient", "patient_id is empty; fill it in, or write unknown where it cannot be known")
        if splits_given and split not in SPLITS:
            tell(
                "split",
                f"split {shown(split, 80) or 'empty'} is none of {', '.join(SPLITS)}; correct it, or leave all empty",
            )
    return [line for lines in mistakes.values() for line in _first_lines(lines)]


def _first_lines(lines: list[str]) -> list[str]:
    """The first of many lines, and how many there are more."""
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"... and {more} more of this kind"] if more > 0 else [])


def _cohort_mistakes(cohort: Cohort, names: list[str], source: Path, unknown_patients: bool) -> list[str]:
    """Mistakes of the cohort as a whole."""
    table, name = cohort.table, shown(source.name)
    if table.empty:
        return [f"{name}: lists no film; a cohort needs a row per film, or a folder per class with films in it"]
    found = set(table["label"])
    mistakes = _first_lines(
        [
            f"{name}: no film of class {shown(label, 80)}; add films or leave it out of data.classes"
            for label in cohort.classes
            if label not in found
        ]
    )
    if len(cohort.classes) < 2:
        mistakes.append(f"{name}: {len(cohort.classes)} class found; a classifier needs two or more")
    if len(set(cohort.groups.tolist())) == 1:
        mistakes.append(f"{name}: all films are of one patient; a split by patient needs several")
    if cohort.unknown_patients and not unknown_patients:
        mistakes.append(
            f"{name}: {cohort.unknown_patients} of {len(table)} films have no patient id; give ids, or "
            "set data.unknown_patients to true; one patient may then stand on both sides of a split"
        )
    known = table[(table["patient_id"] != UNKNOWN) & (table["patient_id"] != "")]
    apart = known.groupby("patient_id", sort=False)["split"].transform("nunique") > 1
    crossing = known[apart].groupby("patient_id", sort=False).groups.values()
    splits = table["split"].map(shown)
    mistakes += _first_lines(
        [
            f"{names[rows[0]]}: its patient stands in {' and '.join(sorted({*splits.loc[rows]})[:SHOWN])}, "
            f"with {len(rows)} films; move all films of a patient to one split"
            for rows in crossing
        ]
    )
    return mistakes
