"""Values as Markdown: nothing that is printed breaks out of its place, and nothing small is told exactly."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# A number of patients or of their films below this may point at one of them, so it is not printed.
SMALL = 10


def counted(n: Any) -> str:
    """A count of patients or films as it may be printed: small ones are not told exactly."""
    if n is None:
        return "–"
    return f"fewer than {SMALL}" if 0 < n < SMALL else str(n)


def counted_together(counts: Sequence[Any]) -> list[str]:
    """The counts of all classes as they may be printed.

    Where one alone is small, the next larger one is not told either: other numbers of a release are sums over classes,
    from which the rest could be taken away (complementary suppression).
    """
    cells = [counted(n) for n in counts]
    large = [place for place, n in enumerate(counts) if n is not None and n >= SMALL]
    if sum(n is not None and 0 < n < SMALL for n in counts) == 1 and large:
        cells[min(large, key=lambda place: counts[place])] = f"{SMALL} or more"
    return cells


def printed(found: Any) -> str:
    """A number, text or small dict as text; longer lists are in the JSON files."""
    if isinstance(found, bool) or found is None:
        return {True: "yes", False: "no", None: "–"}[found]
    if isinstance(found, float):
        return f"{found:.4g}"
    if isinstance(found, Mapping):
        return ", ".join(f"{inline(key)} {printed(item)}" for key, item in sorted(found.items())) or "–"
    if isinstance(found, list | tuple):
        return f"{len(found)} values" if len(found) > SMALL else ", ".join(printed(item) for item in found) or "–"
    return inline(found)


def inline(words: Any) -> str:
    """One line of text that cannot break out of its place."""
    line = " ".join(str(words).split())
    for mark in "\\`*|<>[]":
        line = line.replace(mark, f"\\{mark}")
    return line


def table_of(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(content: Any) -> str:
    """One cell of a table; what `inline` made safe stays as it is."""
    return re.sub(r"(?<!\\)\|", r"\\|", str(content)).replace("\n", " ")
