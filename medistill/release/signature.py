"""signature.json: an Ed25519 signature over the text of SHA256SUMS, which it repeats.

Because it repeats the text, a rewritten SHA256SUMS is not only noticed: what was changed to need it is named.
"""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from medistill.errors import ReleaseError, UserError
from medistill.files import write_json
from medistill.foreign import shown
from medistill.release.keys import fingerprint, parse_public_key, public_pem
from medistill.release.manifest import AGAIN, CARD, IMAGES, SIGNATURE, SUMS, Manifest, files_of, parse_sums, read_plain
from medistill.release.parse import parse_object

FORMAT = 1
ALGORITHM = "Ed25519"

# What stands before the signed text, so that no signature made for something else can be taken for a release's.
PREFIX = b"medistill release 1\n"

FIELDS = {"format": int, "algorithm": str, "fingerprint": str, "public_key": str, "signed": str, "signature": str}


@dataclass(frozen=True)
class Signature:
    """A signature that fits its own text and key; whose key it is, is another question.

    Attributes:
        key: who signed.
        signed: the text of SHA256SUMS as it was then.
    """

    key: Ed25519PublicKey
    signed: bytes

    @property
    def fingerprint(self) -> str:
        """Of the key."""
        return fingerprint(self.key)


def sign(sums: bytes, key: Ed25519PrivateKey) -> dict[str, Any]:
    """What stands in signature.json; the same bytes every time, for Ed25519 draws no random number (RFC 8032)."""
    public = key.public_key()
    return {
        "format": FORMAT,
        "algorithm": ALGORITHM,
        "fingerprint": fingerprint(public),
        "public_key": public_pem(public),
        "signed": sums.decode(),
        "signature": base64.b64encode(key.sign(PREFIX + sums)).decode(),
    }


def write_signature(folder: Path, key: Ed25519PrivateKey) -> None:
    """Sign the SHA256SUMS of a folder; one that is signed by this key already is left as it is.

    The caller knows that the folder is what it shall be: nothing is verified here.

    Raises:
        UserError: it bears another key's signature.
        ReleaseError: it bears a signature that does not fit it.
    """
    found = files_of(folder)
    sums = read_plain(folder, SUMS, found[SUMS])
    if SIGNATURE in found:
        there = parse_signature(read_plain(folder, SIGNATURE, found[SIGNATURE]))
        if there.fingerprint != fingerprint(key.public_key()):
            raise UserError(
                f"release.key: {shown(folder)} is signed already by another key ({there.fingerprint}); "
                "sign by that key, or move the folder away and release again"
            )
        if there.signed == sums:
            return
        raise ReleaseError(
            f"{SIGNATURE}: signs another {SUMS} than the folder's; move the folder away and release again"
        )
    write_json(folder / SIGNATURE, sign(sums, key))


def parse_signature(data: bytes) -> Signature:
    """The signature of a file, verified against the text and the key that stand beside it."""
    value = parse_object(SIGNATURE, data)
    if set(value) != set(FIELDS) or any(type(value[name]) is not kind for name, kind in FIELDS.items()):
        raise ReleaseError(f"{SIGNATURE}: holds other fields than {', '.join(FIELDS)}; {AGAIN}")
    if (value["format"], value["algorithm"]) != (FORMAT, ALGORITHM):
        found = shown(f"{value['format']} by {value['algorithm']}", 60)
        raise ReleaseError(f"{SIGNATURE}: format {found}, this version reads {FORMAT} by {ALGORITHM}; update medistill")
    try:
        key = parse_public_key(SIGNATURE, value["public_key"].encode())
        signed, raw = value["signed"].encode(), base64.b64decode(value["signature"], validate=True)
    except (UserError, UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise ReleaseError(f"{SIGNATURE}: its key, text or signature cannot be read; {AGAIN}") from error
    written = (public_pem(key), base64.b64encode(raw).decode())
    if (value["public_key"], value["signature"]) != written:
        raise ReleaseError(f"{SIGNATURE}: its key or signature is spelled as no release spells it; {AGAIN}")
    if value["fingerprint"] != fingerprint(key):
        raise ReleaseError(f"{SIGNATURE}: the fingerprint in it is not that of the key in it; {AGAIN}")
    try:
        key.verify(raw, PREFIX + signed)
    except InvalidSignature as error:
        raise ReleaseError(f"{SIGNATURE}: the signature does not fit the text that it signs; {AGAIN}") from error
    return Signature(key, signed)


def check_signature(manifest: Manifest, pub: Ed25519PublicKey | None) -> Signature | None:
    """The signature of a release, None where nobody signed; it must be of this very release, and of `pub` if given.

    Raises:
        ReleaseError: unsigned though `pub` is given, of another key, of another release, or of other files.
    """
    if SIGNATURE not in manifest.found:
        if pub is not None:
            raise ReleaseError(f"{SIGNATURE}: missing, so nobody signed this release; ask its source for a signed one")
        return None
    signature = parse_signature(read_plain(manifest.folder, SIGNATURE, manifest.found[SIGNATURE]))
    if pub is not None and signature.fingerprint != fingerprint(pub):
        raise ReleaseError(
            f"{SIGNATURE}: signed by another key ({signature.fingerprint}) than the one you gave "
            f"({fingerprint(pub)}); ask the source which key is theirs"
        )
    if signature.signed != manifest.text:
        raise ReleaseError(_other_text(parse_sums(signature.signed), manifest.listed))
    return signature


def _other_text(signed: dict[str, str], listed: dict[str, str]) -> str:
    """A sentence on a SHA256SUMS that is not the one that was signed."""
    changed = [name for name in signed if listed.get(name, signed[name]) != signed[name]]
    missing = [name for name in signed if name not in listed]
    added = [name for name in listed if name not in signed]
    told = [
        f"{what}: {', '.join(map(shown, names[:5]))}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in (("changed", changed), ("missing", missing), ("added", added))
        if names
    ]
    found = "; ".join(told) or "the order of its lines"
    # whose images and card both differ is told as another release; the files are named all the same
    if IMAGES in changed and CARD in changed:
        return f"{SIGNATURE}: the signature of another release, not of this one ({found}); {AGAIN}"
    return f"{SUMS}: rewritten since it was signed ({found}); {AGAIN}"
