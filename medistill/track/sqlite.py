"""A SQLite store is whole or absent.

MLflow makes the tables of a new one in seconds, one after the other, and cannot go on where it was killed.
"""

import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from medistill.errors import UserError
from medistill.leftovers import remove, sweep

SQLITE = "sqlite:///"

_HALF_MADE = re.compile(r"duplicate column name: \S+|table \S+ already exists|no such (table|column): \S+")


def file_of(uri: str) -> Path | None:
    """The file of a SQLite store, as its URI names it; None for any other store, and for one in memory."""
    named = uri.removeprefix(SQLITE).split("?")[0] if uri.startswith(SQLITE) else ""
    return None if named in ("", ":memory:") else Path(named)


def make(file: Path, opened: Callable[[str], Any]) -> None:
    """Make the database of a new store under another name, and give it its own when its tables are there.

    A file that exists is left as it is.

    Args:
        file: of the store.
        opened: opens a store by its URI, which makes its tables.

    Raises:
        UserError: the file cannot be written there.
    """
    sweep(file)
    if file.exists():
        return
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        # MLflow keeps a file open that it opened once, under its URI
        making, whole = temporary / f"{secrets.token_hex(8)}.db", temporary / "whole.db"
        opened(f"{SQLITE}{making.as_posix()}")
        with closing(sqlite3.connect(making)) as source, closing(sqlite3.connect(whole)) as target:
            source.backup(target)
        _name(whole, file)
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"tracking: {SQLITE}{file}: cannot be made ({why}); see that its folder can be written and has room, or "
            "set MLFLOW_TRACKING_URI to record elsewhere"
        ) from error
    finally:
        remove(temporary)


def _name(whole: Path, file: Path) -> None:
    """Give a file its name, unless another process was faster: its store may hold records by now."""
    try:
        os.link(whole, file)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not file.exists():
            whole.rename(file)


@contextmanager
def half_made_is_told(uri: str) -> Iterator[None]:
    """Turn what MLflow says of tables that were left half-made into a UserError that tells what to do."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        file, found = file_of(uri), _HALF_MADE.search(str(error))
        if file is None or found is None:
            raise
        raise UserError(
            f"tracking: {uri}: its tables are half-made ({found[0]}), as a run leaves them that was killed while it "
            f"made them; move {file} away, and the next run makes a new one"
        ) from error
