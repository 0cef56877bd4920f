"""MLflow's model registry: a version for each model trained from a release, an alias for what an audit cleared."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medistill.track.store import RELEASE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "released"
FILES = ("model.safetensors", "model.json")


@dataclass(frozen=True)
class Registered:
    """A version in the registry.

    Attributes:
        name: of the registered model.
        version: its number.
        released: whether the alias stands on it.
        why: where it does not, why so, in a few words; else empty.
    """

    name: str
    version: str
    released: bool
    why: str


@dataclass(frozen=True)
class Origin:
    """The release that a model was trained from, verified by the caller.

    Attributes:
        release: its digest.
        images: the SHA-256 of its distilled.safetensors.
        audit: its audit.json.
    """

    release: str
    images: str
    audit: Mapping[str, Any]


def register(client: "MlflowClient", run_id: str, name: str, model: Path, origin: Origin) -> Registered:
    """What `Tracker.register` does."""
    # torch comes with it, and to open a store must not cost it
    from medistill.files import sha256

    name, why = registered_name(name), withheld(origin.audit)
    tags = {
        RELEASE: origin.release,
        "set": origin.images,
        "model": sha256(model / FILES[0]),
        "verdict": str(origin.audit["verdict"]),
        "withheld": why,
    }
    version = _find(client, name, tags) or _create(client, run_id, name, model, tags)
    holder, number = settle(client, name), str(version.version)
    if not why and holder != number:
        why = "a newer version has it" if holder and int(holder) > int(number) else "an audit of the same set failed"
    return Registered(name, number, holder == number, why)


def registered_name(name: str) -> str:
    """A name that MLflow takes for a registered model, and that can stand in a search."""
    return re.sub(r"[^\w -]", "_", name)


def withheld(audit: Mapping[str, Any]) -> str:
    """Why a release's audit does not clear the models trained from it; empty where it does.

    A pass alone clears: neither a word that stands in for one, nor a pass beside another audit that failed.
    """
    decision = audit.get("decision") or {}
    if decision.get("failed"):
        reason = f"failed: {', '.join(decision['failed'])}"
    elif audit["verdict"] != "pass":
        reason = f"verdict {audit['verdict']}"
    else:
        return ""
    words = {"override": "overridden", "accepted": "accepted"}
    signed = [f"{word} by {decision[key]['name']}" for key, word in words.items() if decision.get(key)]
    return "; ".join([reason, *signed])


def settle(client: "MlflowClient", name: str) -> str | None:
    """Put the alias on the newest version that is cleared, or on none; returns the number of that version.

    Cleared is a version whose audit passed and of whose set no other audit is known to have failed, neither by
    another version nor by a run in this store: a leak found later takes the alias away.
    """
    versions = [version for version in _versions(client, name) if RELEASE in version.tags]
    leaks = {version.tags["set"] for version in versions if version.tags["withheld"].startswith("failed")}
    chosen = None
    for version in sorted(versions, key=lambda one: int(one.version), reverse=True):
        leaked = version.tags["set"] in leaks or audits_failed(client, version.tags[RELEASE])
        if not version.tags["withheld"] and not leaked:
            chosen = str(version.version)
            break
    held = next((str(one.version) for one in versions if ALIAS in one.aliases), None)
    if chosen is not None and held != chosen:
        client.set_registered_model_alias(name, ALIAS, chosen)
    elif chosen is None and held is not None:
        client.delete_registered_model_alias(name, ALIAS)
    return chosen


def audits_failed(client: "MlflowClient", release: str) -> bool:
    """Whether a run of this store is an audit that failed, of the set in a release (by its digest)."""
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    written = client.search_runs(everywhere, f"tags.`{RELEASE}` = '{release}' and tags.`medistill.stage` = 'release'")
    keys = {run.data.tags["distilled"] for run in written if "distilled" in run.data.tags}
    failed = "tags.`medistill.stage` = 'audit' and tags.verdict = 'fail' and tags.distilled = '{}'"
    return any(client.search_runs(everywhere, failed.format(key), max_results=1) for key in keys)


def _versions(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    """Every version of a model, with its tags and aliases."""
    found = client.search_model_versions(f"name = '{name}'")
    # a search leaves out the aliases
    return [client.get_model_version(name, one.version) for one in found]


def _find(client: "MlflowClient", name: str, tags: Mapping[str, str]) -> "ModelVersion | None":
    """The version of this very model and release, if it is registered already."""
    for version in _versions(client, name):
        if tags.items() <= version.tags.items():
            return version
    return None


def _create(client: "MlflowClient", run_id: str, name: str, model: Path, tags: Mapping[str, str]) -> "ModelVersion":
    """Record the files in the run that trained the model, and register them from there."""
    for file in FILES:
        client.log_artifact(run_id, str(model / file), "model")
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    return client.create_model_version(name, source, run_id, tags=dict(tags))
