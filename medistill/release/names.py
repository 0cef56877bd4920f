"""Names that the files of a release may have: the same file on every system, and inside the folder."""

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

DEEPEST = 3
LONGEST = 255

# Nothing that a double click runs or a reader unpickles has a place in a release.
KINDS = (".dcm", ".json", ".jsonl", ".md", ".npz", ".png", ".safetensors", ".txt", ".yaml")

# Windows takes these for devices, whatever their ending.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def fault_of_name(name: str) -> str | None:
    """What is wrong with a file's name inside a release, parts joined by "/", or None."""
    parts = name.split("/")
    if "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        return "which could lead out of the folder"
    if any(unicodedata.category(mark) in ("Cc", "Cf", "Cs", "Zl", "Zp") for mark in name):
        return "which holds control characters"
    if any(part != part.strip() or part.endswith(".") for part in parts):
        return "which begins or ends with a space or a dot that some systems drop"
    if any(part.split(".")[0].lower() in DEVICES for part in parts):
        return "which is a device on Windows"
    if any(len(part.encode()) > LONGEST for part in parts):
        return f"with a part of more than {LONGEST} bytes"
    if len(parts) > DEEPEST:
        return f"which lies deeper than {DEEPEST} levels"
    return None


def fault_of_kind(name: str) -> str | None:
    """Why no release holds a file of this kind, or None; SHA256SUMS is no such file."""
    if PurePosixPath(name).suffix.lower() in KINDS:
        return None
    return f"no release holds such a file, only {', '.join(KINDS)}"


def collision(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names, of files or folders, that some system takes for one: by case or by Unicode composition; or None."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            place = "/".join(parts[:depth])
            same = unicodedata.normalize("NFC", unicodedata.normalize("NFC", place).casefold())
            if seen.setdefault(same, place) != place:
                return seen[same], place
    return None
