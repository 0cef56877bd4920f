"""KEYGEN: a pair of keys to sign releases with."""

from collections.abc import Callable
from pathlib import Path

from medistill.config.keygen import Keygen
from medistill.release.keys import fingerprint, make_keys


def keygen(settings: Keygen, say: Callable[[str], None]) -> None:
    """`medistill keygen`: write NAME.key and NAME.pub, and tell the fingerprint."""
    key = make_keys(Path(settings.name))
    name = Path(settings.name).name
    say(f"{name}.key: the private key; it signs, so it stays in the house, readable by its owner alone")
    say(f"{name}.pub: the public key; publish it with its fingerprint where others find it without the release")
    say(f"fingerprint: {fingerprint(key)}")
