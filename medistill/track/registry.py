"""MLflow's model registry: a version for each model trained from a release, an alias for what an audit cleared."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medistill.track.alias import FAILED, PARTS, SET, settle
from medistill.track.store import RELEASE, every

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FILES = ("model.safetensors", "model.json")
LEAKED = "an audit of the same set, or of one merged into it, failed"


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
        parts: digest and SHA-256 of the images of every release that was merged into it.
        failed: those of them whose audit failed, as its provenance tells.
    """

    release: str
    images: str
    audit: Mapping[str, Any]
    parts: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


def register(client: "MlflowClient", run_id: str, name: str, model: Path, origin: Origin) -> Registered:
    """What `Tracker.register` does."""
    # torch comes with it, and to open a store must not cost it
    from medistill.files import sha256

    name, why = registered_name(name), withheld(origin.audit)
    tags = {
        RELEASE: origin.release,
        SET: origin.images,
        "model": sha256(model / FILES[0]),
        "verdict": str(origin.audit["verdict"]),
        "withheld": why,
    }
    tags |= {tag: " ".join(sorted(some)) for tag, some in ((PARTS, origin.parts), (FAILED, origin.failed)) if some}
    version = _find(client, name, tags) or _create(client, run_id, name, model, tags)
    holder, number = settle(client).get(name), str(version.version)
    if not why and holder != number:
        why = "a newer version has it" if holder and int(holder) > int(number) else LEAKED
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


def _find(client: "MlflowClient", name: str, tags: Mapping[str, str]) -> "ModelVersion | None":
    """The version of this very model and release, if it is registered already."""
    for version in every(client.search_model_versions, f"name = '{name}'"):
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
