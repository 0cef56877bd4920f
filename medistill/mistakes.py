"""Mistakes in options and config files in plain words: what was named, what was found and what to give."""

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from medistill.config import Config
from medistill.foreign import one_line, shown

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text, in quotes where it is a number"}


@dataclass(frozen=True)
class Command:
    """Whose arguments were read: the command, such as `medistill run`, and the dataclass of its settings."""

    prog: str
    kind: type = Config

    @property
    def options(self) -> dict[str, Any]:
        """Every option and section by its dotted name, with its type."""
        return dict(options(self.kind))

    @property
    def usage(self) -> str:
        """The command with what must be given."""
        given = getattr(self.kind, "POSITIONAL", ())
        named = [one.name for one in fields(self.kind) if one.default is MISSING and one.default_factory is MISSING]
        words = [f"--{name} {name.upper()}" if name not in given else name.upper() for name in named]
        return " ".join([self.prog, *words])


def in_words(message: str, prog: str, kind: type = Config) -> str:
    """What the parser says in terms of Python's types as one plain sentence; other messages as they are.

    Args:
        message: of jsonargparse, in one line.
        prog: the command, such as `medistill run`.
        kind: the dataclass of its settings.
    """
    message = one_line(message, 2000)
    for pattern, tell in PATTERNS.items():
        found = re.fullmatch(pattern, message)
        if found:
            return tell(*found.groups(), Command(prog, kind))
    return message if ";" in message else f"{message}; see {prog} --help"


def wrong_value(name: str, value: object, of: type = Config) -> str:
    """A sentence for a value that an option cannot take; the option is one of these settings'."""
    kind, found = dict(options(of)).get(name), "empty" if value is None else repr(shown(value))
    if kind is None:
        return f"{name} is {found}, which it cannot be"
    verb = "has" if get_origin(kind) in (list, dict) else "is"
    return f"{name} {verb} {found}; {_advice(name, kind, shown(value))}"


def options(kind: type = Config, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every option and section by its dotted name, with its type."""
    for name, one in get_type_hints(kind).items():
        if get_origin(one) is ClassVar:
            continue
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


def _unknown_argument(rest: str, command: Command) -> str:
    word = shown(rest.split()[0])
    if not word.startswith("-"):
        example = "--distill.ipc 2" if command.kind is Config else "--name value"
        return f"{word!r} belongs to no option; options look like {example}, see {command.prog} --help"
    return _unknown("--", word.partition("=")[0].lstrip("-"), command)


def _unknown(dashes: str, name: str, command: Command) -> str:
    """A name that no option has, and the one that is nearest to it."""
    name = shown(name)
    known = [one for one, kind in command.options.items() if not is_dataclass(kind)]
    same = [one for one in known if one.rpartition(".")[2] == name.rpartition(".")[2]]
    near = get_close_matches(name, [*known, "config"], 1, 0.75) or same[:1] or get_close_matches(name, known, 1)
    advice = f"did you mean {dashes}{near[0]}?" if near else f"see {command.prog} --help"
    return f"{dashes}{name} is not a setting; {advice}"


PATTERNS: dict[str, Callable[..., str]] = {
    r'Parser key "config": File does not exist: (.*)': lambda path, command: (
        f"config: {path} is not there; give the path of a YAML file, or configs/NAME.yaml of those shipped"
    ),
    r'Parser key "([\w.]+)": Unable to load config \'(.*?)\' .*': lambda name, value, command: wrong_value(
        name, value, command.kind
    ),
    r'Parser key "([\w.]+)": .*?Got value: ?(.*)': lambda name, value, command: wrong_value(name, value, command.kind),
    r'Parser key "([\w.]+)": ([^:]*)(?::.*)?': lambda name, why, command: (
        f"{name} cannot be read ({why.replace(';', ',')}); see {command.prog} --help"
    ),
    r"unrecognized arguments: (.*)": _unknown_argument,
    r"Group '([\w.]+)' does not accept option '(.*?)'.*": lambda group, name, command: _unknown(
        "", f"{group}.{name}", command
    ),
    r"Option '(.*?)' is not accepted.*": lambda name, command: _unknown("", name, command),
    r"argument (--[\w.]+): expected one argument.*": lambda name, command: (
        f"{name} is given no value; write one behind it"
    ),
    r"the following arguments are required: (.*)": lambda names, command: (
        f"{names}: not given; write {command.usage} ..., see {command.prog} --help"
    ),
    r"Unexpected config: ?(.*)": lambda found, command: (
        f"config: the file holds {repr(shown(found)) if found else 'nothing'}; "
        "write settings there, such as distill: {ipc: 2}"
    ),
    r"Problems parsing config: (.*)": lambda why, command: f"config: the file is no YAML ({why}); mend it there",
}
"""What jsonargparse says -> what we say of it; each takes the groups and the command."""
