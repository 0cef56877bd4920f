"""Whether metadata.json and croissant.json, which programs read in place of the master, describe this very release."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.foreign import shown
from medistill.release.manifest import AGAIN, METADATA

CROISSANT = "croissant.json"


def require_described(
    distilled: Distilled, audit: Mapping[str, Any], listed: Mapping[str, str], read: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise a ReleaseError where a description differs from what it describes.

    Args:
        distilled: the set.
        audit: audit.json.
        listed: SHA-256 of every file by name.
        read: the JSON objects of the release by name; croissant.json may be absent.
    """
    _require_metadata(read[METADATA], distilled, audit, listed)
    _require_croissant(read.get(CROISSANT, {}), listed)


def _require_metadata(
    metadata: Mapping[str, Any], distilled: Distilled, audit: Mapping[str, Any], listed: Mapping[str, str]
) -> None:
    """What metadata.json says of the set, its verdict and its views."""
    held = {
        "classes": list(distilled.classes),
        "images": len(distilled.images),
        "start": distilled.provenance.get("start"),
        "method": distilled.provenance.get("method"),
        "normalisation": {"mean": list(distilled.mean), "std": list(distilled.std)},
        "training": {
            "learning_rate": distilled.lr,
            "sequence": [list(pair) for pair in distilled.sequence],
            "augmentation": list(distilled.augment),
            "network": asdict(distilled.architecture),
        },
        "privacy": {"verdict": audit["verdict"], "decision": audit["decision"]},
    }
    for key, value in held.items():
        said = metadata.get(key, value)
        if isinstance(value, dict) and isinstance(said, dict):
            said = {name: said.get(name) for name in value}
        if said != value:
            raise ReleaseError(f"{METADATA}: its {key!r} is not what the set and its audit say; {AGAIN}")
    views = metadata.get("views", [])
    if not isinstance(views, list):
        raise ReleaseError(f"{METADATA}: its 'views' are no list; {AGAIN}")
    for view in views:
        place = view.get("place") if isinstance(view, dict) else None
        if not any(name == place or name.startswith(f"{place}/") for name in listed):
            raise ReleaseError(f"{METADATA}: tells of a view in {shown(place, 60)!r}, which is not there; {AGAIN}")


def _require_croissant(croissant: Mapping[str, Any], listed: Mapping[str, str]) -> None:
    """The files that croissant.json sends a loader to, and their SHA-256."""
    files = croissant.get("distribution", [])
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise ReleaseError(f"{CROISSANT}: its 'distribution' is no list of files; {AGAIN}")
    for file in files:
        place = file.get("contentUrl")
        if ("contentUrl" in file or "sha256" in file) and (
            not isinstance(place, str) or listed.get(place) != file.get("sha256")
        ):
            raise ReleaseError(
                f"{CROISSANT}: {shown(place, 60)!r} is no file of this release, or has another SHA-256; {AGAIN}"
            )
