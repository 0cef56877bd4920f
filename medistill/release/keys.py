"""Ed25519 keys in PEM files: made, read and told apart by a fingerprint that two people can compare by voice."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from medistill.errors import UserError
from medistill.foreign import shown

PASSWORD = "MEDISTILL_KEY_PASSWORD"
LARGEST = 16 << 10


def fingerprint(key: Ed25519PublicKey) -> str:
    """The SHA-256 of the 32 raw bytes of a public key, in sixteen groups of four hexadecimal digits."""
    digest = hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()
    return " ".join(digest[start : start + 4] for start in range(0, len(digest), 4))


def public_pem(key: Ed25519PublicKey) -> str:
    """A public key as PEM text (SubjectPublicKeyInfo, RFC 8410)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def make_keys(name: Path) -> Ed25519PublicKey:
    """Write NAME.key (PKCS8, for its owner's eyes alone) and NAME.pub; return the public key.

    The private key is encrypted where MEDISTILL_KEY_PASSWORD holds a password.

    Both files stand in the end, or neither does.

    Raises:
        UserError: one of the files exists: a key is never overwritten.
    """
    private, public = (name.with_name(f"{name.name}.{kind}") for kind in ("key", "pub"))
    for path in (private, public):
        if os.path.lexists(path):
            raise UserError(f"{shown(path)}: exists, and a key is never overwritten; choose another name")
    key = Ed25519PrivateKey.generate()
    password = os.environ.get(PASSWORD, "").encode()
    lock: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    private.parent.mkdir(parents=True, exist_ok=True)
    # a killed process may leave the first one: a public key that nobody can sign with does no harm
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    with _new(public, public_pem(key.public_key()).encode(), 0o644), _new(private, secret, 0o600):
        return key.public_key()


@contextmanager
def _new(path: Path, data: bytes, mode: int) -> Iterator[None]:
    """Write a file that must not exist, with these rights from its first moment; it goes if the block fails."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield
    except BaseException:
        path.unlink()
        raise


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file that its owner alone can read; PKCS8, as `medistill keygen` and openssl write it.

    Raises:
        UserError: it is missing, readable by others, locked without its password, or no Ed25519 key.
    """
    data = _read(path, secret=True)
    if b"PUBLIC KEY" in data:
        raise UserError(f"{shown(path)}: a public key, which cannot sign; give the private key (NAME.key)")
    locked = b"ENCRYPTED" in data
    password = os.environ.get(PASSWORD, "").encode()
    if locked and not password:
        raise UserError(f"{shown(path)}: locked by a password; set the environment variable {PASSWORD} to it")
    try:
        key = load_pem_private_key(data, password if locked else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        why = f"does not open with the password in {PASSWORD}" if locked else "holds no private key in PEM"
        raise UserError(f"{shown(path)}: {why}; give a key that `medistill keygen` made") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{shown(path)}: another kind of key than Ed25519; make one by `medistill keygen`")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The public key of a PEM file.

    Raises:
        UserError: it is missing or no Ed25519 public key.
    """
    data = _read(path)
    if b"PRIVATE KEY" in data:
        raise UserError(f"{shown(path)}: a private key; give the public one (NAME.pub) and show this one to nobody")
    return parse_public_key(shown(path), data)


def parse_public_key(where: str, data: bytes) -> Ed25519PublicKey:
    """The public key of a PEM text; `where` names it in the UserError for anything else."""
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{where}: holds no public key in PEM; give the NAME.pub that `medistill keygen` made"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"{where}: another kind of key than Ed25519; ask for a key that `medistill keygen` made")
    return key


def _read(path: Path, secret: bool = False) -> bytes:
    """The bytes of a key's file; a secret one must be closed to all but its owner."""
    # a pipe must not hang the reader
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode) or seen.st_size > LARGEST:
                raise UserError(f"{shown(path)}: no key's file; give one that `medistill keygen` made")
            data = file.read(LARGEST)
            if secret and b"PRIVATE" in data and os.name == "posix" and seen.st_mode & 0o077:
                raise UserError(
                    f"{shown(path)}: a private key that others can read; close it by `chmod 600`, and make a new key "
                    "if somebody may have read it"
                )
            return data
    except OSError as error:
        raise UserError(
            f"{shown(path)}: cannot be read ({error.strerror}); give the file of a key, see `medistill keygen --help`"
        ) from error
