"""The connection to a tracking store: where it lies, how patient it is, and its errors as one sentence."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medistill.errors import UserError
from medistill.track.sqlite import file_of, half_made_is_told

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"

RELEASE = "medistill.release"
"""The tag that holds the digest of a release: of its own run, and of what was trained from it."""

AFTERWARDS = "medistill.afterwards"
"""The tag of a release's run that recorded what had been written before: it was cut off, or has been signed since."""

MAX_DIGEST = 36
"""Characters of a data set's digest that MLflow keeps; the whole stands in a tag of the input."""

# This runs in hospitals: nobody outside is told that it does.
SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

# MLflow's own defaults wait minutes for a server that is not there, and chat; the user's settings go first.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def chosen(uri: str | None) -> str:
    """The URI that counts: the given one, then MLFLOW_TRACKING_URI, then the default."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def connect(uri: str) -> "MlflowClient":
    """A client of a store, with nobody told and nothing said."""
    os.environ.update(SILENT)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    with half_made_is_told(uri):
        return MlflowClient(tracking_uri=uri)


def every(search: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """All that a search of MLflow's finds, page by page."""
    token, more = None, True
    while more:
        page = search(*arguments, page_token=token)
        yield from page
        token = page.token
        more = bool(token)


def database(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    file = file_of(uri)
    return file.absolute() if file else None


def artifacts(uri: str) -> Path | None:
    """The folder of a SQLite store's artifacts; None leaves their place to the server."""
    file = database(uri)
    return file.parent / "mlartifacts" if file else None


@contextmanager
def user_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a UserError of one sentence, without a password from the URI."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    shown = without_password(uri)
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        text = str(error).replace(uri, shown).strip().splitlines()[0][:200]
        if uri.startswith("http") and ("failed with exception" in text or isinstance(error, ConnectionError)):
            text = "no answer"
        remedy = f"start that server, or set MLFLOW_TRACKING_URI={DEFAULT_URI} to record in a local file"
        if file_of(uri):
            remedy = (
                "see that it is a store of MLflow's and can be written, or set MLFLOW_TRACKING_URI to record elsewhere"
            )
        raise UserError(f"tracking: {shown}: {text}; {remedy}") from error


def without_password(uri: str) -> str:
    """A URI as it may be shown."""
    return re.sub(r"//[^/@]*@", "//", uri)
