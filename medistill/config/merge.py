"""Settings of `medistill merge`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from medistill.config.rules import require


@dataclass(frozen=True)
class Merge:
    """MERGE: releases of several hospitals as one.

    Attributes:
        folders: the releases, two or more.
        out: the folder to write; empty: merged-<8 digits> here.
        pub: files of public keys (NAME.pub): every release must bear the signature of one of them; empty: no
            signature is asked for.
        classes: `same`: all releases name the same classes, in whichever order; `union`: a release may lack classes,
            whose probability is then 0 for its images.
        disjoint: `name: reason` of the person who answers for it that no patient is in two of the releases, which no
            release can show; privacy budgets are then not added up. Stored in the merged release.
        key: file of the private key to sign the merged release with; empty: it is not signed.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("folders",)

    folders: list[str]
    out: str = ""
    pub: list[str] = field(default_factory=list)
    classes: Literal["same", "union"] = "same"
    disjoint: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        require(len(self.folders) > 1, f"folders: {len(self.folders)} release; give two or more to merge")
