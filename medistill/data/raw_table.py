"""The cells of a CSV from elsewhere, or a sentence why there are none."""

import csv
import warnings
from pathlib import Path

import pandas as pd

from medistill.errors import UserError
from medistill.foreign import reason

MOST_COLUMNS = 1000  # more take pandas minutes, as it makes equal names different


def read_raw(source: Path, name: str) -> pd.DataFrame:
    """The cells of a CSV as strings, "" where there is none; its first line names the columns.

    Raises:
        UserError: it is no such table; the sentence begins with `name`.
    """
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            columns = max(map(len, csv.reader(file)), default=0)
        if columns > MOST_COLUMNS:
            raise UserError(f"{name}: has {columns} columns; a cohort has {MOST_COLUMNS} at most, leave out the rest")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            raw = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not in UTF-8 ({error.reason}); save it as CSV in UTF-8") from error
    except pd.errors.ParserWarning as error:
        raise UserError(
            f"{name}: rows have more fields than its first line has columns; quote what holds a comma, or delete "
            "commas at the ends of lines"
        ) from error
    except (ValueError, OverflowError, csv.Error) as error:  # ValueError: an empty file, or what pandas cannot parse
        raise UserError(f"{name}: not a CSV ({reason(error)}); export it again with commas") from error
    if len(raw.columns) == 1 and ";" in str(raw.columns[0]):
        raise UserError(f"{name}: its columns are parted by semicolons; export it again with commas")
    return raw
