"""The tracker against a real MLflow server on the loopback and against the default SQLite file."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import medistill
from medistill import track
from medistill.errors import UserError
from medistill.files import digest_of

USER = "doctor-planted"
HOST = "ward-planted-7"
COHORT = "/srv/planted-cohort/films"
LONG = 450
CHECKOUT = Path(medistill.__file__).parents[1]


@dataclass
class Store:
    uri: str | None
    folder: Path

    def bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder, uri = tmp_path_factory.mktemp("server"), f"http://127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        uri.rsplit(":", 1)[1],
    ]
    command += ["--backend-store-uri", "sqlite:///server.db", "--workers", "1"]
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "NO_PROXY": "127.0.0.1",
    }
    with (folder.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder.parent / "server.log").read_text()
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        yield Store(uri, folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A working folder in which the default URI creates its database."""
    return Store(None, tmp_path_factory.mktemp("local"))


@pytest.fixture(params=["server", "local"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    store: Store = request.getfixturevalue(request.param)
    monkeypatch.chdir(store.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if store.uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr("platform.node", lambda: HOST)
    return store


def client(store: Store) -> Any:
    """Imports mlflow only here, after the tracker has set its environment."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store.uri or track.DEFAULT_URI)


def test_a_stage_arrives_whole(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "roc.png"
    picture.write_bytes(b"\x89PNG picture")
    digest = digest_of("cohort")
    tracker = track.open_tracker("covid", None)
    parent = tracker.parent("study", "0a1b", {"medistill.preset": "covid"})
    params = {"ipc": 10, "inner": {"steps": 20, "lr": 0.01}, "ops": ["flip", "crop"], "long": "x" * 7000}
    with tracker.stage(parent, "distill", "k-1", params, {"medistill.set": "toy"}) as stage:
        for step in range(LONG):
            stage.metrics(step, {"loss": 1 / (step + 1), "bad": math.nan, "worse": math.inf})
        stage.figure(picture)
        stage.text("notes/words.txt", "five words")
        stage.input("toy films", digest, "training", {"films": 12})
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "INFO" not in printed.err and "alembic" not in printed.err

    remote = client(store)
    run = remote.get_run(stage.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "distill"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["medistill.set"] == "toy" and run.data.tags["medistill.key"] == "k-1"
    assert run.data.tags["medistill.version"] == medistill.__version__
    if (CHECKOUT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        assert run.data.tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert run.info.user_id in ("", "medistill") and run.data.tags["mlflow.user"] == "medistill"
    long = run.data.params.pop("long")
    assert len(long) == 6000 and long.endswith("(truncated)")
    assert run.data.params == {
        "ipc": "10",
        "inner.steps": "20",
        "inner.lr": "0.01",
        "ops": '["flip", "crop"]',
    }
    history = remote.get_metric_history(stage.run_id, "loss")
    assert sorted((m.step, m.value) for m in history) == [(i, 1 / (i + 1)) for i in range(LONG)]
    assert set(run.data.metrics) == {"loss"}
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("toy films", digest[:36])
    assert (data.dataset.source, data.dataset.source_type) == ("withheld", "withheld")
    assert json.loads(data.dataset.profile) == {"films": 12}
    assert {tag.key: tag.value for tag in data.tags} == {
        "mlflow.data.context": "training",
        "medistill.digest": digest,
    }
    assert Path(remote.download_artifacts(stage.run_id, "figures/roc.png")).read_bytes() == picture.read_bytes()
    assert Path(remote.download_artifacts(stage.run_id, "notes/words.txt")).read_text() == "five words"
    environment = json.loads(Path(remote.download_artifacts(stage.run_id, "environment.json")).read_text())
    assert set(environment) == {"medistill", "python", "system", "machine", "packages"}
    assert environment["packages"]["mlflow"] == version("mlflow")
    assert remote.get_run(parent).info.status == "FINISHED"


def test_the_parent_is_found_again(store: Store) -> None:
    tracker = track.open_tracker("covid")
    first = tracker.parent("again", "same-key", {})
    with tracker.stage(first, "data", "same-key", {}, {}):
        pass
    assert track.open_tracker("covid").parent("again", "same-key", {}) == first
    assert tracker.parent("again", "other-key", {}) != first
    with pytest.raises(ValueError, match="letters"):
        tracker.parent("again", "a' or 'b", {})


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (RuntimeError, "FAILED")])
def test_a_broken_stage_keeps_its_records(store: Store, error: type[BaseException], status: str) -> None:
    tracker = track.open_tracker("covid")
    parent = tracker.parent("broken", f"broken-{status}", {})
    with (
        pytest.raises(error, match="planted"),
        tracker.stage(parent, "experts", "k", {"cohort": "(withheld)"}, {}) as stage,
    ):
        stage.metrics(3, {"loss": 0.5})
        raise error(f"{COHORT}/planted.dcm")
    run = client(store).get_run(stage.run_id)
    assert run.info.status == status and run.data.metrics == {"loss": 0.5}
    assert run.data.tags["medistill.error"] == error.__name__
    assert client(store).get_run(parent).info.status == status


def test_a_model_is_registered_as_files(store: Store, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.safetensors", "model.json"):
        (model / name).write_text(f"{name} of model")
    origin = track.Origin("release", "set", {"verdict": "pass", "decision": {"failed": []}})
    tracker = track.open_tracker("covid")
    with tracker.stage(tracker.parent("model", "model", {}), "train", "k-train", {}, {}) as stage:
        pass
    assert tracker.register(stage.run_id, "covid", model, origin) == track.Registered("covid", "1", True, "")
    version = tracker.client.get_model_version_by_alias("covid", "released")
    assert (str(version.version), version.run_id) == ("1", stage.run_id)
    for name in ("model.safetensors", "model.json"):
        kept = Path(tracker.client.download_artifacts(stage.run_id, f"model/{name}"))
        assert kept.read_text() == f"{name} of model"


def test_nothing_of_a_person_or_host_is_stored(store: Store) -> None:
    """Looks through every byte of the database and the artifacts, those of the tests above included."""
    tracker = track.open_tracker("covid")
    parent = tracker.parent("bytes", "bytes", {})
    with pytest.raises(OSError), tracker.stage(parent, "data", "bytes", {"size": 64}, {}) as stage:
        stage.input("planted films", digest_of("films"), "training", {"films": 3})
        stage.metrics(0, {"films": 3})
        raise OSError(f"{COHORT}/planted.dcm")
    stored = store.bytes()
    assert b"planted films" in stored and stage.run_id.encode() in stored
    for secret in (USER, HOST, COHORT, __file__, sys.argv[0]):
        assert secret.encode() not in stored, secret


def test_default_artifacts_lie_beside_the_database(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(local.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = track.open_tracker("covid")
    location = tracker.client.get_experiment(tracker.experiment_id).artifact_location
    assert location == (local.folder / "mlartifacts").as_uri()


def test_records_wait_for_a_silent_server(
    local: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.exceptions import MlflowException

    tracker = track.open_tracker("covid", f"sqlite:///{local.folder}/mlflow.db")
    real, silent = tracker.client.log_batch, True

    def sometimes(*args: object, **kwargs: object) -> None:
        if silent:
            raise MlflowException("planted silence")
        real(*args, **kwargs)

    monkeypatch.setattr(tracker.client, "log_batch", sometimes)
    parent = tracker.parent("silent", "silent", {})
    with tracker.stage(parent, "distill", "k", {"ipc": 1}, {}) as stage:
        for step in range(300):
            stage.metrics(step, {"loss": step})
        silent = False
    assert "planted silence" in caplog.text
    run = tracker.client.get_run(stage.run_id)
    assert run.data.params == {"ipc": "1"} and run.data.metrics == {"loss": 299}
    assert len(tracker.client.get_metric_history(stage.run_id, "loss")) == 300

    silent = True
    with (
        pytest.raises(UserError, match="planted silence"),
        tracker.stage(parent, "distill", "k", {"ipc": 1}, {}) as stage,
    ):
        pass
    assert tracker.client.get_run(stage.run_id).info.status == "FAILED"


def test_a_server_that_is_not_there_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://someone:secret@127.0.0.1:{free_port()}"
    with pytest.raises(UserError) as caught:
        track.open_tracker("covid", uri)
    text = str(caught.value)
    assert text.startswith("tracking: http://127.0.0.1:") and "no answer" in text
    assert "secret" not in text and "\n" not in text
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


def test_a_store_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^tracking: gopher://x: .*MLFLOW_TRACKING_URI"):
        track.open_tracker("covid", "gopher://x")


def test_importing_the_tracker_leaves_mlflow_out() -> None:
    code = "import sys, medistill.track; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "cohort.csv").write_text("path,label\n" * 100)
    with pytest.raises(UserError, match=r"tracking: sqlite:///.*set MLFLOW_TRACKING_URI"):
        track.open_tracker("toy", f"sqlite:///{tmp_path / 'cohort.csv'}")
