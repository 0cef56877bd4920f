"""Attacks on the signature, by somebody who has everything but the owner's private key."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from attacks.builders import OWNER, STRANGER, Attack, edit_json, hide
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from medistill.release.keys import fingerprint, public_pem
from medistill.release.signature import sign

SIGNATURE = "signature.json"


def signature(**changes: Any) -> Any:
    """Other fields in signature.json; values may be functions of what stands there."""

    def change(value: dict[str, Any]) -> None:
        for name, new in changes.items():
            value[name] = new(value) if callable(new) else new

    return edit_json(SIGNATURE, change)


def swapped(folder: Path) -> None:
    """The owner's own signature of another release."""
    other = (folder / "SHA256SUMS").read_text().splitlines()
    text = "".join(f"{line[:64][::-1]}{line[64:]}\n" for line in other)
    (folder / SIGNATURE).write_text(json.dumps(sign(text.encode(), OWNER)))


def borrowed(folder: Path) -> None:
    """The owner's key and fingerprint beside a stranger's signature."""
    value = sign((folder / "SHA256SUMS").read_bytes(), STRANGER)
    value |= {"public_key": public_pem(OWNER.public_key()), "fingerprint": fingerprint(OWNER.public_key())}
    (folder / SIGNATURE).write_text(json.dumps(value))


def foreign(folder: Path) -> None:
    """The owner's signature of something that is no release, such as a document of the same text."""
    sums = (folder / "SHA256SUMS").read_bytes()
    value = json.loads((folder / SIGNATURE).read_text())
    value["signature"] = base64.b64encode(OWNER.sign(sums)).decode()
    (folder / SIGNATURE).write_text(json.dumps(value))


def rsa(value: dict[str, Any]) -> str:
    """A key of another kind."""
    key = generate_private_key(65537, 2048).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def added(folder: Path) -> None:
    """A file more, and sums that fit."""
    (folder / "terms.txt").write_text("free for any use")
    hide(folder, signature=True)


def removed(folder: Path) -> None:
    """A view less, and sums that fit."""
    shutil.rmtree(folder / "dicom")
    hide(folder, signature=True)


def accepted_by_another(folder: Path) -> None:
    """Another name for who accepted it, wherever it stands, and sums that fit."""
    for name in ("audit.json", "README.md", "metadata.json"):
        path = folder / name
        path.write_text(path.read_text().replace("Dr. A. Example", "Dr. B. Other"))
    hide(folder, signature=True)


def reordered(folder: Path) -> None:
    """The same sums in another order."""
    path = folder / "SHA256SUMS"
    path.write_text("".join(sorted(path.read_text().splitlines(keepends=True), reverse=True)))


CUT = r"signature\.json: its key, text or signature cannot be read"

ATTACKS = [
    Attack("taken away", lambda f: (f / SIGNATURE).unlink(), r"signature\.json: missing, so nobody signed", keyed=True),
    Attack("of another release", swapped, r"signature\.json: the signature of another release", keyed=True),
    Attack("of another release, no key given", swapped, r"signature\.json: the signature of another release"),
    Attack("by a stranger in the owner's name", borrowed, r"signature\.json: the signature does not fit", keyed=True),
    Attack("of another kind of text", foreign, r"signature\.json: the signature does not fit", keyed=True),
    Attack(
        "by a stranger",
        lambda f: (f / SIGNATURE).write_text(json.dumps(sign((f / "SHA256SUMS").read_bytes(), STRANGER))),
        r"signature\.json: signed by another key",
        keyed=True,
    ),
    Attack(
        "with the owner's fingerprint on a stranger's key",
        signature(public_key=public_pem(STRANGER.public_key())),
        r"signature\.json: the fingerprint in it is not that of the key in it",
    ),
    Attack(
        "text edited",
        signature(signed=lambda v: v["signed"].replace("a", "b", 1)),
        r"signature\.json: the signature does not fit",
    ),
    Attack(
        "all zeros", signature(signature=base64.b64encode(bytes(64)).decode()), r"signature\.json: the signature does"
    ),
    Attack("cut", signature(signature=lambda v: v["signature"][:40]), r"signature\.json: "),
    Attack("no base64", signature(signature="not base64!"), CUT),
    Attack("by RSA", signature(public_key=rsa), CUT),
    Attack("by no key", signature(public_key="-----BEGIN PUBLIC KEY-----"), CUT),
    Attack("by another algorithm", signature(algorithm="none"), r"signature\.json: format 1 by none"),
    Attack("of tomorrow's format", signature(format=2), r"signature\.json: format 2 by Ed25519"),
    Attack("with a truth for a number", signature(format=True), r"signature\.json: holds other fields"),
    Attack("with more in it", signature(also="trust me"), r"signature\.json: holds other fields"),
    Attack("that is a list", lambda f: (f / SIGNATURE).write_text("[]"), r"signature\.json: a list where"),
    Attack("that is empty", lambda f: (f / SIGNATURE).write_text(""), r"signature\.json: not JSON"),
    Attack(
        "file added under it", added, r"SHA256SUMS: rewritten since it was signed \(added: terms\.txt\)", keyed=True
    ),
    Attack(
        "view removed under it", removed, r"SHA256SUMS: rewritten since it was signed \(missing: dicom/.* and 1 more\)"
    ),
    Attack(
        "name changed under it",
        accepted_by_another,
        r"SHA256SUMS: rewritten since it was signed \(changed: README\.md, audit\.json, metadata\.json\)",
    ),
    Attack("lines in another order", reordered, r"SHA256SUMS: rewritten since it was signed \(the order"),
]
