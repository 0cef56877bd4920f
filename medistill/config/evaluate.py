"""Settings of EVALUATE."""

from dataclasses import dataclass, field

from medistill.config.rules import check_augment, require


@dataclass(frozen=True)
class Evaluate:
    """EVALUATE: fresh networks trained on each set by one recipe, measured on the test films.

    Attributes:
        seeds: networks per set.
        steps: SGD steps of each.
        batch: images a step.
        lr: step size on real films; a distilled set brings its own.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        augment: augmentation while training.
        resamples: bootstrap resamples (by patient) of the intervals.
        baselines: also train on random real films of the same count and on all training films.
    """

    seeds: int = 5
    steps: int = 1000
    batch: int = 64
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: list[str] = field(default_factory=lambda: ["color", "crop", "cutout", "scale", "rotate"])
    resamples: int = 1000
    baselines: bool = True

    def __post_init__(self) -> None:
        for name in ("seeds", "steps", "batch", "resamples"):
            require(getattr(self, name) >= 1, f"evaluate.{name} is {getattr(self, name)}; give at least 1")
        require(self.lr > 0, f"evaluate.lr is {self.lr}; give a positive step size")
        require(0 <= self.momentum < 1, f"evaluate.momentum is {self.momentum}; give 0 up to below 1")
        require(self.weight_decay >= 0, f"evaluate.weight_decay is {self.weight_decay}; give 0 or more")
        check_augment("evaluate.augment", self.augment)
