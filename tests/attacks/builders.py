"""What the builders of attacks share: the release that is attacked, and how its parts are read and written again."""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01")


@dataclass(frozen=True)
class Attack:
    """One thing that somebody may do to a release on its way.

    Attributes:
        name: of the test.
        build: does it to the folder of a signed release.
        says: regular expression that the one sentence must match from its start.
        keyed: the reader gives the owner's public key; else none.
        bomb: meant to eat memory or time, so both are measured.
    """

    name: str
    build: Callable[[Path], object]
    says: str
    keyed: bool = False
    bomb: bool = False


def sums(folder: Path) -> str:
    """Honest sums over what lies in a folder, by an own few lines."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [name for name in names if name not in ("SHA256SUMS", "signature.json")]
    return "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in kept)


def hide(folder: Path, signature: bool = False) -> None:
    """Rewrite SHA256SUMS so that it fits; the signature stays or goes."""
    (folder / "SHA256SUMS").write_text(sums(folder))
    if not signature:
        (folder / "signature.json").unlink(missing_ok=True)


def hidden(build: Callable[[Path], object]) -> Callable[[Path], None]:
    """The same attack with SHA256SUMS rewritten and the signature taken away."""

    def both(folder: Path) -> None:
        build(folder)
        hide(folder)

    return both


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """An edit of a JSON file."""

    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        change(value)
        (folder / name).write_text(json.dumps(value))

    return edit


def edit_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """An edit of a text file; what is replaced must be there."""

    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text, f"{name} does not hold {old!r}"
        (folder / name).write_text(text.replace(old, new))

    return edit


def overwrite(name: str, data: bytes) -> Callable[[Path], None]:
    """Other bytes in a file."""
    return lambda folder: (folder / name).write_bytes(data) and None


def first(folder: Path, pattern: str) -> Path:
    """The first file of a view."""
    return sorted(folder.glob(pattern))[0]


def edit_header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """An edit of the header of the master; the tensors' bytes stay."""

    def edit(folder: Path) -> None:
        path = folder / "distilled.safetensors"
        good = path.read_bytes()
        length = int.from_bytes(good[:8], "little")
        header = json.loads(good[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + good[8 + length :])

    return edit


def edit_pixels(change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    """An edit of the bytes of the master's tensors, images before labels."""

    def edit(folder: Path) -> None:
        path = folder / "distilled.safetensors"
        data = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        body = data[start:]
        change(body)
        path.write_bytes(data[:start] + body)

    return edit


def trigger(body: bytearray) -> None:
    """A small bright square in the corner of the first image, as a backdoor has it."""
    for row in range(3):
        for column in range(3):
            at = 4 * (16 * row + column)
            body[at : at + 4] = struct.pack("<f", 2.0)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, *more: bytes) -> bytes:
    """A gray 8-bit PNG that declares this size and holds these rows, each with its filter byte."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), *more, chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    )
