"""How the films of a release were read: what is done to a film before a network trained on it may see it."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from medistill.data.film import MODALITIES, VIEWS
from medistill.errors import ReleaseError
from medistill.release.manifest import AGAIN, CONFIG

MOST_PARTS = 1000
"""Of a merged release; YAML's aliases can write down more than any memory holds."""

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


def readings_of(config: Mapping[str, Any], size: int) -> list[Reading]:
    """How films are read by a release's config, by default where it is silent; a merged one has a reading a part.

    Args:
        config: of a verified release.
        size: pixels a side of its images.

    Raises:
        ReleaseError: a setting that none could have been made with.
    """
    found = []
    for data in _sections(config):
        known = {name: data[name] for name in Reading.__dataclass_fields__ if name in data}
        if wrong := reading_problem({"size": size} | known, size):
            raise ReleaseError(f"{CONFIG}: data.{wrong}; {AGAIN}")
        found.append(reading_from({"size": size} | known))
    return found


def common(readings: Sequence[Reading]) -> Reading:
    """One reading for a network that saw images of all: the largest mask, every modality and view that one accepted."""
    return Reading(
        size=readings[0].size,
        mask=max(one.mask for one in readings),
        modalities=_each(one.modalities for one in readings),
        views=_each(one.views for one in readings),
        adapter=" and ".join(_each((one.adapter,) for one in readings)),
    )


def _each(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Every name once, in order of appearance."""
    return tuple(dict.fromkeys(name for some in names for name in some))


def _sections(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The section `data` of a config; of a merged one that of each part: what all share, and its own."""
    found: list[dict[str, Any]] = []
    waiting: deque[tuple[Any, dict[str, Any]]] = deque([(config, {})])
    for _ in range(MOST_PARTS):
        one, shared = waiting.popleft()
        data, parts = shared | section(one, "data"), section(one, "merge").get("parts")
        if isinstance(parts, list) and parts:
            merged = ({"data": section(section(part, "settings"), "data"), **_only(part, "merge")} for part in parts)
            waiting.extend((part, data) for part in islice(merged, MOST_PARTS))
        else:
            found.append(data)
        if not waiting:
            return found
    raise ReleaseError(f"{CONFIG}: merged of more than {MOST_PARTS} parts; {AGAIN}")


def section(config: Any, name: str) -> dict[str, Any]:
    """A section of a config from elsewhere; {} where there is none."""
    found = config.get(name) if isinstance(config, Mapping) else None
    return found if isinstance(found, dict) else {}


def _only(config: Any, name: str) -> dict[str, Any]:
    """A config's one section under its name, or {}."""
    return {name: found} if (found := section(config, name)) else {}


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
