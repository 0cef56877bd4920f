"""Refuse to commit what may show a patient, and what is too large for a repository.

Called by pre-commit with the names of the files of a commit; exit code 1 names each that is refused. It needs nothing
but Python, so that it runs before anything is installed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

MAX_BYTES = 500_000
PICTURES = ("docs/",)
"""Where pictures may lie: figures of studies, each looked at by a reviewer."""

# The first bytes of file formats that films, volumes and archives of them come in.
MAGIC = {
    b"\x89PNG\r\n\x1a\n": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"RIFF": "a picture",
    b"II*\x00": "a picture",
    b"MM\x00*": "a picture",
    b"BM": "a picture",
    b"\x00\x00\x00\x0cjP  ": "a picture",
    b"PK\x03\x04": "an archive",
    b"PK\x05\x06": "an archive",
    b"\x1f\x8b": "an archive",
    b"BZh": "an archive",
    b"\xfd7zXZ\x00": "an archive",
    b"7z\xbc\xaf\x27\x1c": "an archive",
    b"%PDF": "a document",
    b"\x89HDF\r\n": "a data file",
    b"\x93NUMPY": "a data file",
    b"SQLite format 3": "a database",
}
SUFFIXES = (".dcm", ".dicom", ".nii", ".nrrd", ".mha", ".safetensors", ".pt", ".pth", ".pkl", ".db", ".sqlite", ".key")


def reason(path: Path) -> str:
    """Why a file must not be committed, or nothing."""
    head = path.read_bytes()[:400] if path.is_file() else b""
    name = path.as_posix()
    if head[128:132] == b"DICM" or head[:2] in (b"\x08\x00", b"\x02\x00"):
        return "is DICOM, which may name a patient"
    if b"PRIVATE KEY" in head:
        return "is a private key"
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    if kind and not (kind == "a picture" and name.startswith(PICTURES)):
        where = f"; pictures belong to {PICTURES[0]}, if they show nobody" if kind == "a picture" else ""
        return f"is {kind}, which may show a patient{where}"
    if path.suffix.lower() in SUFFIXES or name.lower().endswith(".nii.gz"):
        return f"ends in {path.suffix}, as films, models and keys do"
    if path.is_file() and (size := path.stat().st_size) > MAX_BYTES:
        return f"has {size:,} bytes, more than {MAX_BYTES:,}"
    return ""


def main(names: Sequence[str]) -> int:
    """Print each refused file with its reason; 1 when there is one, else 0."""
    refused = {name: why for name in names if (why := reason(Path(name)))}
    for name, why in refused.items():
        print(f"{name}: {why}; keep it outside of the repository")
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
