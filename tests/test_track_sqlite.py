"""A SQLite store is whole or absent, and one that an earlier version left half-made is told."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from medistill.errors import UserError
from medistill.track import open_record, open_tracker
from medistill.track.sqlite import make

KILLED = """
import os, signal, sys
from mlflow.store.db import utils
utils._upgrade_db = lambda engine: os.kill(os.getpid(), signal.SIGKILL)  # the first tables are there
from medistill.track import open_tracker
open_tracker("toy", sys.argv[1])
"""


def store(path: Path) -> str:
    return f"sqlite:///{path}"


def tables(path: Path, *names: str) -> None:
    """A database with these tables."""
    with closing(sqlite3.connect(path)) as made:
        for name in names:
            made.execute(f"CREATE TABLE {name} (value TEXT)")


def test_a_run_killed_while_it_makes_the_tables_leaves_no_store(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    killed = subprocess.run([sys.executable, "-c", KILLED, store(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".mlflow.db.") and any(left.iterdir())
    tracker = open_tracker("toy", store(file))
    assert tracker.client.get_experiment(tracker.experiment_id).name == "toy"
    assert list(tmp_path.iterdir()) == [file]


def test_a_store_that_was_left_half_made_is_told(tmp_path: Path) -> None:
    """As a version left it that made the tables in place."""
    file = tmp_path / "mlflow.db"
    tables(file, "registered_models")
    for opened in (lambda uri: open_tracker("toy", uri), open_record):
        with pytest.raises(UserError) as caught:
            opened(store(file))
        text = str(caught.value)
        assert text.startswith(f"tracking: {store(file)}: its tables are half-made (table registered_models already")
        assert text.endswith(f"move {file} away, and the next run makes a new one") and "server" not in text


def test_a_store_that_another_process_made_meanwhile_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "mlflow.db"

    def slow(uri: str) -> None:
        tables(Path(uri.removeprefix("sqlite:///")), "ours")
        tables(file, "theirs")

    make(file, slow)
    with closing(sqlite3.connect(file)) as found:
        assert found.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    assert list(file.parent.iterdir()) == [file]


def test_a_store_is_made_where_no_hard_link_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refused)
    file = tmp_path / "mlflow.db"
    make(file, lambda uri: tables(Path(uri.removeprefix("sqlite:///")), "ours"))
    with closing(sqlite3.connect(file)) as found:
        assert found.execute("SELECT name FROM sqlite_master").fetchall() == [("ours",)]
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"^tracking: sqlite:///.*cannot be made \(.+\); see that its folder"):
        open_tracker("toy", store(tmp_path / "file" / "mlflow.db"))
