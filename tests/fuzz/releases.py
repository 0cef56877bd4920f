"""Toy releases as files, and mutators that know what their files hold."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from fuzz.mutate import mutate
from fuzz.watchdog import Files
from release.conftest import toy_parts

from medistill.release.bundle import write_release
from medistill.release.keys import make_keys, read_private_key
from medistill.release.signature import write_signature

SUMS, SIGNATURE, MASTER = "SHA256SUMS", "signature.json", "distilled.safetensors"

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-320, 1e308, 1e-45, float("nan"), float("inf"), "",
    "pass", "fail", "convnet", "vit", "F32", "F64", "BOOL", "nan", "\x1b[2J", "a\nb", "\u202e", "../x", "x" * 5000, [],
    {}, [[]], [1, 2], ["a"], {"a": 1}, [0, 2**62], [2**40, 1, 1, 1], "\ud800",
)  # fmt: skip


def toys() -> list[Files]:
    """A release, and the same one signed."""
    with TemporaryDirectory() as name:
        folder = write_release(Path(name) / "toy", **toy_parts())
        plain = read(folder)
        make_keys(Path(name) / "key")
        write_signature(folder, read_private_key(Path(name) / "key.key"))
        return [plain, read(folder)]


def read(folder: Path) -> Files:
    """The files of a folder by name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def sums(files: Files) -> bytes:
    """SHA256SUMS of files, written anew."""
    named = sorted((name, data) for name, data in files.items() if name not in (SUMS, SIGNATURE))
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in named).encode()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def change_json(data: bytes, chance: Random) -> bytes:
    """Change, rename, take out or double 1 to 3 parts of a JSON text."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):  # an earlier mutant
        return data
    for _ in range(chance.randint(1, 3)):
        inside, key = chance.choice(list(places(value)) or [({}, "")])
        kind = chance.randrange(5)
        if kind < 3 or not inside:
            inside[key] = chance.choice(VALUES)
        elif kind == 3 and isinstance(inside, dict):
            inside[chance.choice(("", "name", "\x1b", "__class__", str(key) + " "))] = inside.pop(key)
        else:
            del inside[key]
    text = json.dumps(value)
    if chance.random() < 0.05:
        text = chance.choice(("[" * 50_000, "{" + text[1:-1] + "," + text[1:], text.replace("0.", "1e9"), text + "}"))
    return text.encode()


def change_master(data: bytes, chance: Random) -> bytes:
    """Change the header of a safetensors file; one that was mutated beyond reading stays as it is."""
    try:
        return change_header(data, chance)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return data


def change_header(data: bytes, chance: Random) -> bytes:
    """Change a header, or the metadata that it holds as JSON in JSON."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    if chance.random() < 0.7:
        whole = json.loads(header)
        inner = change_json(whole["__metadata__"]["medistill"].encode(), chance)
        whole["__metadata__"]["medistill"] = inner.decode()
        header = json.dumps(whole).encode()
    else:
        header = change_json(header, chance)
    said = len(header) if chance.random() < 0.9 else chance.choice((0, 1, 2**31, 2**62, 2**64 - 1, len(header) + 8))
    return said.to_bytes(8, "little") + header + rest


NAMES = (
    "extra.png", "images/COVID/9999.png", "dicom/x.dcm", "Audit.json", "AUDIT.JSON", "con.json", "a.pkl", "x.py", "nul",
    "deep/a/b/c/d.json", " .json", "x .json", "x.json.", "\x1b[2J.json", "a\nb.json", "u\u0308.json",
    "x" * 250 + ".json", "-rf.json", "signature.json", "images/SHA256SUMS", "pickle.npz", "$(id).json",
    "\u202egnp.json",
)  # fmt: skip


def change_names(files: Files, chance: Random) -> Files:
    """Add, take away or rename a file."""
    kind, name = chance.randrange(3), chance.choice(sorted(files))
    new = chance.choice(NAMES)
    if kind == 0:
        return files | {new: files[name]}
    rest = {other: data for other, data in files.items() if other != name}
    return rest if kind == 1 else rest | {new: files[name]}


def mutant(files: Files, chance: Random) -> Files:
    """A release with 1 or 2 files or names changed; in two of three cases its sums are written anew."""
    files = dict(files)
    every = list(files.values())
    for _ in range(chance.choice((1, 1, 2))):
        # each second mutant is of a file that decides what is loaded
        decisive = [name for name in files if name.endswith((".json", ".safetensors", ".yaml", ".md"))]
        name = chance.choice(decisive if decisive and chance.random() < 0.6 else sorted(files))
        kind = chance.random()
        if kind < 0.1:
            files = change_names(files, chance)
        elif kind < 0.6 and name in CHANGES:
            files[name] = CHANGES[name](files[name], chance)
        else:
            files[name] = mutate(files[name], chance, every, rounds=2)
    if chance.random() < 0.67:
        files[SUMS] = sums(files)
    return files


CHANGES: dict[str, Callable[[bytes, Random], bytes]] = {
    MASTER: change_master,
    **dict.fromkeys(
        ("audit.json", "evaluation.json", "metadata.json", "croissant.json", "environment.json", SIGNATURE), change_json
    ),
}
