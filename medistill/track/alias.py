"""The alias `released` in MLflow's registry: on the newest version of a model that nothing in the store speaks against.

A set is known by digests: of its release, of its images, and of every release that was merged into it. What fails is
known by digests too, so neither another name nor a merge hides it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from medistill.track.store import RELEASE, every

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "released"

SET = "set"
PARTS = "parts"
"""The tag of a version with the digests of what was merged into its set, and of their images."""

FAILED = "parts_failed"
"""The tag with those of them whose audit failed."""


def settle(client: "MlflowClient") -> dict[str, str]:
    """Put the alias of every model on its newest version that is cleared, or on none.

    Cleared is a version whose audit passed and of whose set, and of whatever was merged into it, no other audit is
    known to have failed, neither by a version of any model nor by a run in this store: a leak found later takes the
    alias away.

    Returns:
        The number of the version that has the alias, by the name of the model; a name without is not there.
    """
    versions = defaultdict(list)
    for version in every(client.search_model_versions, f"tags.`{RELEASE}` != ''"):
        versions[version.name].append(version)
    leaks = _told(one for some in versions.values() for one in some) | _audited(client)
    chosen = {name: number for name, some in versions.items() if (number := _cleared(some, leaks))}
    held = {name: _held(client, name, some) for name, some in versions.items()}
    # what must not stand is taken away first, whatever happens to the rest
    for name in sorted(versions, key=lambda name: name in chosen):
        if name in chosen and held[name] != chosen[name]:
            client.set_registered_model_alias(name, ALIAS, chosen[name])
        elif name not in chosen and held[name] is not None:
            client.delete_registered_model_alias(name, ALIAS)
    return chosen


def _cleared(versions: list["ModelVersion"], leaks: set[str]) -> str | None:
    """The number of the newest version that is cleared."""
    numbers = [int(one.version) for one in versions if not one.tags["withheld"] and not _digests(one.tags) & leaks]
    return str(max(numbers)) if numbers else None


def _held(client: "MlflowClient", name: str, versions: list["ModelVersion"]) -> str | None:
    """The number of the version of ours that has the alias; a search does not tell it."""
    number = client.get_registered_model(name).aliases.get(ALIAS)
    return str(number) if str(number) in {str(one.version) for one in versions} else None


def _digests(tags: Mapping[str, str]) -> set[str]:
    """By what a version's set is known, and all that was merged into it."""
    return {tags[RELEASE], tags[SET], *tags.get(PARTS, "").split()}


def _told(versions: Iterable["ModelVersion"]) -> set[str]:
    """What failed, as the releases of registered models tell, by digests; parts of a failed merge need not have."""
    leaks = set()
    for tags in (version.tags for version in versions):
        leaks |= set(tags.get(FAILED, "").split())
        if tags["verdict"] == "fail" or tags["withheld"].startswith("failed"):
            leaks |= {tags[RELEASE], tags[SET]}
    return leaks


def _audited(client: "MlflowClient") -> set[str]:
    """The digests of sets whose audit or release is a failed one in this store, and of the releases written of them."""
    places = [experiment.experiment_id for experiment in every(client.search_experiments)]
    runs = every(client.search_runs, places, "tags.verdict = 'fail'")
    found = [run.data.tags for run in runs if run.data.tags.get("medistill.stage") in ("audit", "release")]
    leaks = {tags[name] for tags in found for name in (SET, RELEASE) if name in tags}
    for key in {tags["distilled"] for tags in found if "distilled" in tags}:
        written = every(client.search_runs, places, f"tags.distilled = '{key}' and tags.`medistill.stage` = 'release'")
        leaks |= {run.data.tags[name] for run in written for name in (SET, RELEASE) if name in run.data.tags}
    return leaks
