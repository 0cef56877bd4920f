"""Whether metadata.json and croissant.json, which programs read in place of the master, describe this very release.

Both are written anew of the set, its audit and the files; what follows from none of them, such as the source's terms
and what was measured of a view, need only be of its kind.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.foreign import shown
from medistill.release import dicom, pictures
from medistill.release.croissant import FILE as CROISSANT
from medistill.release.croissant import FILES, croissant_of
from medistill.release.manifest import AGAIN, IMAGES, METADATA, Manifest
from medistill.release.metadata import FORMAT, NAMED, metadata
from medistill.release.views import KINDS, MASTER

MEASURED = {"mean", "sd", "difference", "difference_sd", "interval"}
CLOSE = 1e-5  # by which machines may differ in a pixel


def require_described(
    manifest: Manifest, distilled: Distilled, audit: Mapping[str, Any], read: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The source as the descriptions tell it: {"name", "citation", "licence"}, those that it has.

    Args:
        manifest: the files.
        distilled: the set.
        audit: audit.json.
        read: the JSON objects of the release by name; croissant.json may be absent.

    Raises:
        ReleaseError: a description differs from what it describes.
    """
    source = _require_metadata(read[METADATA], manifest, distilled, audit)
    if CROISSANT in read:
        if absent := [name for name in FILES if name not in manifest.listed]:
            raise ReleaseError(f"{CROISSANT}: tells of {absent[0]}, which is not there; {AGAIN}")
        held = {name: (manifest.found[name].st_size, manifest.listed[name]) for name in FILES}
        slides = any(name.startswith(f"{dicom.FOLDER}/") for name in manifest.listed)
        _require_same(CROISSANT, read[CROISSANT], croissant_of(held, slides, distilled, source))
    return source


def _require_metadata(
    said: Mapping[str, Any], manifest: Manifest, distilled: Distilled, audit: Mapping[str, Any]
) -> dict[str, Any]:
    """The source as metadata.json tells it; the rest is what is written of the set."""
    if said.get("format") != FORMAT:
        raise ReleaseError(
            f"{METADATA}: format {shown(said.get('format'), 20)}, this version reads format {FORMAT}; verify it with "
            f"the version of medistill in environment.json, or {AGAIN}"
        )
    source, measured = _source(said), said.get("views_accuracy")
    kinds = {"metric": str, "networks": int, "withheld": str}
    if not isinstance(measured, dict) or not all(isinstance(measured.get(k), t | None) for k, t in kinds.items()):
        raise ReleaseError(f"{METADATA}: its 'views_accuracy' does not say what was measured; {AGAIN}")
    views = _views(said.get("views"), manifest, distilled)
    _require_same(METADATA, said, metadata(distilled, audit, source, views, measured))
    return source


def _source(said: Mapping[str, Any]) -> dict[str, Any]:
    """Name, citation and licence of the source, those that there are."""
    source, called = said.get("source"), said.get("name")
    if not isinstance(source, dict) or not all(isinstance(text, str | None) for text in source.values()):
        raise ReleaseError(f"{METADATA}: its 'source' has no name, citation or licence; {AGAIN}")
    # a source of an empty name and one without any differ in the set's name alone
    empty = {"name": ""} if source.get("name") is None and called == NAMED else {}
    return empty | {key: source[key] for key in ("name", "citation", "licence") if source.get(key)}


def _views(said: object, manifest: Manifest, distilled: Distilled) -> list[dict[str, Any]]:
    """The views as they must be described, but for what was measured of them."""
    if not isinstance(said, list) or not all(isinstance(view, dict) for view in said):
        raise ReleaseError(f"{METADATA}: its 'views' are no list; {AGAIN}")
    files = {MASTER: IMAGES} | {kind.name: kind.place for kind in KINDS}
    views = []
    for view in said:
        place = view.get("place")
        there = [name for name in manifest.listed if name == place or name.startswith(f"{place}/")]
        if not there:
            raise ReleaseError(f"{METADATA}: tells of a view in {shown(place, 60)!r}, which is not there; {AGAIN}")
        size = sum(manifest.found[name].st_size for name in there)
        error, accuracy = view.get("largest_pixel_error"), view.get("accuracy")
        if not _is_error(error, str(view.get("name")), distilled) or not _is_accuracy(accuracy):
            raise ReleaseError(f"{METADATA}: what it says of {shown(place, 60)!r} is none of its figures; {AGAIN}")
        held = {"name": view.get("name"), "place": place, "bytes": size}
        if files.get(str(view.get("name"))) != place:
            raise ReleaseError(f"{METADATA}: {shown(place, 60)!r} is no view of that name; {AGAIN}")
        views.append(held | {"largest_pixel_error": error, "accuracy": accuracy})
    wanted = [name for name, place in files.items() if any(f"{n}/".startswith(f"{place}/") for n in manifest.listed)]
    if [view["name"] for view in views] != wanted:
        raise ReleaseError(f"{METADATA}: its 'views' are not those that the release has; {AGAIN}")
    return views


def _is_error(said: object, name: str, distilled: Distilled) -> bool:
    """Whether a view's largest pixel error is that of its form."""
    if not isinstance(said, float) or not math.isfinite(said):
        return False
    exact = distilled.pictures()
    if name == "dicom":
        low, high = min(0.0, float(exact.min())), max(1.0, float(exact.max()))
        return 0 <= said <= (high - low) / dicom.TOP + CLOSE
    wanted = 0.0 if name == MASTER else float((pictures.eight_bit(distilled).float() / 255 - exact).abs().max())
    return math.isclose(said, wanted, rel_tol=CLOSE, abs_tol=CLOSE)


def _is_accuracy(said: object) -> bool:
    """Whether it is what may be measured of a view, or None."""
    if said is None:
        return True
    if not isinstance(said, dict) or not set(said) <= MEASURED:
        return False
    ends = said.get("interval") or []
    figures = [value for key, value in said.items() if key != "interval"] + (ends if isinstance(ends, list) else [""])
    return all(isinstance(figure, int | float) and -1 <= figure <= 1 for figure in figures)


def _require_same(name: str, said: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise a ReleaseError naming the first key whose value is not the one that is written."""
    plain = json.loads(json.dumps(wanted))
    for key in sorted({*plain, *said}):
        if key not in said or key not in plain or said[key] != plain[key]:
            raise ReleaseError(f"{name}: its {shown(key, 40)!r} is not what the set and its audit say; {AGAIN}")
