"""The settings of merged releases: what all share, and what of each is its own."""

from collections.abc import Mapping, Sequence
from typing import Any


def merged_config(configs: Mapping[str, Mapping[str, Any]], merge: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a merged release: settings that all releases share where they stand in theirs, `merge` beside.

    Args:
        configs: of each release, by name.
        merge: the settings of the merging itself.

    Returns:
        {... shared settings ..., "merge": {..., "parts": [{"name", "settings": those that are not shared}]}}.
    """
    plain = {name: {key: value for key, value in config.items() if key != "merge"} for name, config in configs.items()}
    same = _shared(list(plain.values()))
    own = [
        {
            "name": name,
            "settings": _less(plain[name], same),
            **({"merge": config["merge"]} if "merge" in config else {}),
        }
        for name, config in configs.items()
    ]
    return {**same, "merge": {**merge, "parts": own}}


def _shared(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that are the same in all; of sections those inside."""
    first, *others = configs
    same: dict[str, Any] = {}
    for key, value in first.items():
        values = [value, *(other[key] for other in others if key in other)]
        if len(values) < len(configs):
            continue
        if all(isinstance(one, Mapping) for one in values):
            same[key] = _shared(values)
        elif all(one == value for one in values):
            same[key] = value
    return same


def _less(config: Mapping[str, Any], same: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config that are not among those shared."""
    own: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and isinstance(same.get(key), Mapping):
            if rest := _less(value, same[key]):
                own[key] = rest
        elif key not in same:
            own[key] = value
    return own
