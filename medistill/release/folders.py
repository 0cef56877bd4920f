"""Names of the class folders: a class may be called anything, a folder may not."""

import re
import unicodedata
from collections.abc import Sequence

from medistill.release.names import DEVICES

LONGEST = 40
"""Characters of a folder's name before it is made unique; even of four bytes each they fit every file system."""


def class_folders(classes: Sequence[str]) -> tuple[str, ...]:
    """A folder's name for each class, in its order, unique on every file system.

    Letters, digits, marks of any script, spaces and hyphens stay; all else becomes "_", so no name is hidden, leads
    elsewhere, or is another file's. Names that differ by case or composition alone get a number.
    """
    names: list[str] = []
    taken: set[str] = set()
    for called in classes:
        plain = _plain(called)
        tries = (plain if number == 1 else f"{plain} {number}" for number in range(1, len(classes) + 2))
        name = next(name for name in tries if _identity(name) not in taken)
        taken.add(_identity(name))
        names.append(name)
    return tuple(names)


def _plain(called: str) -> str:
    """A class's name as a folder's."""
    kept = "".join(
        sign if sign in " -" or unicodedata.category(sign)[0] in "LNM" else "_"
        for sign in unicodedata.normalize("NFC", called)
    )
    # what begins with a mark, a hyphen or an underscore is taken for an option, a hidden file or nothing at all
    name = re.sub(r"^[\W_]+", "", kept)[:LONGEST].strip()
    return f"{name or 'class'}_" if not name or name.lower() in DEVICES else name


def _identity(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
