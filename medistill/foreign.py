"""Text of files from elsewhere, fit to stand in a sentence of ours."""

import re
from collections.abc import Iterable

_ESCAPED = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})")
_QUOTED = re.compile(r"""(?<!\w)b?'[^']*'|(?<!\w)b?"[^"]*\"""")


def shown(text: object, most: int = 200) -> str:
    """A text on one line, printable and cut: no control characters, which could write on the reader's terminal."""
    line = _printable(str(text)[: 8 * most])
    return line if len(line) <= most else f"{line[: most - 3]}..."


def one_line(text: str, most: int = 600) -> str:
    """A sentence that repeats foreign text, on one line; cut in its middle, as its end says what to do."""
    line = _printable(text)
    return line if len(line) <= most else f"{line[: most - 205]} ... {line[-200:]}"


def _printable(text: str) -> str:
    """A text on one line without characters that are no letters."""
    line = " ".join(_ESCAPED.sub("?", text).split())
    return "".join(letter if letter.isprintable() and letter != "\N{REPLACEMENT CHARACTER}" else "?" for letter in line)


def reason(error: BaseException, most: int = 120) -> str:
    """An exception as part of a sentence: its type and the start of its text, without what it quotes of a file."""
    text = shown(_QUOTED.sub("...", str(error)[: 8 * most]), most).replace(";", ",")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names in a sentence; of many the first, and how many there are more."""
    every = [shown(name, 40) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
