"""Settings of AUDIT."""

from dataclasses import dataclass, field

from medistill.config.rules import require


@dataclass(frozen=True)
class Shadows:
    """The shadow distillations that membership inference (checks 5 and 6) is calibrated on.

    Attributes:
        count: distillations, an even number: each takes half of all patients, the next one the other half.
        experts: experts of each.
        epochs: passes of each expert over its films; 0: as the run's experts.
        iterations: iterations of each distillation; 0: as the run's.
        students: networks trained on each distilled set, whose answers are averaged.
    """

    count: int = 16
    experts: int = 2
    epochs: int = 0
    iterations: int = 0
    students: int = 4

    def __post_init__(self) -> None:
        require(
            self.count >= 16 and self.count % 2 == 0,
            f"audit.shadows.count is {self.count}; give an even number from 16 on",
        )
        for name in ("experts", "students"):
            require(getattr(self, name) >= 1, f"audit.shadows.{name} is {getattr(self, name)}; give at least 1")
        for name in ("epochs", "iterations"):
            value = getattr(self, name)
            require(value >= 0, f"audit.shadows.{name} is {value}; give 0 (as the run) or more")


@dataclass(frozen=True)
class Reidentification:
    """The network that recognises patients (check 4).

    Attributes:
        steps: batches it is trained on, about 130 films each; four minutes of one core.
    """

    steps: int = 800

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"audit.reidentification.steps is {self.steps}; give at least 1")


@dataclass(frozen=True)
class Audit:
    """AUDIT: what the distilled set tells about patients.

    Attributes:
        quick: run only the checks that take seconds (0, 1, 2, 3, 8, 9, 10); the others are listed as not run, which
            somebody has to accept before a release.
        planted: copies of training films planted as the positive control.
        holdout: films of other patients the search is calibrated on, at most; 0: all of val and test.
        shadows: shadow distillations.
        reidentification: the network that recognises patients.
    """

    quick: bool = False
    planted: int = 40
    holdout: int = 0
    shadows: Shadows = field(default_factory=Shadows)
    reidentification: Reidentification = field(default_factory=Reidentification)

    def __post_init__(self) -> None:
        require(self.planted >= 10, f"audit.planted is {self.planted}; give at least 10")
        require(
            self.holdout == 0 or self.holdout >= 20,
            f"audit.holdout is {self.holdout}; give 0 (all) or at least 20: fewer cannot tell a copy from chance",
        )
