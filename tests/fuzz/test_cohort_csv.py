"""The door for cohorts: whatever stands in a CSV, a cohort within its contract comes out, or sentences."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from fuzz.explore import explore
from fuzz.law import sentence
from fuzz.mutate import mutate
from fuzz.watchdog import Files, Watchdog
from hypothesis import strategies as st

from medistill.data.cohort import COLUMNS, SPLITS, CohortError, read_cohort
from medistill.errors import UserError
from medistill.seeds import derive

DOOR, NAME = "cohort_csv", "cohort.csv"
MOST_LINES = 200  # 20 of each kind of mistake
FILMS = ("a.png", "b.png", "c.png", "films/d.dcm", "ü.png")
ROWS = [
    ["path", "label", "patient_id", "view", "sex", "age", "site", "split"],
    ["a.png", "COVID", "p1", "PA", "F", "61", "north", "train"],
    ["b.png", "Normal", "p2", "AP", "M", "7", "north", "test"],
    ["c.png", "Läsion, links", "p3", "", "", "", "south", "val"],
    ["films/d.dcm", "COVID", "unknown", "PA", "", "", 'the "old" one', "train"],
]


def judge(folder: Path) -> str:
    """Read the cohort beside its films."""
    options = json.loads((folder / "options.json").read_text())
    for name in FILMS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"film")
    try:
        cohort = read_cohort(folder / NAME, **options)
    except UserError as error:
        told = [line for line in str(error).split("\n") if not re.fullmatch(r"\.\.\. and \d+ more of this kind", line)]
        assert len(told) <= MOST_LINES, f"{len(told)} lines"
        for line in told:
            sentence(line, rf"{re.escape(NAME)}( row \d+ \(|: )|data\.columns: ", 1200)
        assert not isinstance(error, CohortError) or all(path.is_file() for path in error.films)
        return "refused"
    table = cohort.table
    assert list(table.columns) == list(COLUMNS) and len(cohort) == len(table) > 0
    assert all(type(cell) is str for column in COLUMNS for cell in table[column]), "a cell is no text"
    assert all(path.is_absolute() and path.is_file() for path in cohort.paths), "a path is no film's"
    assert len(set(table["path"])) == len(table), "a film stands twice"
    assert len(cohort.classes) >= 2 and all(name.isprintable() and name for name in cohort.classes), cohort.classes
    assert [cohort.classes[label] for label in cohort.labels] == table["label"].tolist()
    assert len(cohort.groups) == len(table) and len(set(cohort.groups.tolist())) > 1
    assert options.get("unknown_patients") or cohort.unknown_patients == 0
    assert cohort.given_split is None or set(cohort.given_split) <= set(SPLITS)
    return "returned"


def case(body: bytes, **options: object) -> Files:
    return {NAME: body, "options.json": json.dumps(options).encode()}


def as_csv(rows: list[list[str]], **style: object) -> bytes:
    """Rows as a CSV in UTF-8."""
    file = io.StringIO(newline="")
    csv.writer(file, **style).writerows(rows)  # type: ignore[arg-type]
    return file.getvalue().encode("utf-8", "surrogatepass")


def mutants(seed: int, cases: int) -> Iterator[Files]:
    """A sound table, then mutants of it in several styles."""
    sound = as_csv(ROWS)
    tables = [
        sound,
        as_csv(ROWS, quoting=csv.QUOTE_ALL),
        as_csv(ROWS, lineterminator="\n"),
        b"\xef\xbb\xbf" + sound,
        as_csv([row[:3] for row in ROWS]),
        as_csv([*ROWS, *([f"x{number}.png", f"c{number}", "p", "", "", "", "", "val"] for number in range(300))]),
    ]
    for index in range(cases):
        body = tables[index % len(tables)]
        if index >= len(tables):
            body = mutate(body, Random(derive(seed, DOOR, index)), tables, rounds=5)
        yield case(body, unknown_patients=True)


HOSTILE = [
    "", " ", "\0", "nul\0.png", "unknown", "UNKNOWN", "nan", "NA", "None", "=1+1", '"', "'", ",", "\r", "\n", "a\nb",
    "\x1b[2J", "\u202e", "\u2028", "../../etc/passwd", "/dev/zero", "/etc/passwd", "~", "..", ".", "/", "\\\\host\\x",
    "a.png/b", "a.png ", "./a.png", "films/../a.png", "x" * 300, "y/" * 3000, "file:///a.png", "C:\\a.png", "1e999",
]  # fmt: skip
CELLS = st.one_of(
    st.sampled_from([*FILMS, "COVID", "Normal", "p1", "p2", "train", "val", "test", "PA", "F", "61"]),
    st.sampled_from(HOSTILE),
    st.text(max_size=12),
    st.text(st.characters(codec="utf-8"), max_size=200),
)
HEADERS = st.one_of(
    st.just(list(COLUMNS)),
    st.just(list(COLUMNS[:3])),
    st.permutations(COLUMNS),
    st.lists(st.one_of(st.sampled_from([*COLUMNS, "Path", "file", "path.1", "Unnamed: 0"]), CELLS), max_size=10),
)
STYLES = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from([*",,,,,,,,", ";", "\t"]),
        "lineterminator": st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    }
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.dictionaries(st.sampled_from([*COLUMNS, "patient_known", "patient", "\x1b"]), CELLS, max_size=3),
        "classes": st.lists(st.sampled_from(["COVID", "Normal", "Flu"]), max_size=3, unique=True),
        "unknown_patients": st.booleans(),
    },
)


@st.composite
def likely_rows(draw: st.DrawFn) -> list[list[str]]:
    """Rows that could be a cohort's, with here and there a cell that could not."""
    cells = {
        "label": st.sampled_from(["COVID", "Normal", "Läsion, links"]),
        "patient_id": st.sampled_from(["p1", "p2", "p3", "p4", "007"]),
        "split": st.sampled_from(draw(st.sampled_from([[""], ["train"], ["train", "val", "test"]]))),
    }
    header = draw(HEADERS)
    paths = draw(st.permutations(FILMS))
    rows = [
        [path if name == "path" else draw(cells.get(name, st.sampled_from(["", "x", "PA"]))) for name in header]
        for path in paths[draw(st.integers(0, 2)) :]
    ]
    if draw(st.booleans()):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1)) if row else 0 :] = draw(st.lists(CELLS, max_size=3))
    return [list(header), *rows]


@st.composite
def tables(draw: st.DrawFn) -> Files:
    """A table in some style, encoding and length, and the options it is read with."""
    rows = draw(st.one_of(likely_rows(), likely_rows(), st.lists(st.lists(CELLS, max_size=10), max_size=6)))
    body = as_csv(rows, escapechar="\\", **draw(STYLES))
    kind = draw(st.integers(0, 24))
    if kind == 0:
        body = body.decode("utf-8", "replace").encode(draw(st.sampled_from(["utf-16", "cp1252", "utf-7"])), "replace")
    elif kind == 1:
        body = b"\xef\xbb\xbf" + body
    elif kind == 2:
        body += draw(st.sampled_from([b'"', b'"' * 99999, b"," * 50000, b"\n" * 50000, b"x" * 2**20, b"\0" * 2**16]))
    elif kind == 3:
        body = draw(st.sampled_from([b",", b'""', b"a,", b"\xff"])) * draw(st.sampled_from([1, 2000, 20000])) + body
    elif kind == 4:
        body = draw(st.binary(max_size=300))
    return case(body, **draw(OPTIONS))


def test_mutants_of_a_table(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge) as watchdog:
        watchdog.check_all(mutants(seed, cases // 2))


def test_tables_of_any_kind(cases: int, seed: int) -> None:
    with Watchdog(DOOR, seed, judge) as watchdog:
        explore(watchdog, tables(), cases - cases // 2)


def test_again(again: Files, seed: int) -> None:
    """The one case that MEDISTILL_FUZZ_AGAIN names."""
    with Watchdog(DOOR, seed, judge) as watchdog:
        watchdog.check_all(iter([again]))
