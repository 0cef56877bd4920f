"""Cohorts from CSVs and folders; each mistake by its message, and all of them at once."""

from pathlib import Path

import numpy as np
import pytest

from medistill.data.cohort import COLUMNS, patient_groups, read_cohort
from medistill.errors import UserError

GOOD = [
    "path,label,patient_id,sex",
    "a.png,COVID,p1,F",
    "b.png,Normal,p2,M",
    "c.png,COVID,p1,",
    "d.png,Normal,p3,M",
]


@pytest.fixture
def table(tmp_path: Path):
    """A function (lines) -> path of a CSV beside the films a.png to f.png."""
    for name in "abcdef":
        (tmp_path / f"{name}.png").write_bytes(b"film")

    def write(*lines: str) -> Path:
        path = tmp_path / "cohort.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def mistakes(source: Path, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_cohort(source, **options)
    return str(caught.value).split("\n")


def test_csv(table, tmp_path):
    cohort = read_cohort(table(*GOOD))
    assert cohort.classes == ("COVID", "Normal")
    assert cohort.paths == [tmp_path.resolve() / f"{name}.png" for name in "abcd"]
    assert cohort.labels.tolist() == [0, 1, 0, 1]
    assert cohort.groups.tolist() == [0, 1, 0, 2]
    assert list(cohort.table.columns) == list(COLUMNS)
    assert cohort.table["sex"].tolist() == ["F", "M", "", "M"]
    assert cohort.table["site"].tolist() == [""] * 4
    assert cohort.given_split is None and cohort.unknown_patients == 0 and len(cohort) == 4
    kept = cohort.keep([1, 2])
    assert kept.labels.tolist() == [1, 0] and kept.table.index.tolist() == [0, 1]


def test_columns_classes_and_split(table):
    path = table("file,label,who,set", "a.png,b,x,train", "b.png,a,y,test", "c.png,a,z,train")
    columns = {"path": "file", "patient_id": "who", "split": "set"}
    cohort = read_cohort(path, columns=columns, classes=["b", "a"])
    assert cohort.labels.tolist() == [0, 1, 1]
    assert cohort.given_split == ["train", "test", "train"]


def test_spaces_marks_and_numbers_are_text(table, tmp_path):
    path = table(*GOOD)
    path.write_text("path,label,patient_id\na.png , COVID,007\nb.png,COVID,7\nc.png,NA,1\n", encoding="utf-8-sig")
    cohort = read_cohort(path)
    assert cohort.table["patient_id"].tolist() == ["007", "7", "1"]
    assert cohort.table["label"].tolist() == ["COVID", "COVID", "NA"]


def test_unknown_patients_must_be_permitted(table):
    path = table("path,label,patient_id", "a.png,x,unknown", "b.png,y,unknown", "c.png,x,p", "d.png,y,p")
    (text,) = mistakes(path)
    assert text.startswith("cohort.csv: 2 of 4 films have no patient id")
    cohort = read_cohort(path, unknown_patients=True)
    assert cohort.groups.tolist() == [0, 1, 2, 2] and cohort.unknown_patients == 2


def test_a_column_can_say_that_nobody_is_behind_an_id(table):
    """Only when it is asked for: an id that stands for one film looks like any other."""
    path = table("path,label,patient_id,sure", "a.png,x,film-1,0", "b.png,y,q,1", "c.png,x,p, 0", "d.png,y,p,1")
    columns = {"patient_known": "sure"}
    cohort = read_cohort(path, columns=columns, unknown_patients=True)
    assert cohort.table["patient_id"].tolist() == ["unknown", "q", "unknown", "p"]
    assert list(cohort.table.columns) == list(COLUMNS)
    assert read_cohort(path).table["patient_id"].tolist() == ["film-1", "q", "p", "p"]
    (text,) = mistakes(path, columns={"patient_known": "shure"})
    assert "no column shure" in text


def test_groups_are_numbers_in_order_of_appearance():
    assert patient_groups(["b", "unknown", "a", "b", "unknown"]).tolist() == [0, 1, 2, 0, 3]


@pytest.mark.parametrize(
    ("lines", "options", "text"),
    [
        (["path,label", "a.png,x"], {}, "cohort.csv: no column patient_id among path, label; add it"),
        (GOOD, {"columns": {"path": "file"}}, "no column file among path, label, patient_id, sex"),
        (GOOD, {"columns": {"patient": "who"}}, "data.columns: patient is no column of a cohort"),
        ([*GOOD, "a.png,COVID,p1,"], {}, "cohort.csv row 6 (a.png): the film is listed twice"),
        ([*GOOD, "a.png,Normal,p1,"], {}, "row 6 (a.png): the film stands under two labels, COVID and"),
        ([*GOOD, "z.png,Normal,p1,"], {}, "cohort.csv row 6 (z.png): no such file"),
        ([*GOOD, ",Normal,p1,"], {}, "cohort.csv row 6 (): path is empty"),
        ([*GOOD, "e.png,Flu,p1,"], {"classes": ["COVID", "Normal"]}, "label Flu is none of COVID, Normal"),
        ([*GOOD, "e.png,,p1,"], {}, "row 6 (e.png): label empty is none of COVID, Normal"),
        ([*GOOD, "e.png,COVID,,"], {}, "row 6 (e.png): patient_id is empty"),
        (GOOD, {"classes": ["COVID", "Normal", "Flu"]}, "cohort.csv: no film of class Flu"),
        ([GOOD[0], GOOD[1]], {}, "cohort.csv: 1 class found"),
        ([GOOD[0], "a.png,x,p,", "b.png,y,p,"], {}, "cohort.csv: all films are of one patient"),
        ([GOOD[0]], {}, "cohort.csv: lists no film"),
        ([""], {}, "cohort.csv: not a CSV"),
    ],
)  # fmt: skip
def test_mistakes(table, lines, options, text):
    assert any(text in line for line in mistakes(table(*lines), **options))


def test_rows_longer_than_the_header_are_told(table):
    """A path with a comma: what follows would be taken for another column's."""
    (text,) = mistakes(table("path,label,patient_id", "a,b.png,COVID,p1", "b.png,Normal,p2"))
    assert text.startswith("cohort.csv: rows have more fields than its first line has columns; quote")


@pytest.mark.parametrize("path", ["x" * 300 + ".png", "a/" * 5000, "nul\0.png", "loop"])
def test_a_path_that_no_file_can_have_is_missing(table, tmp_path, path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (text,) = mistakes(table(*GOOD, f"{path},COVID,p1,"))
    assert text.startswith("cohort.csv row 6 (") and text.endswith("no such file; paths are relative to the table")
    assert text.isprintable() and len(text) < 330


def test_a_table_cannot_write_on_the_terminal_or_fill_it(table):
    source = table("path,label,patient_id", *(f"a.png,{number:0200d}\x1b[2J,p{number}" for number in range(200)))
    found = mistakes(source)
    assert all(line.isprintable() and len(line) < 400 for line in found) and len(found) < 50
    assert any("is no plain name of up to 100 characters" in line for line in found)
    source.write_text("a," * 50_000 + "path,label,patient_id\n1\n")
    assert mistakes(source) == ["cohort.csv: has 50003 columns; a cohort has 1000 at most, leave out the rest"]
    source.write_text("path,label,patient_id\n" + "a," * 50_000)
    assert mistakes(source) == ["cohort.csv: has 50001 columns; a cohort has 1000 at most, leave out the rest"]
    source.write_text(",".join(f"column{number}" for number in range(1000)) + "\n1\n")
    (text,) = mistakes(source)
    assert text.endswith("column19 and 980 more; add it, or name the right one in data.columns")


def test_mistakes_of_a_given_split(table):
    head = "path,label,patient_id,split"
    rows = ["a.png,x,p,train", "b.png,y,p,test", "c.png,x,q,validation", "d.png,y,q,"]
    found = mistakes(table(head, *rows))
    assert "cohort.csv row 4 (c.png): split validation is none of train, val, test" in found[0]
    assert "cohort.csv row 5 (d.png): split empty is none of" in found[1]
    crossing = [line for line in found if "its patient stands in test and train, with 2 films" in line]
    assert crossing and crossing[0].startswith("cohort.csv row 2 (a.png)")


def test_all_mistakes_at_once_without_patient_ids(table):
    rows = [
        "path,label,patient_id,split",
        "a.png,x,secret,train",
        "b.png,y,secret,test",
        "z.png,x,secret2,train",
    ]
    found = mistakes(table(*rows), classes=["x", "y", "v"])
    assert len(found) == 3 and not any("secret" in line for line in found)


def test_many_mistakes_of_a_kind_are_counted(table):
    rows = [f"m{number}.png,{'xy'[number % 2]},p{number}," for number in range(30)]
    found = mistakes(table("path,label,patient_id,sex", *rows))
    assert len(found) == 21 and found[-1] == "... and 10 more of this kind"


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"film")
    return folder


def test_a_film_beside_the_class_folders_is_told(tmp_path):
    source = make(tmp_path / "films", "Normal/1.png", "COVID/2.png", "COVID/Thumbs.db", "loose.PNG")
    with pytest.raises(UserError, match=r"1 films stand beside the class folders \(loose.PNG\)"):
        read_cohort(source, unknown_patients=True)
    (source / "loose.PNG").unlink()
    assert len(read_cohort(source, unknown_patients=True)) == 2


def test_a_table_in_another_encoding_is_told(tmp_path):
    (tmp_path / "cohort.csv").write_bytes("path,label,patient_id\nfür.png,COVID,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"cohort.csv: not in UTF-8 .* save it as CSV in UTF-8"):
        read_cohort(tmp_path / "cohort.csv")


def test_class_folders(tmp_path):
    source = make(tmp_path / "films", "Normal/1.png", "COVID/deep/2.dcm", "COVID/3", "COVID/.hidden", "note.txt")
    (text,) = mistakes(source)
    assert text.startswith("films: 3 of 3 films have no patient id")
    cohort = read_cohort(source, unknown_patients=True)
    assert cohort.classes == ("COVID", "Normal")
    assert [path.name for path in cohort.paths] == ["3", "2.dcm", "1.png"]
    assert cohort.given_split is None and len(np.unique(cohort.groups)) == 3


def test_class_folders_under_splits(tmp_path):
    source = make(tmp_path / "films", "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png")
    cohort = read_cohort(source, unknown_patients=True)
    assert cohort.given_split == ["test", "test", "train", "train"]
    assert cohort.table["label"].tolist() == ["a", "b", "a", "b"]
    make(source, "extra/5.png")
    assert "holds extra beside the folders of a split" in mistakes(source, unknown_patients=True)[0]


def test_an_empty_class_folder(tmp_path):
    source = make(tmp_path / "films", "a/1.png", "b/2.png")
    (source / "c").mkdir()
    assert read_cohort(source, unknown_patients=True).classes == ("a", "b")
    text = mistakes(source, unknown_patients=True, classes=["a", "b", "c"])
    assert text == ["films: no film of class c; add films or leave it out of data.classes"]


def test_no_source_and_no_films(tmp_path):
    assert "no such file or folder" in mistakes(tmp_path / "none.csv")[0]
    assert "lists no film" in mistakes(tmp_path)[0]


@pytest.mark.realdata
def test_real_cohort(real_data):
    columns = {"path": "file", "patient_id": "group", "site": "source_dataset"}
    cohort = read_cohort(real_data / "cxr" / "metadata.csv", columns=columns)
    assert len(cohort) == 1750 and len(np.unique(cohort.groups)) == 1330
    assert cohort.classes == ("Bacterial Pneumonia", "COVID", "Normal", "Viral Pneumonia")
    split = np.array(cohort.given_split)
    assert np.bincount(cohort.labels[split == "train"]).tolist() == [247, 519, 393, 263]
    assert np.bincount(cohort.labels[split == "test"]).tolist() == [59, 101, 102, 66]
