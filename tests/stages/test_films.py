"""Films of a hospital: all that is wrong with table and files in one go, and what a loaded cohort's table keeps."""

import shutil

import pandas as pd
import pytest

from medistill.config import Config, Data
from medistill.data import decode as reader
from medistill.errors import UserError
from medistill.stages.load import cohort_table, load
from medistill.stages.load import source as films
from medistill.stages.session import Session


def test_the_view_of_a_picture_is_that_of_the_table(tiny, tmp_path):
    data = Data(cohort=str(tiny.cohort), size=16, workers=1, classes=["Normal", "Pneumonia", "COVID"])
    session = Session(Config(run=str(tmp_path), track=False, data=data), lambda line: None)
    load(session)
    table, cohort = cohort_table(session), pd.read_csv(tiny.cohort, dtype=str)
    assert {"PNG", "DICOM"} <= set(table["format"])
    assert table["view"].tolist() == cohort["view"].tolist()
    assert set(table["view"]) == {"PA", "AP"}


@pytest.fixture
def spoilt(tiny, tmp_path, monkeypatch):
    """A function (settings) -> films of a cohort with a broken and two missing ones; and the paths it decodes."""
    place, decoded = tmp_path / "cohort", []
    shutil.copytree(tiny.cohort.parent, place)
    pictures = sorted(place.rglob("*.png"))
    pictures[3].write_bytes(b"no picture")
    for gone in (pictures[0], pictures[5]):
        gone.unlink()

    def listen(paths, *args, **more):
        decoded.extend(paths)
        return stream(paths, *args, **more)

    stream = reader.stream
    monkeypatch.setattr(reader, "stream", listen)

    def made(**settings):
        classes = ["Normal", "Pneumonia", "COVID"]
        data = Data(cohort=str(place / tiny.cohort.name), size=16, workers=1, classes=classes, **settings)
        return films(Session(Config(run=str(tmp_path / "run"), track=False, data=data), lambda line: None))

    return made, decoded, pictures


def test_missing_and_broken_films_are_listed_in_one_go(spoilt):
    made, decoded, pictures = spoilt
    with pytest.raises(UserError) as caught:
        made().examine()
    lines = str(caught.value).splitlines()
    assert [f"{pictures[i].name}): no such file" in line for i, line in zip((0, 5), lines, strict=False)] == [True] * 2
    assert lines[2].startswith(f"{pictures[3].name}: ")
    assert lines[3] == (
        f"data: 1 of {len(decoded)} files cannot be used; mend or remove them, or set data.on_bad_file to skip"
    )
    assert (
        len(lines) == 4
        and len(set(decoded)) == len(decoded)
        and set(pictures) - set(decoded)
        == {
            pictures[0],
            pictures[5],
        }
    )


def test_where_bad_files_are_skipped_the_table_alone_is_told(spoilt):
    made, decoded, _ = spoilt
    with pytest.raises(UserError) as caught:
        made(on_bad_file="skip").examine()
    assert all("no such file" in line for line in str(caught.value).splitlines()) and not decoded
