"""Settings of SeqMatch."""

from dataclasses import dataclass

from medistill.config.rules import require


@dataclass(frozen=True)
class SeqMatch:
    """SeqMatch (Du et al., NeurIPS 2023): subsets of the images are distilled one after another.

    Attributes:
        subsets: how many; distill.ipc is shared out among them, the first ones get one more.
    """

    subsets: int = 2

    def __post_init__(self) -> None:
        require(self.subsets >= 1, f"distill.seqmatch.subsets is {self.subsets}; give at least 1")
