"""The record of every run in MLflow, told without any person, host or path; the only importer of mlflow.

Runs are created through `MlflowClient` alone: the fluent API would tag them with the user's name and the
script's path. What is recorded is what the caller hands over, plus versions and the kind of machine.
"""

import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medistill.errors import UserError
from medistill.versions import code, environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"

# This runs in hospitals: nobody outside is told that it does.
SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

# MLflow's own defaults wait minutes for a server that is not there, and chat; the user's settings go first.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

FLUSH_AT = 200
MAX_PARAM = 6000
MAX_TAG = 5000
PARAMS_A_BATCH = 100
MAX_DIGEST = 36
TRUNCATED = " ... (truncated)"


def open_tracker(experiment: str, uri: str | None = None) -> "Tracker":
    """Connect to a tracking store and find or create an experiment.

    `uri` is an MLflow tracking URI; without it MLFLOW_TRACKING_URI counts, then a SQLite file in the working
    folder. Artifacts lie in mlartifacts beside a SQLite file, otherwise where the server keeps them. The
    first call on a new SQLite file takes seconds. Raises UserError for a store that does not answer.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    os.environ.update(SILENT)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"].upper())
    artifacts = _artifacts(uri)
    with _user_errors(uri):
        client = MlflowClient(tracking_uri=uri)
        return Tracker(client, _experiment(client, experiment, artifacts), uri)


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The id of an experiment, created where it is absent."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=artifacts)
    if found.lifecycle_stage != "active":
        raise UserError(f"tracking: experiment {name!r} was deleted; restore it in MLflow or use another name")
    return found.experiment_id


def _artifacts(uri: str) -> str | None:
    """Where artifacts of a SQLite store lie, as a file URI, its folder made; None leaves it to the server."""
    if not uri.startswith("sqlite:///"):
        return None
    database = Path(uri.removeprefix("sqlite:///").split("?")[0]).absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    return (database.parent / "mlartifacts").as_uri()


class Tracker:
    """One experiment in a tracking store."""

    def __init__(self, client: "MlflowClient", experiment_id: str, uri: str):
        self.client = client
        self.experiment_id = experiment_id
        self.uri = uri

    @property
    def shown(self) -> str:
        """The URI without a password in it."""
        return _without_password(self.uri)

    def parent(self, name: str, key: str, tags: Mapping[str, Any]) -> str:
        """The id of the run that holds a study's stages: the one with this key, or a new one.

        Raises ValueError for a key that is not made of letters, digits, and `._:-`.
        """
        if not re.fullmatch(r"[\w.:-]+", key):
            raise ValueError(f"key {key!r}: use letters, digits and ._:- alone")
        query = f"tags.`medistill.key` = '{key}' and tags.`medistill.kind` = 'study'"
        with _user_errors(self.uri):
            found = self.client.search_runs([self.experiment_id], query, max_results=1)
            if found:
                return found[0].info.run_id
        return self._create(name, {**tags, "medistill.kind": "study", "medistill.key": key})

    @contextmanager
    def stage(
        self, parent_id: str, stage: str, key: str, params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> Iterator["StageRun"]:
        """A new run under a parent for one attempt at a stage; yields the `StageRun` that takes its records.

        It ends FINISHED, KILLED after a KeyboardInterrupt, or FAILED with the exception's type (its text may
        name a patient's file); the parent's status follows. `params` are recorded as given: redact them.
        Raises UserError when the store does not answer at the start, or still holds back records at the end.
        """
        self._close_abandoned(key)
        run_id = self._create(
            stage,
            {
                **tags,
                "medistill.kind": "stage",
                "medistill.key": key,
                "medistill.stage": stage,
                "mlflow.parentRunId": parent_id,
            },
        )
        run = StageRun(self.client, run_id, self.uri)
        try:
            with _user_errors(self.uri):
                self.client.update_run(parent_id, status="RUNNING")
            run.params(params)
            run.text("environment.json", json.dumps(environment(), indent=2, sort_keys=True) + "\n")
            yield run
            run.deliver()
        except BaseException as error:
            # The failure that matters is the stage's own, not that of telling about it.
            with suppress(UserError):
                run.deliver()
            with suppress(UserError), _user_errors(self.uri):
                self.client.set_tag(run_id, "medistill.error", type(error).__name__)
                self._end(run_id, parent_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        with _user_errors(self.uri):
            self._end(run_id, parent_id, "FINISHED")

    def _close_abandoned(self, key: str) -> None:
        """Mark earlier attempts at a stage that were killed before they could say so."""
        query = f"tags.`medistill.key` = '{key}' and attributes.status = 'RUNNING'"
        with _user_errors(self.uri):
            for run in self.client.search_runs([self.experiment_id], query):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _create(self, name: str, tags: Mapping[str, Any]) -> str:
        """Create a run and return its id."""
        every = {key: _cut(_text(value), MAX_TAG) for key, value in {**tags, **code()}.items()}
        with _user_errors(self.uri):
            return self.client.create_run(self.experiment_id, tags=every, run_name=name).info.run_id

    def _end(self, run_id: str, parent_id: str, status: str) -> None:
        """Close a stage's run; the parent's status is that of its latest stage."""
        self.client.set_terminated(run_id, status)
        self.client.set_terminated(parent_id, status)


class StageRun:
    """Takes the records of one stage. A store that falls silent meanwhile gets them when it answers again."""

    def __init__(self, client: "MlflowClient", run_id: str, uri: str):
        self.run_id = run_id
        self._client = client
        self._uri = uri
        self._metrics: list[Metric] = []
        self._outbox: list[Callable[[], Any]] = []

    def params(self, params: Mapping[str, Any]) -> None:
        """Record a nested dict of settings, keys joined by dots, long values cut."""
        from mlflow.entities import Param

        flat = [Param(_name(key), _cut(_text(value), MAX_PARAM)) for key, value in _flatten(params)]
        for start in range(0, len(flat), PARAMS_A_BATCH):
            batch = flat[start : start + PARAMS_A_BATCH]
            self._send(partial(self._client.log_batch, self.run_id, params=batch))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers at a step; values that are not finite are skipped. Sent 200 at a time."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._metrics += [
            Metric(_name(key), float(value), now, step) for key, value in values.items() if math.isfinite(value)
        ]
        if len(self._metrics) >= FLUSH_AT:
            self._try()

    def figure(self, path: Path) -> None:
        """Record a picture under figures/; the file must stay until the stage ends."""
        self._send(partial(self._client.log_artifact, self.run_id, str(path), "figures"))

    def text(self, name: str, content: str) -> None:
        """Record a text as an artifact of this name."""
        self._send(partial(self._client.log_text, self.run_id, content, name))

    def input(self, name: str, digest: str, context: str, profile: Mapping[str, Any]) -> None:
        """Record which data went in: name, digest, a role such as "training", counts; never where they lie.

        MLflow keeps 36 characters of a digest; the whole stands in the tag medistill.digest of the input.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        counts = json.dumps(profile, sort_keys=True)
        data = Dataset(name, digest[:MAX_DIGEST], "withheld", "withheld", profile=counts)
        tags = [InputTag("mlflow.data.context", context), InputTag("medistill.digest", digest)]
        self._send(partial(self._client.log_inputs, self.run_id, datasets=[DatasetInput(data, tags)]))

    def deliver(self) -> None:
        """Send all that is held back. Raises UserError when the store does not take it."""
        self._pack()
        while self._outbox:
            with _user_errors(self._uri):
                self._outbox[0]()
            self._outbox.pop(0)

    def _pack(self) -> None:
        """Make the collected metrics ready to be sent."""
        for start in range(0, len(self._metrics), FLUSH_AT):
            batch = self._metrics[start : start + FLUSH_AT]
            self._outbox.append(partial(self._client.log_batch, self.run_id, metrics=batch))
        self._metrics = []

    def _send(self, call: Callable[[], Any]) -> None:
        """Send a record, after those that are held back; hold it back too if the store does not answer."""
        self._outbox.append(call)
        self._try()

    def _try(self) -> None:
        """Deliver; a long stage must not end because a server was restarted meanwhile."""
        try:
            self.deliver()
        except UserError as error:
            log.warning("%s (%d records held back)", error, len(self._outbox))


@contextmanager
def _user_errors(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a UserError of one sentence, without a password from the URI."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    shown = _without_password(uri)
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        text = str(error).replace(uri, shown).strip().splitlines()[0][:200]
        if uri.startswith("http") and ("failed with exception" in text or isinstance(error, ConnectionError)):
            text = "no answer"
        raise UserError(
            f"tracking: {shown}: {text}; start that server, or set MLFLOW_TRACKING_URI={DEFAULT_URI} "
            "to record in a local file"
        ) from error


def _without_password(uri: str) -> str:
    """A URI as it may be shown."""
    return re.sub(r"//[^/@]*@", "//", uri)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of a dotted key and a value that is no mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _name(key: str) -> str:
    """A key that MLflow accepts."""
    return re.sub(r"[^\w./ -]", "_", key)


def _text(value: Any) -> str:
    """A value as text: strings as they are, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters that says so when it was longer."""
    return text if len(text) <= limit else text[: limit - len(TRUNCATED)] + TRUNCATED
