"""YAML from elsewhere as settings and nothing else, in bounded time and memory."""

import re
from typing import Any

import yaml
from jsonargparse import get_loader

from medistill.foreign import reason, shown

LONGEST = 2**18  # characters
MOST_VALUES = 10_000  # every alias counted as all that it stands for
DEEPEST = 20
LARGEST = 2**63

_load = get_loader("yaml")
_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAME = re.compile(r"[\w.-]+")


def load_settings(text: str) -> Any:
    """The value of a YAML text: numbers, texts, lists and mappings whose keys are names.

    Raises:
        YAMLError: it is no YAML, or holds what no setting is: aliases that multiply into millions of values or hold
            themselves, a name twice, deep nesting, dates, sets, bytes, or numbers of more than 63 bits.
    """
    try:
        require_bounded(text)
        value = _load(text)
    except yaml.YAMLError:
        raise
    except Exception as error:  # of the constructors, which raise whatever Python does
        raise yaml.YAMLError(reason(error)) from error
    _require_plain(value)
    return value


def require_bounded(text: str) -> None:
    """Refuse by its events what would take long to build, or would be built without what it says."""
    if len(text) > LONGEST:
        raise TooLargeError(f"it has {len(text):,} characters, settings have up to {LONGEST:,}")
    sizes: dict[str, int] = {}
    open_nodes: list[_Node] = [_Node(None, False)]
    for event in yaml.parse(text, Loader=_Events):
        inside = open_nodes[-1]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias {shown(event.anchor, 40)} stands for nothing before it")
            inside.take(sizes[event.anchor], None)
        elif isinstance(event, yaml.ScalarEvent):
            inside.take(1, event.value)
            sizes[event.anchor or ""] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(open_nodes) > DEEPEST:
                raise TooLargeError(f"it is nested more than {DEEPEST} deep")
            open_nodes.append(_Node(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
            sizes[inside.anchor or ""] = inside.size
            open_nodes[-1].take(inside.size, None)


class TooLargeError(yaml.YAMLError):
    """A text that would take long to build."""


class _Node:
    """A list or mapping while its events pass by."""

    def __init__(self, anchor: str | None, mapping: bool) -> None:
        self.anchor, self.mapping = anchor, mapping
        self.size, self.parts = 1, 0
        self.names: set[str] = set()

    def take(self, size: int, text: str | None) -> None:
        """Count a part; each second one of a mapping, from the first on, is a name."""
        self.size += size
        if self.size > MOST_VALUES:
            raise TooLargeError(f"it holds more than {MOST_VALUES:,} values")
        if self.mapping and self.parts % 2 == 0 and text is not None:
            if text in self.names:
                raise yaml.YAMLError(f"{shown(text, 40)} stands there twice")
            self.names.add(text)
        self.parts += 1


def _require_plain(value: Any) -> None:
    """Refuse values that no setting can have."""
    if isinstance(value, dict):
        for name, part in value.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise yaml.YAMLError(f"{shown(name, 40)!r} is no name of a setting")
            _require_plain(part)
    elif isinstance(value, list):
        for part in value:
            _require_plain(part)
    elif isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise yaml.YAMLError("a whole number of more than 63 bits")
    elif not isinstance(value, bool | int | float | str | None):
        raise yaml.YAMLError(f"a {type(value).__name__}, which no setting is")
