"""JSON, lines of JSON and YAML from elsewhere: strict, bounded, and never more than plain values."""

import json
import math
from typing import Any, NoReturn

import yaml

from medistill.errors import ReleaseError
from medistill.foreign import shown
from medistill.release.manifest import AGAIN

# What json and yaml raise for a damaged text, apart from their own errors.
DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


DEEPEST = 40
"""Lists and mappings in one another: PyYAML takes seconds over thousands."""


class _Plain(yaml.SafeLoader):
    """Plain values alone, each written out, no key twice."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(problem="an alias")
        if self.depth > DEEPEST:
            raise yaml.constructor.ConstructorError(problem=f"more than {DEEPEST} values in one another")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        value = super().construct_mapping(node, deep)
        if len(value) != len(node.value):
            raise yaml.constructor.ConstructorError(problem="a key twice")
        return value


def parse_object(name: str, data: bytes | str) -> dict[str, Any]:
    """The JSON object of a file: finite numbers, no key twice (readers would disagree which one counts)."""
    try:
        value = json.loads(
            data.decode() if isinstance(data, bytes) else data,
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_refuse,
        )
    except DAMAGED as error:
        raise ReleaseError(f"{name}: not JSON; {AGAIN}") from error
    if not isinstance(value, dict):
        raise ReleaseError(f"{name}: a {type(value).__name__} where a JSON object belongs; {AGAIN}")
    return value


def parse_lines(name: str, data: bytes) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{name}: not a text file; {AGAIN}") from error
    return [parse_object(name, line) for line in lines if line.strip()]


def parse_yaml(name: str, data: bytes | str) -> dict[str, Any]:
    """The mapping of a YAML file; tags (which could make objects) and aliases (billions of values) are refused."""
    try:
        value = yaml.load(data, _Plain)
        json.dumps(value, allow_nan=False)  # no dates, bytes or sets, which YAML has besides
    except yaml.constructor.ConstructorError as error:
        found = shown(error.problem or "")
        raise ReleaseError(f"{name}: YAML that asks for more than plain values ({found}); {AGAIN}") from error
    except (yaml.YAMLError, *DAMAGED) as error:
        raise ReleaseError(f"{name}: not YAML; {AGAIN}") from error
    if not isinstance(value, dict):
        raise ReleaseError(f"{name}: a {type(value).__name__} where a mapping belongs; {AGAIN}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key twice")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)
