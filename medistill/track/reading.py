"""What a tracking store remembers, read and never written."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from medistill.errors import UserError
from medistill.track.store import (
    MAX_DIGEST,
    RELEASE,
    artifacts,
    chosen,
    connect,
    database,
    user_errors,
    without_password,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class Input:
    """Data that went into a stage: name, whole SHA-256, role, and counts."""

    name: str
    digest: str
    role: str
    counts: dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One attempt at a stage, as its run tells.

    Attributes:
        run_id: of the run in MLflow.
        experiment: its experiment's name.
        stage: data, experts, distill, evaluate, audit or release.
        key: of all that decides the stage's result.
        status: FINISHED, KILLED, FAILED or RUNNING.
        started: UTC, to the millisecond.
        ended: likewise; None while it runs.
        user: who started it, where that is recorded; medistill itself records nobody.
        version: of medistill.
        commit: of its checkout; None for an installed package.
        modified: whether files of the checkout differed from that commit; None for an installed package.
        tags: all of them.
        metrics: the last value of each.
        inputs: the data that went in.
    """

    run_id: str
    experiment: str
    stage: str
    key: str
    status: str
    started: str
    ended: str | None
    user: str | None
    version: str | None
    commit: str | None
    modified: bool | None
    tags: dict[str, str]
    metrics: dict[str, float]
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class Model:
    """A version in the model registry that was trained from a release."""

    name: str
    version: str
    aliases: tuple[str, ...]
    withheld: str


class Record:
    """A tracking store, opened to be read."""

    def __init__(self, client: "MlflowClient", uri: str):
        self.client = client
        self.uri = uri
        with user_errors(uri):
            self._experiments = {one.experiment_id: one.name for one in client.search_experiments()}

    @property
    def shown(self) -> str:
        """The URI without a password in it."""
        return without_password(self.uri)

    def find(self, stage: str, tags: Mapping[str, str], data: str = "") -> list[Attempt]:
        """The attempts at a stage in any experiment that have these tags, newest first.

        Args:
            stage: its name.
            tags: names and values, the latter made of letters, digits and `._:-`; with any other nothing is found.
            data: the SHA-256 of data that went in; empty: any.
        """
        if not all(re.fullmatch(r"[\w.:-]+", value) for value in (*tags.values(), data or "any")):
            return []
        wanted = {"medistill.stage": stage, **tags}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
        if data:
            query += f" and dataset.digest = '{data[:MAX_DIGEST]}'"
        with user_errors(self.uri):
            runs = self.client.search_runs(list(self._experiments), query, order_by=["attributes.start_time DESC"])
        found = [self._attempt(run) for run in runs]
        return [one for one in found if not data or data in {part.digest for part in one.inputs}]

    def text(self, run_id: str, name: str) -> str | None:
        """A text artifact; None where it is not there. Those of a SQLite store are sought beside its file."""
        beside = artifacts(self.uri)
        if beside is not None:
            file = beside / run_id / "artifacts" / name
            if file.is_file():
                return file.read_text()
        from mlflow.exceptions import MlflowException

        with user_errors(self.uri), TemporaryDirectory() as folder:
            try:
                return Path(self.client.download_artifacts(run_id, name, folder)).read_text()
            except (MlflowException, OSError):
                if name in {item.path for item in self._listed(run_id)}:
                    raise
                return None

    def models(self, release: str) -> list[Model]:
        """What was trained from a release and registered."""
        with user_errors(self.uri):
            found = self.client.search_model_versions(f"tags.`{RELEASE}` = '{release}'")
            whole = [self.client.get_model_version(one.name, one.version) for one in found]
        return [
            Model(one.name, str(one.version), tuple(one.aliases), one.tags.get("withheld", ""))
            for one in sorted(whole, key=lambda one: (one.name, int(one.version)))
        ]

    def _listed(self, run_id: str) -> list[Any]:
        """The artifacts of a run; none where their place is gone."""
        try:
            return list(self.client.list_artifacts(run_id))
        except OSError:
            return []

    def _attempt(self, run: "Run") -> Attempt:
        """A run as an attempt at a stage."""
        info, tags = run.info, dict(run.data.tags)
        user, modified = tags.get("mlflow.user", ""), tags.get("medistill.modified")
        return Attempt(
            run_id=info.run_id,
            experiment=self._experiments[info.experiment_id],
            stage=tags["medistill.stage"],
            key=tags.get("medistill.key", ""),
            status=info.status,
            started=_time(info.start_time) or "",
            ended=_time(info.end_time),
            user=None if user in ("", "medistill") else user,
            version=tags.get("medistill.version"),
            commit=tags.get("mlflow.source.git.commit"),
            modified=None if modified is None else modified == "true",
            tags=tags,
            metrics=dict(run.data.metrics),
            inputs=tuple(_input(one) for one in (run.inputs.dataset_inputs if run.inputs else [])),
        )


def open_record(uri: str | None = None) -> Record:
    """Open a tracking store to read it; the URI as for `open_tracker`.

    Raises:
        UserError: the file of a SQLite store is not there, or the store does not answer.
    """
    uri = chosen(uri)
    file = database(uri)
    if file is not None and not file.is_file():
        raise UserError(
            f"tracking: {without_password(uri)}: no such file; name the store in which the stages were recorded by "
            "--tracking or MLFLOW_TRACKING_URI"
        )
    with user_errors(uri):
        return Record(connect(uri), uri)


def _input(found: Any) -> Input:
    """An input of a run with its whole digest."""
    tags = {tag.key: tag.value for tag in found.tags}
    return Input(
        found.dataset.name,
        tags.get("medistill.digest", found.dataset.digest),
        tags.get("mlflow.data.context", ""),
        json.loads(found.dataset.profile or "{}"),
    )


def _time(milliseconds: int | None) -> str | None:
    """A time of MLflow's as text."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(" ", "milliseconds")[:-6]
