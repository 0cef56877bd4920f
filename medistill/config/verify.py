"""Settings of `medistill verify`."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Verify:
    """VERIFY: is a release what its signatory shared?

    Attributes:
        folder: the release.
        pub: file of the public key that must have signed it (NAME.pub, as its owner published it); empty: files, audit
            and views are checked, but not whose signature the release bears.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str
    pub: str = ""
