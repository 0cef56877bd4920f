"""Keys and signatures, against openssl's own."""

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medistill.errors import ReleaseError, UserError
from medistill.release.keys import fingerprint, make_keys, read_private_key, read_public_key
from medistill.release.signature import PREFIX, parse_signature, sign, write_signature

SUMS = f"{'0' * 64}  a.txt\n{'1' * 64}  b \u00e4.txt\n".encode()


def openssl(*words: object) -> bytes:
    """What openssl prints; the test is skipped where there is none."""
    try:
        return subprocess.run(["openssl", *map(str, words)], capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no openssl here")


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDISTILL_KEY_PASSWORD", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    make_keys(tmp_path / "our")
    return read_private_key(tmp_path / "our.key")


def test_openssl_verifies_what_we_sign(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    value = sign(SUMS, key)
    (tmp_path / "message").write_bytes(PREFIX + SUMS)
    (tmp_path / "raw").write_bytes(base64.b64decode(value["signature"]))
    (tmp_path / "inside.pub").write_text(value["public_key"])
    for pub in ("our.pub", "inside.pub"):
        words = ["-verify", "-pubin", "-inkey", tmp_path / pub, "-rawin", "-in", tmp_path / "message"]
        assert b"Verified Successfully" in openssl("pkeyutl", *words, "-sigfile", tmp_path / "raw")
    assert value["signed"].encode() == SUMS and value == sign(SUMS, key)


def test_we_verify_what_openssl_signs(tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "ed25519", "-out", tmp_path / "their.key")
    (tmp_path / "their.key").chmod(0o600)
    openssl("pkey", "-in", tmp_path / "their.key", "-pubout", "-out", tmp_path / "their.pub")
    (tmp_path / "message").write_bytes(PREFIX + SUMS)
    words = ["-sign", "-inkey", tmp_path / "their.key", "-rawin", "-in", tmp_path / "message"]
    raw = openssl("pkeyutl", *words)
    key = read_private_key(tmp_path / "their.key")
    value = sign(SUMS, key)
    assert base64.b64decode(value["signature"]) == raw
    assert parse_signature(json.dumps(value).encode()).signed == SUMS
    assert fingerprint(read_public_key(tmp_path / "their.pub")) == value["fingerprint"]


def test_the_fingerprint_is_of_the_raw_key(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    der = openssl("pkey", "-pubin", "-in", tmp_path / "our.pub", "-outform", "DER")
    groups = fingerprint(key.public_key()).split(" ")
    assert [len(group) for group in groups] == [4] * 16
    assert "".join(groups) == hashlib.sha256(der[-32:]).hexdigest()


def test_keys_are_closed_and_never_overwritten(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "new" / "our")
    private, public = tmp_path / "new" / "our.key", tmp_path / "new" / "our.pub"
    assert private.stat().st_mode & 0o777 == 0o600
    assert fingerprint(read_public_key(public)) == fingerprint(made)
    assert fingerprint(read_private_key(private).public_key()) == fingerprint(made)
    before = private.read_bytes()
    private.rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"our\.pub: exists, and a key is never overwritten"):
        make_keys(tmp_path / "new" / "our")
    assert not private.exists()
    (tmp_path / "kept").rename(private)
    public.unlink()
    with pytest.raises(UserError, match=r"our\.key: exists"):
        make_keys(tmp_path / "new" / "our")
    assert private.read_bytes() == before and not public.exists()


@pytest.mark.parametrize("room", [0, 50, 113, 118])
def test_on_a_full_disk_there_are_both_keys_or_none(tmp_path: Path, room: int) -> None:
    """The public key's file has 113 bytes, the private one's 119; a limit on files stands in for the disk's."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            make_keys(tmp_path / "our")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    made = make_keys(tmp_path / "our")
    assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [119, 113]
    assert fingerprint(read_private_key(tmp_path / "our.key").public_key()) == fingerprint(made)


def test_a_key_that_appears_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our.key").write_text("another's")
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(FileExistsError):
        make_keys(tmp_path / "our")
    assert [path.name for path in tmp_path.iterdir()] == ["our.key"]
    assert (tmp_path / "our.key").read_text() == "another's"


def respelled(text: str) -> str:
    """The same 64 bytes in base64: the last digit before the padding has four bits that mean nothing."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = f"{text[:-3]}{digits[digits.index(text[-3]) + 1]}=="
    assert base64.b64decode(other, validate=True) == base64.b64decode(text)
    return other


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("public_key", lambda text: f"the key of a person who never signed\n{text}"),
        ("public_key", lambda text: f"{text}\n"),
        ("public_key", lambda text: text.replace("\n", "\r\n")),
        ("signature", respelled),
    ],
    ids=["before", "behind", "line-ends", "bits"],
)
def test_a_signature_has_one_spelling(key: Ed25519PrivateKey, field: str, change: Callable[[str], str]) -> None:
    value = sign(SUMS, key)
    assert parse_signature(json.dumps(value).encode()).signed == SUMS
    value[field] = change(value[field])
    with pytest.raises(ReleaseError, match=r"signature\.json: its key or signature is spelled as no release spells"):
        parse_signature(json.dumps(value).encode())


def test_two_keys_are_not_the_same(tmp_path: Path) -> None:
    assert fingerprint(make_keys(tmp_path / "a")) != fingerprint(make_keys(tmp_path / "b"))


def test_a_locked_key_asks_for_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDISTILL_KEY_PASSWORD", "right")
    made = make_keys(tmp_path / "our")
    assert b"ENCRYPTED" in (tmp_path / "our.key").read_bytes()
    openssl("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:right", "-out", tmp_path / "their.key")
    (tmp_path / "their.key").chmod(0o600)
    assert fingerprint(read_private_key(tmp_path / "our.key").public_key()) == fingerprint(made)
    assert isinstance(read_private_key(tmp_path / "their.key"), Ed25519PrivateKey)
    monkeypatch.setenv("MEDISTILL_KEY_PASSWORD", "wrong")
    with pytest.raises(UserError, match=r"our\.key: does not open with the password in MEDISTILL_KEY_PASSWORD"):
        read_private_key(tmp_path / "our.key")
    monkeypatch.delenv("MEDISTILL_KEY_PASSWORD")
    with pytest.raises(UserError, match=r"our\.key: locked by a password; set the environment variable MEDISTILL_KEY"):
        read_private_key(tmp_path / "our.key")


def test_a_password_is_not_asked_of_an_open_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_keys(tmp_path / "our")
    monkeypatch.setenv("MEDISTILL_KEY_PASSWORD", "of another key")
    assert fingerprint(read_private_key(tmp_path / "our.key").public_key()) == fingerprint(made)


def test_each_wrong_key_has_its_sentence(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    for name, algorithm in (("rsa", "RSA"), ("x25519", "X25519")):
        openssl("genpkey", "-algorithm", algorithm, "-out", tmp_path / f"{name}.key")
        (tmp_path / f"{name}.key").chmod(0o600)
        openssl("pkey", "-in", tmp_path / f"{name}.key", "-pubout", "-out", tmp_path / f"{name}.pub")
        with pytest.raises(UserError, match=rf"{name}\.key: another kind of key than Ed25519"):
            read_private_key(tmp_path / f"{name}.key")
        with pytest.raises(UserError, match=rf"{name}\.pub: another kind of key than Ed25519"):
            read_public_key(tmp_path / f"{name}.pub")
    (tmp_path / "text").write_text("ssh-ed25519 AAAA")
    (tmp_path / "large").write_bytes(bytes(20_000))
    os.mkfifo(tmp_path / "pipe")
    for read in (read_private_key, read_public_key):
        for name, told in (("text", "holds no"), ("large", "no key"), ("pipe", "no key"), ("none", "cannot be read")):
            with pytest.raises(UserError, match=f"{name}: {told}"):
                read(tmp_path / name)
        with pytest.raises(UserError, match=r"cannot be read|no key's file"):
            read(tmp_path)
    with pytest.raises(UserError, match=r"our\.pub: a public key, which cannot sign"):
        read_private_key(tmp_path / "our.pub")
    with pytest.raises(UserError, match=r"our\.key: a private key; give the public one"):
        read_public_key(tmp_path / "our.key")
    for rights in (0o640, 0o604, 0o644):
        (tmp_path / "our.key").chmod(rights)
        with pytest.raises(UserError, match=r"our\.key: a private key that others can read; close it by `chmod 600`"):
            read_private_key(tmp_path / "our.key")


def test_a_folder_is_signed_once(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "SHA256SUMS").write_bytes(SUMS)
    write_signature(folder, key)
    first = (folder / "signature.json").read_bytes()
    write_signature(folder, key)
    assert (folder / "signature.json").read_bytes() == first and len(list(folder.iterdir())) == 2
    with pytest.raises(UserError, match=rf"signed already by another key \({fingerprint(key.public_key())}\)") as told:
        write_signature(folder, Ed25519PrivateKey.generate())
    assert told.value.code == 2
    (folder / "SHA256SUMS").write_bytes(SUMS[:-1] + b"x\n")
    with pytest.raises(ReleaseError, match=r"signature\.json: signs another SHA256SUMS"):
        write_signature(folder, key)
    assert (folder / "signature.json").read_bytes() == first
