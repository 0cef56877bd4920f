"""Attacks by names and kinds of files: out of the folder, hanging, endless, or another file on another system."""

import os
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

from attacks.builders import Attack, hidden

SPARSE = 6 << 30
GERMAN = "images/K\u00f6rper.png"


def listed(name: str) -> Callable[[Path], None]:
    """A line for this name in SHA256SUMS, as if it had always been there."""

    def add(folder: Path) -> None:
        (folder / "signature.json").unlink()
        with (folder / "SHA256SUMS").open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{'0' * 64}  {name}\n")

    return add


def put(name: str, data: bytes = b"x") -> Callable[[Path], None]:
    """A file of this name."""

    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def linked(folder: Path) -> None:
    """The audit of another place under the name of this one."""
    outside = folder.parent / "outside.json"
    (folder / "audit.json").rename(outside)
    (folder / "audit.json").symlink_to(outside)


def linked_folder(folder: Path) -> None:
    """A folder that is elsewhere."""
    (folder / "dicom").rename(folder.parent / "dicom")
    (folder / "dicom").symlink_to(folder.parent / "dicom")


def pipe(folder: Path) -> None:
    """A pipe, which hangs whoever reads it."""
    (folder / "audit.json").unlink()
    os.mkfifo(folder / "audit.json")


def listening(folder: Path) -> None:
    """A socket."""
    (folder / "audit.json").unlink()
    here = Path.cwd()
    os.chdir(folder)  # an address has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("audit.json")
    os.chdir(here)


def many(folder: Path) -> None:
    """More files than anybody can look at."""
    for number in range(50_001):
        (folder / f"{number}.txt").touch()


def sparse(name: str, size: int) -> Callable[[Path], None]:
    """A file that declares this size and takes no room; its sums are not made, for that would take long."""

    def make(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.truncate(size)
        if name not in ("SHA256SUMS", "signature.json"):
            listed(name)(folder)

    return make


def named(part: str) -> Callable[[Path], None]:
    """A file whose name has this part, with honest sums."""
    return hidden(put(f"images/{part}"))


ATTACKS = [
    *(
        Attack(f"path {name!r}", listed(name), r"SHA256SUMS: line \d+ names .* which could lead out of the folder")
        for name in (
            "../outside.txt",
            "/etc/passwd",
            "images/../../outside.txt",
            "a\\b.txt",
            "./a.txt",
            "..",
            "C:a.txt",
        )
    ),
    *(
        Attack(f"path {name!r}", listed(name), r"SHA256SUMS: line \d+ (names|is not)")
        for name in ("SHA256SUMS", "signature.json", "a\r", "audit.json", "a/b/c/d.txt", "x" * 256, " a.txt", "aux.txt")
    ),
    Attack("a line that is no sum", lambda f: (f / "SHA256SUMS").write_text("rm -rf\n"), r"SHA256SUMS: line 1 is not"),
    Attack("file added", put("notes.txt"), r"notes\.txt: not listed in SHA256SUMS"),
    Attack("hidden file added", put(".notes.txt"), r"\.notes\.txt: not listed in SHA256SUMS"),
    Attack("file added, sums rewritten", put("notes.txt"), r"notes\.txt: not listed in SHA256SUMS", keyed=True),
    Attack("file gone", lambda f: (f / "config.yaml").unlink(), r"config\.yaml: missing from the release"),
    Attack("sums gone", lambda f: (f / "SHA256SUMS").unlink(), r".*: no SHA256SUMS in it"),
    Attack("file gone, sums rewritten", hidden(lambda f: (f / "README.md").unlink()), r"README\.md: missing from"),
    Attack("pickle", hidden(put("model.pkl")), r"model\.pkl: no release holds such a file"),
    Attack("program", hidden(put("load.py")), r"load\.py: no release holds such a file"),
    Attack("second master", hidden(put("better.safetensors")), r"better\.safetensors: no part of a release"),
    Attack("empty folder", lambda f: (f / "images" / "empty").mkdir(), r"images/empty/: an empty folder"),
    Attack("link to a file", linked, r"audit\.json: neither a plain file nor a folder"),
    Attack("link to a folder", linked_folder, r"dicom: neither a plain file nor a folder"),
    Attack("link to itself", lambda f: (f / "images" / "up").symlink_to(f), r"images/up: neither a plain file"),
    Attack("pipe", pipe, r"audit\.json: neither a plain file nor a folder"),
    Attack("socket", listening, r"audit\.json: neither a plain file nor a folder"),
    Attack("name with a line end", named("a\nb.png"), r"images/a b\.png: a name which holds control characters"),
    Attack(
        "name with an escape",
        named("a\x1b[2Jb.png"),
        r"images/a\?\[2Jb\.png: a name which holds control",
    ),
    Attack("name read backwards", named("gnp.\u202egnp.exe"), r"images/gnp\..*: a name which holds control characters"),
    Attack("name with a space at its end", named("a.png "), r"images/a\.png: a name which begins or ends with a space"),
    Attack("name of a device", named("NUL.png"), r"images/NUL\.png: a name which is a device on Windows"),
    Attack(
        "name of bytes", lambda f: put(os.fsdecode(b"\xff.txt"))(f), r".*\.txt: a name which holds control characters"
    ),
    Attack("folder too deep", put("a/b/c/d.txt"), r"a/b/c/d\.txt: a name which lies deeper than 3 levels"),
    Attack("names apart by case", hidden(put("readme.md")), r"readme\.md: some systems take it for README\.md"),
    Attack("folders apart by case", hidden(put("IMAGES/a.txt")), r"images: some systems take it for IMAGES"),
    Attack(
        "names apart by composition",
        hidden(lambda f: [put(unicodedata.normalize(form, GERMAN))(f) for form in ("NFC", "NFD")]),
        r"images/K.*: some systems take it for images/K",
    ),
    Attack("too many files", many, r".*: holds more than 50000 files", bomb=True),
    Attack("too many bytes", sparse("more.txt", SPARSE), r".*: holds \d+ bytes, more than any release", bomb=True),
    Attack("text without end", sparse("more.txt", 1 << 30), r"more\.txt: 1073741824 bytes, more than", bomb=True),
    Attack("sums without end", sparse("SHA256SUMS", 1 << 30), r"SHA256SUMS: 1073741824 bytes, more than", bomb=True),
    Attack(
        "picture without end", hidden(sparse("preview.png", 100 << 20)), r"preview\.png: 104857600 bytes", bomb=True
    ),
    Attack(
        "signature without end", sparse("signature.json", 1 << 30), r"signature\.json: \d+ bytes, more than", bomb=True
    ),
]
