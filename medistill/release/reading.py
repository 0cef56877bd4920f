"""How the films of a release were read: what is done to a film before a network trained on it may see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medistill.data.film import MODALITIES, VIEWS
from medistill.errors import ReleaseError
from medistill.release.manifest import AGAIN, CONFIG

MAX_CODES, MAX_CODE = 100, 64
"""Entries of a list of modalities or views, and characters of one: DICOM's Code String has 16."""


@dataclass(frozen=True)
class Reading:
    """How a film becomes an image.

    Attributes:
        adapter: what the release was made of: `films`, or a benchmark, whose images were taken as they are.
        size: the side of an image in pixels; a film is cut to its centre square and resized.
        mask: share of the side that is made grey along each border.
        modalities: DICOM modalities that are accepted.
        views: view positions that are accepted; "" accepts a file that names none.
    """

    size: int
    mask: float = 0.0
    modalities: tuple[str, ...] = MODALITIES
    views: tuple[str, ...] = VIEWS
    adapter: str = "films"


def reading_of(config: Mapping[str, Any], size: int) -> Reading:
    """How films are read by a release's config, by default where it is silent; its images have `size` pixels a side.

    Raises:
        ReleaseError: a setting that none could have been made with.
    """
    data = config.get("data", {})
    fields = data if isinstance(data, dict) else {}
    known = {name: fields[name] for name in ("adapter", "size", "mask", "modalities", "views") if name in fields}
    if wrong := reading_problem({"size": size} | known, size):
        raise ReleaseError(f"{CONFIG}: data.{wrong}; {AGAIN}")
    return reading_from({"size": size} | known)


def reading_from(found: Mapping[str, Any]) -> Reading:
    """A `Reading` of its JSON form, in which `reading_problem` found nothing."""
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    return Reading(**fields)


def reading_problem(found: Any, size: int) -> str | None:
    """What is wrong with the JSON form of a `Reading` for images of `size` pixels a side, or None."""
    if not isinstance(found, dict) or set(found) - set(Reading.__dataclass_fields__):
        return "films: not how films are read"
    if found.get("size") != size:
        return f"size: {str(found.get('size'))[:20]}, but the images have {size} pixels a side"
    mask = found.get("mask", 0.0)
    if type(mask) not in (int, float) or not 0 <= mask < 0.5:
        return "mask: not a share from 0 up to below .5"
    if not isinstance(found.get("adapter", ""), str):
        return "adapter: no name"
    for name in ("modalities", "views"):
        codes = found.get(name, [])
        if not isinstance(codes, list | tuple) or len(codes) > MAX_CODES:
            return f"{name}: no list of up to {MAX_CODES} codes"
        if not all(isinstance(code, str) and len(code) <= MAX_CODE and code.isprintable() for code in codes):
            return f"{name}: a code that is no text of up to {MAX_CODE} characters"
    return None
