"""Settings of `medistill keygen`."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Keygen:
    """KEYGEN: a pair of keys; locked by the password in MEDISTILL_KEY_PASSWORD where that is set.

    Attributes:
        name: path without ending; NAME.key is the private key, which stays secret, NAME.pub the one to publish.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name",)

    name: str
