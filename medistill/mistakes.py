"""Mistakes in options and config files in plain words: what was named, what was found and what to give."""

import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from medistill.config import Config

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text, in quotes where it is a number"}


def in_words(message: str, prog: str) -> str:
    """What the parser says in terms of Python's types as one plain sentence; other messages as they are.

    Args:
        message: of jsonargparse, in one line.
        prog: the command, such as `medistill run`.
    """
    for pattern, tell in PATTERNS.items():
        found = re.fullmatch(pattern, message)
        if found:
            return tell(*found.groups(), prog)
    return message


def wrong_value(name: str, value: object) -> str:
    """A sentence for a value that an option cannot take."""
    kind, found = dict(options()).get(name), "empty" if value is None else repr(str(value))
    if kind is None:
        return f"{name} is {found}, which it cannot be"
    verb = "has" if get_origin(kind) in (list, dict) else "is"
    return f"{name} {verb} {found}; {_advice(name, kind, str(value))}"


def options(kind: type = Config, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every option and section by its dotted name, with its type."""
    for name, one in get_type_hints(kind).items():
        yield before + name, one
        if is_dataclass(one) and isinstance(one, type):
            yield from options(one, f"{before}{name}.")


def _advice(name: str, kind: Any, value: str) -> str:
    """What to give instead."""
    if get_origin(kind) is Literal:
        near = get_close_matches(value, get_args(kind), 1)
        return f"give one of {', '.join(get_args(kind))}" + (f" (did you mean {near[0]}?)" if near else "")
    if get_origin(kind) is list:
        what, such = ("names", "[a, b]") if get_args(kind)[0] is str else ("numbers", "[1, 2]")
        return f"give a list of {what} in brackets, such as {such}"
    if get_origin(kind) is dict:
        return "give pairs in braces, such as {ours: theirs}"
    if is_dataclass(kind):
        first = next(iter(get_type_hints(kind)))
        return f"it is a section, so give its settings by name, such as {name}.{first}, or a YAML file that holds them"
    return f"give {KINDS[kind]}"


def _unknown_argument(rest: str, prog: str) -> str:
    word = rest.split()[0]
    if not word.startswith("-"):
        return f"{word!r} belongs to no option; options look like --distill.ipc 2, see {prog} --help"
    return _unknown("--", word.partition("=")[0].lstrip("-"), prog)


def _unknown(dashes: str, name: str, prog: str) -> str:
    """A name that no option has, and the one that is nearest to it."""
    known = [one for one, kind in options() if not is_dataclass(kind)]
    same = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    near = get_close_matches(name, [*known, "config"], 1, 0.75) or same[:1] or get_close_matches(name, known, 1)
    advice = f"did you mean {dashes}{near[0]}?" if near else f"see {prog} --help"
    return f"{dashes}{name} is not a setting; {advice}"


PATTERNS: dict[str, Callable[..., str]] = {
    r'Parser key "config": File does not exist: (.*)': lambda path, prog: (
        f"config: {path} is not there; give the path of a YAML file, or configs/NAME.yaml of those shipped"
    ),
    r'Parser key "([\w.]+)": Unable to load config \'(.*?)\' .*': lambda name, value, prog: wrong_value(name, value),
    r'Parser key "([\w.]+)": .*?Got value: ?(.*)': lambda name, value, prog: wrong_value(name, value),
    r"unrecognized arguments: (.*)": _unknown_argument,
    r"Group '([\w.]+)' does not accept option '(.*?)'.*": lambda group, name, prog: _unknown(
        "", f"{group}.{name}", prog
    ),
    r"Option '(.*?)' is not accepted.*": lambda name, prog: _unknown("", name, prog),
    r"argument (--[\w.]+): expected one argument.*": lambda name, prog: (
        f"{name} is given no value; write one behind it"
    ),
    r"Unexpected config: ?(.*)": lambda found, prog: (
        f"config: the file holds {repr(found) if found else 'nothing'}; "
        "write settings there, such as distill: {ipc: 2}"
    ),
    r"Problems parsing config: (.*)": lambda why, prog: f"config: the file is no YAML ({why}); mend it there",
}
"""What jsonargparse says -> what we say of it; each takes the groups and the command."""
