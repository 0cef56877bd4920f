"""The files of a release and its SHA256SUMS: each file is opened once and compared as it is read."""

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from medistill.errors import ReleaseError, UserError
from medistill.foreign import shown
from medistill.release.names import collision, fault_of_kind, fault_of_name

SUMS = "SHA256SUMS"
SIGNATURE = "signature.json"
IMAGES = "distilled.safetensors"
EVALUATION = "evaluation.json"
AUDIT = "audit.json"
CONFIG = "config.yaml"
CARD = "README.md"
METADATA = "metadata.json"
NEEDED = (IMAGES, EVALUATION, AUDIT, CONFIG, CARD, METADATA)

AGAIN = "fetch the release again from its source"

MOST_FILES = 50_000
MOST_BYTES = 4 << 30
LIMITS = {".safetensors": 1 << 30, ".png": 64 << 20, ".yaml": 64 << 10}
LIMIT = 4 << 20  # of every other kind of file: JSON takes up to forty times its size once it is parsed

_LINE = re.compile(r"([0-9a-f]{64})  (.+)", re.DOTALL)


@dataclass(frozen=True)
class Manifest:
    """A folder whose files are those of its SHA256SUMS by name; each is compared by content when it is read.

    Attributes:
        folder: the release.
        text: the bytes of SHA256SUMS.
        listed: SHA-256 by name.
        found: what the walk saw, by name.
    """

    folder: Path
    text: bytes
    listed: dict[str, str]
    found: dict[str, os.stat_result]

    @property
    def digest(self) -> str:
        """The release's digest, the SHA-256 of SHA256SUMS."""
        return hashlib.sha256(self.text).hexdigest()

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of a listed file; a ReleaseError where they are more than `most`, or not those of its SHA-256."""
        data = read_plain(self.folder, name, self.found[name], most)
        if hashlib.sha256(data).hexdigest() != self.listed[name]:
            raise ReleaseError(f"{name}: changed since the release was written (its SHA-256 differs); {AGAIN}")
        return data


def release_digest(folder: Path) -> str:
    """The digest by which a release is known: the SHA-256 of the bytes of its SHA256SUMS; nothing is verified."""
    return hashlib.sha256(_sums_of(folder, files_of(folder))).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The files of a folder and its SHA256SUMS, not compared yet.

    Raises:
        UserError: there is no such folder.
        ReleaseError: SHA256SUMS is missing or damaged, or the folder holds what no release does.
    """
    found = files_of(folder)
    text = _sums_of(folder, found)
    return Manifest(folder, text, parse_sums(text), found)


def _sums_of(folder: Path, found: dict[str, os.stat_result]) -> bytes:
    """The bytes of SHA256SUMS."""
    if SUMS not in found:
        raise ReleaseError(f"{shown(folder)}: no {SUMS} in it, so this is no release; {AGAIN}")
    return read_plain(folder, SUMS, found[SUMS])


def require_complete(manifest: Manifest) -> None:
    """Raise a ReleaseError naming a file that is missing, not listed, or of a name or kind that no release holds."""
    found, listed = manifest.found, manifest.listed
    for name in (*NEEDED, *listed):
        if name not in found:
            raise ReleaseError(f"{name}: missing from the release; {AGAIN}")
        if name not in listed:
            raise ReleaseError(f"{name}: not listed in {SUMS}; {AGAIN}")
    for name in sorted(found):
        if name not in listed and name not in (SUMS, SIGNATURE):
            raise ReleaseError(f"{name}: not listed in {SUMS}; it does not belong to the release, move it away")
    for name in listed:
        if fault := fault_of_kind(name):
            raise ReleaseError(f"{name}: {fault}; {AGAIN}")
    if same := collision(found):
        raise ReleaseError(f"{same[1]}: some systems take it for {same[0]}; {AGAIN}")


def files_of(folder: Path) -> dict[str, os.stat_result]:
    """Every plain file under a folder by its name, sorted; links, devices and folders without a file are refused."""
    if not folder.is_dir():
        raise UserError(f"{shown(folder)}: no such folder; give the folder that holds {SUMS}")
    found: dict[str, os.stat_result] = {}
    total = 0
    places = [""]
    while places:
        prefix = places.pop()
        before = len(found) + len(places)
        for name, seen in _entries(folder, prefix):
            if stat.S_ISDIR(seen.st_mode):
                places.append(f"{name}/")
                continue
            found[name] = seen
            total += seen.st_size
            if len(found) > MOST_FILES:
                raise ReleaseError(f"{shown(folder)}: holds more than {MOST_FILES} files, as no release does; {AGAIN}")
        if prefix and len(found) + len(places) == before:
            raise ReleaseError(f"{prefix}: an empty folder, which no release holds; remove it, or {AGAIN}")
    if total > MOST_BYTES:
        raise ReleaseError(f"{shown(folder)}: holds {total} bytes, more than any release ({MOST_BYTES}); {AGAIN}")
    return dict(sorted(found.items()))


def _entries(folder: Path, prefix: str) -> list[tuple[str, os.stat_result]]:
    """Name and kind of what lies in one folder, sorted by name."""
    entries = []
    with os.scandir(folder / prefix) as opened:
        for number, entry in enumerate(opened):
            name, seen = prefix + entry.name, os.lstat(entry)  # entry.stat() has no inode on Windows
            if fault := fault_of_name(name):
                raise ReleaseError(f"{shown(name)}: a name {fault}; {AGAIN}")
            if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
                raise ReleaseError(f"{name}: neither a plain file nor a folder; a release holds no links; {AGAIN}")
            if number > MOST_FILES:
                raise ReleaseError(f"{shown(folder)}: holds more than {MOST_FILES} files, as no release does; {AGAIN}")
            entries.append((name, seen))
    return sorted(entries, key=lambda pair: pair[0])


def read_plain(folder: Path, name: str, seen: os.stat_result, most: int | None = None) -> bytes:
    """The bytes of the very file that the walk saw; nothing is followed and nothing waited for.

    Raises ReleaseError for a file that is too large (for its kind, unless `most` is given), unreadable, or another one
    by now.
    """
    most = LIMITS.get(Path(name).suffix.lower(), LIMIT) if most is None else most
    # a pipe or a link put in the file's place after the walk must neither hang the reader nor lead it elsewhere
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(folder / name, flags), "rb") as file:  # noqa: PTH123
            now = os.fstat(file.fileno())
            if not os.path.samestat(now, seen) or not stat.S_ISREG(now.st_mode):
                raise ReleaseError(f"{name}: was replaced while the release was read; verify it again")
            if now.st_size > most:
                raise ReleaseError(f"{name}: {now.st_size} bytes, more than such a file of a release has; {AGAIN}")
            data = file.read(most + 1)
    except OSError as error:
        raise ReleaseError(f"{name}: cannot be read ({error.strerror}); check the rights to the folder") from error
    if len(data) > most:
        raise ReleaseError(f"{name}: grew while the release was read; verify it again")
    return data


def parse_sums(data: bytes) -> dict[str, str]:
    """SHA-256 by name of a text in the format of `sha256sum`."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{SUMS}: not a text file; {AGAIN}") from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, start=1):
        match = _LINE.fullmatch(line)
        if not match:
            raise ReleaseError(f"{SUMS}: line {number} is not '<sha256>  <name>'; {AGAIN}")
        digest, name = match.groups()
        fault = "which is no file of a release" if name in (SUMS, SIGNATURE) else fault_of_name(name)
        if fault:
            raise ReleaseError(f"{SUMS}: line {number} names {shown(name)!r}, {fault}; {AGAIN}")
        if name in listed:
            raise ReleaseError(f"{SUMS}: line {number} names {name!r} a second time; {AGAIN}")
        listed[name] = digest
    return listed
