"""Numbers on the page: rounded for the reader, with the exact value and the place it comes from in attributes.

A place is a JSON pointer (RFC 6901) behind the name of its file: `evaluation/arms/distilled/lr`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from markupsafe import Markup

from medistill.report.html.words import SKIPPED, word

Place = tuple[Any, ...]

# A number of patients below this may point at one of them, so it is not printed.
SMALL = 10

NOTHING = Markup('<span class="none">–</span>')
THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _fixed(places: int, sign: str = "") -> Callable[[float], str]:
    def shown(value: float) -> str:
        text = f"{value:{sign}.{places}f}"
        return text.lstrip("+-") if float(text) == 0 else text

    return shown


def _significant(value: float) -> str:
    text = f"{value:.3g}"
    if "e" not in text:
        return text
    digits, exponent = text.split("e")
    return f"{digits}{THIN_SPACE}×{THIN_SPACE}10{str(int(exponent)).translate(RAISED)}"


FORMATS: dict[str, Callable[[Any], str]] = {
    "count": lambda value: f"{value:,}".replace(",", THIN_SPACE),
    "two": _fixed(2),
    "three": _fixed(3),
    "signed": _fixed(3, "+"),
    "percent": lambda value: f"{_fixed(0)(100 * value)}{THIN_SPACE}%",
    "percent1": lambda value: f"{_fixed(1)(100 * value)}{THIN_SPACE}%",
    "p": lambda value: f"<{THIN_SPACE}0.001" if value < 0.001 else f"{value:.3f}",
    "significant": _significant,
    "plain": str,
}


class Numbers:
    """Values of named JSON files, as they stand on the page."""

    def __init__(self, sources: Mapping[str, Any]):
        self._sources = sources

    def value(self, *parts: Any) -> Any:
        """The value at a place: the file, then a key or index a step; None where there is none.

        Parts of a place may come as a tuple.
        """
        found: Any = self._sources
        for part in _flat(parts):
            if found is None:
                return None
            try:
                found = found[part]
            except (KeyError, IndexError):
                return None
        return found

    def number(self, *parts: Any, kind: str = "three") -> Markup:
        """The number at a place; a dash where there is none. `kind` is one of FORMATS."""
        value = self.value(*parts)
        if value is None:
            return NOTHING
        text = FORMATS[kind](value).replace("-", MINUS)
        return Markup('<span class="n" data-path="{}" data-value="{}">{}</span>').format(
            pointer(*parts), json.dumps(value), text
        )

    def patients(self, *parts: Any) -> Markup:
        """A number of patients; a small one is not told."""
        value = self.value(*parts)
        if few(value):
            return Markup('<span class="none">fewer than ten</span>')
        return self.number(*parts, kind="count")

    def films(self, place: Place, patients: Place, unit: str, kind: str = "") -> Markup:
        """`360 films of 60 patients`; of few patients neither number is told, for films stand for patients.

        Args:
            place: of the number of films.
            patients: of the number of patients.
            unit: what a film is called, in the plural.
            kind: a word before `patients`, such as `other`.
        """
        who = f"{kind} patients" if kind else "patients"
        if few(self.value(*patients)):
            return Markup("{} of {} {}").format(unit, self.patients(*patients), who)
        return Markup("{} {} of {} {}").format(self.number(*place, kind="count"), unit, self.patients(*patients), who)

    def interval(self, *parts: Any, kind: str = "three") -> Markup:
        """The interval at a place, a pair or an object with `low` and `high`."""
        ends: tuple[Any, Any] = ("low", "high") if isinstance(self.value(*parts), Mapping) else (0, 1)
        if self.value(*parts, ends[0]) is None or self.value(*parts, ends[1]) is None:
            return NOTHING
        low, high = (self.number(*parts, end, kind=kind) for end in ends)
        return Markup('<span class="ci">{} to {}</span>').format(low, high)

    def text(self, *parts: Any) -> Markup:
        """The text at a place."""
        value = self.value(*parts)
        return (
            NOTHING if value in (None, "") else Markup('<span data-path="{}">{}</span>').format(pointer(*parts), value)
        )

    def facts(self, *parts: Any) -> list[tuple[str, Markup]]:
        """What stands in an object at a place, as pairs of words and values; long lists are left to the file."""
        return list(self._facts(tuple(_flat(parts)), ""))

    def _facts(self, parts: tuple[Any, ...], before: str) -> Iterator[tuple[str, Markup]]:
        for key, value in self.value(*parts).items():
            place, name = (*parts, key), word(key)
            if before and before != name:
                name = f"{before}: {name}"
            if key in SKIPPED or value is None:
                continue
            if isinstance(value, Mapping):
                yield from self._facts(place, name)
            elif isinstance(value, list):
                if len(value) == 2 and all(isinstance(end, float | int) for end in value):
                    yield name, self.interval(*place)
            else:
                yield name, self._fact(place, value)

    def _fact(self, place: tuple[Any, ...], value: Any) -> Markup:
        if isinstance(value, bool):
            return Markup("{}").format("yes" if value else "no")
        if isinstance(value, str):
            return self.text(*place)
        if isinstance(value, int):
            return self.patients(*place) if "patients" in str(place[-1]) else self.number(*place, kind="count")
        return self.number(*place, kind="significant")


def few(patients: int | None) -> bool:
    """Whether a number of patients may point at one of them; none does not."""
    return patients is not None and 0 < patients < SMALL


def pointer(*parts: Any) -> str:
    """The place as one string."""
    return "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in _flat(parts))


def _flat(parts: tuple[Any, ...]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, tuple):
            yield from part
        else:
            yield part
