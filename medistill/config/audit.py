"""Settings of AUDIT."""

from dataclasses import dataclass

from medistill.config.rules import require


@dataclass(frozen=True)
class Audit:
    """AUDIT: what the distilled set tells about patients.

    Attributes:
        quick: run only the checks that take seconds (0, 1, 2, 3, 8, 9, 10); the others are listed as not run, which
            somebody has to accept before a release.
        planted: copies of training films planted as the positive control.
        holdout: films of other patients the search is calibrated on, at most; 0: all of val and test.
    """

    quick: bool = False
    planted: int = 40
    holdout: int = 0

    def __post_init__(self) -> None:
        require(self.planted >= 10, f"audit.planted is {self.planted}; give at least 10")
        require(
            self.holdout == 0 or self.holdout >= 20,
            f"audit.holdout is {self.holdout}; give 0 (all) or at least 20: fewer cannot tell a copy from chance",
        )
