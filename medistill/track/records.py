"""What a stage's run takes, and how it is kept while the store is silent."""

import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medistill.errors import UserError
from medistill.track.store import MAX_DIGEST, user_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

FLUSH_AT = 200
MAX_PARAM = 6000
MAX_TAG = 5000
PARAMS_A_BATCH = 100
TRUNCATED = " ... (truncated)"


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

        flat = [Param(_name(key), cut(text(value), MAX_PARAM)) for key, value in _flatten(params)]
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

    def json(self, name: str, value: Any) -> None:
        """Record a value as a JSON artifact of this name."""
        self.text(name, json.dumps(value, indent=2, sort_keys=True) + "\n")

    def tag(self, name: str, value: str) -> None:
        """Tag the run with what was not known when it began."""
        self._send(partial(self._client.set_tag, self.run_id, name, cut(value, MAX_TAG)))

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
            with user_errors(self._uri):
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


def text(value: Any) -> str:
    """A value as text: strings as they are, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters that says so when it was longer."""
    return text if len(text) <= limit else text[: limit - len(TRUNCATED)] + TRUNCATED
