"""One experiment in a tracking store: studies, and the attempts at their stages."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medistill.errors import UserError
from medistill.track.alias import settle
from medistill.track.records import MAX_TAG, StageRun, cut, text
from medistill.track.registry import Origin, Registered, register
from medistill.track.sqlite import file_of, make
from medistill.track.store import artifacts, chosen, connect, user_errors, without_password
from medistill.versions import code, environment

if TYPE_CHECKING:
    from mlflow import MlflowClient


def open_tracker(experiment: str, uri: str | None = None) -> "Tracker":
    """Connect to a tracking store and find or create an experiment.

    `uri` is an MLflow tracking URI; without it MLFLOW_TRACKING_URI counts, then a SQLite file in the working
    folder. Artifacts lie in mlartifacts beside a SQLite file, otherwise where the server keeps them. The
    first call on a new SQLite file takes seconds. Raises UserError for a store that does not answer, or whose file is
    half-made.
    """
    uri = chosen(uri)
    beside, file = artifacts(uri), file_of(uri)
    with user_errors(uri):
        if file:
            make(file, connect)
        client = connect(uri)
        return Tracker(client, _experiment(client, experiment, beside.as_uri() if beside else None), uri)


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The id of an experiment, created where it is absent."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=artifacts)
    if found.lifecycle_stage != "active":
        raise UserError(f"tracking: experiment {name!r} was deleted; restore it in MLflow or use another name")
    return found.experiment_id


class Tracker:
    """One experiment in a tracking store."""

    def __init__(self, client: "MlflowClient", experiment_id: str, uri: str):
        self.client = client
        self.experiment_id = experiment_id
        self.uri = uri

    @property
    def shown(self) -> str:
        """The URI without a password in it."""
        return without_password(self.uri)

    def parent(self, name: str, key: str, tags: Mapping[str, Any]) -> str:
        """The id of the run that holds a study's stages: the one with this key, or a new one.

        Raises ValueError for a key that is not made of letters, digits, and `._:-`.
        """
        if not re.fullmatch(r"[\w.:-]+", key):
            raise ValueError(f"key {key!r}: use letters, digits and ._:- alone")
        query = f"tags.`medistill.key` = '{key}' and tags.`medistill.kind` = 'study'"
        with user_errors(self.uri):
            found = self.client.search_runs([self.experiment_id], query, max_results=1)
            if found:
                return found[0].info.run_id
        return self._create(name, {**tags, "medistill.kind": "study", "medistill.key": key})

    def knows(self, stage: str, tags: Mapping[str, str]) -> bool:
        """Whether an attempt at a stage that ended well has all of these tags."""
        query = f"tags.`medistill.stage` = '{stage}' and attributes.status = 'FINISHED'"
        with user_errors(self.uri):
            found = self.client.search_runs([self.experiment_id], query)
        wanted = {name: cut(value, MAX_TAG) for name, value in tags.items()}
        return any(wanted.items() <= run.data.tags.items() for run in found)

    @contextmanager
    def stage(
        self, parent_id: str, stage: str, key: str, params: Mapping[str, Any], tags: Mapping[str, Any]
    ) -> Iterator[StageRun]:
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
            with user_errors(self.uri):
                self.client.update_run(parent_id, status="RUNNING")
            run.params(params)
            run.json("environment.json", environment())
            yield run
            run.deliver()
        except BaseException as error:
            # The failure that matters is the stage's own, not that of telling about it.
            with suppress(UserError):
                run.deliver()
            with suppress(UserError), user_errors(self.uri):
                self.client.set_tag(run_id, "medistill.error", type(error).__name__)
                self._end(run_id, parent_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        with user_errors(self.uri):
            self._end(run_id, parent_id, "FINISHED")

    def register(self, run_id: str, name: str, model: Path, origin: Origin) -> Registered:
        """Register a model trained from a release as the next version of the registered model `name`.

        Its files go to the run that trained it, as they are: weights in safetensors, a JSON text, no pickle. The alias
        "released" goes to the newest version whose release's audit passed, and is taken from all where none is cleared;
        see `medistill.track.alias.settle`. The same model of the same release is registered once.

        Args:
            run_id: the run that trained it.
            name: of the registered model; what MLflow does not take in a name becomes "_".
            model: the folder with model.safetensors and model.json.
            origin: the release it was trained from.
        """
        with user_errors(self.uri):
            return register(self.client, run_id, name, model, origin)

    def settle(self) -> None:
        """Take the alias "released" from every model of a set that has meanwhile failed an audit; find its place."""
        with user_errors(self.uri):
            settle(self.client)

    def _close_abandoned(self, key: str) -> None:
        """Mark earlier attempts at a stage that were killed before they could say so."""
        query = f"tags.`medistill.key` = '{key}' and attributes.status = 'RUNNING'"
        with user_errors(self.uri):
            for run in self.client.search_runs([self.experiment_id], query):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _create(self, name: str, tags: Mapping[str, Any]) -> str:
        """Create a run and return its id."""
        every = {key: cut(text(value), MAX_TAG) for key, value in {**tags, **code()}.items()}
        with user_errors(self.uri):
            return self.client.create_run(self.experiment_id, tags=every, run_name=name).info.run_id

    def _end(self, run_id: str, parent_id: str, status: str) -> None:
        """Close a stage's run; the parent's status is that of its latest stage."""
        self.client.set_terminated(run_id, status)
        self.client.set_terminated(parent_id, status)
