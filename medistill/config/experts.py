"""Settings of EXPERTS."""

from dataclasses import asdict, dataclass, field
from typing import Any

from medistill.config.rules import check_augment, require


@dataclass(frozen=True)
class Private:
    """The DP mode: experts trained by DP-SGD, so that what is distilled from them has a guarantee a patient.

    Attributes:
        epsilon: the guarantee's epsilon, over all experts and class means together; 0: no guarantee, plain training.
        delta: its delta, at most 1 / (10 patients); 0: just that.
        patients: a public number of training patients, at least as many as there are; it scales the steps and delta.
            0: their very number, which is then taken for public.
        clip: the norm to which each patient's gradient is clipped.
        rate: the chance of each patient to take part in a step; 1: all do.
        steps: steps of each expert.
        rows: rows of its trajectory, each after the same number of steps; here they take the place of epochs.
        reserve: steps of all experts together that an aborted run may repeat; the noise is made for them beforehand.
        class_weights: weight of each class in the loss, in the order of data.classes, from public numbers; empty: 1.
        means: share of the budget (of the squared signal to noise) that noisy class means may take, for distill.start
            private_means; 0: none are drawn.
    """

    epsilon: float = 0.0
    delta: float = 0.0
    patients: int = 0
    clip: float = 1.0
    rate: float = 1.0
    steps: int = 30
    rows: int = 30
    reserve: int = 10
    class_weights: list[float] = field(default_factory=list)
    means: float = 0.0

    @property
    def on(self) -> bool:
        """Whether the run is in DP mode."""
        return self.epsilon > 0

    def __post_init__(self) -> None:
        name = "experts.private"
        for field_name in ("epsilon", "patients", "reserve"):
            value = getattr(self, field_name)
            require(value >= 0, f"{name}.{field_name} is {value}; give 0 or more")
        require(0 <= self.delta < 1, f"{name}.delta is {self.delta}; give 0 (1 / (10 patients)) up to below 1")
        require(self.clip > 0, f"{name}.clip is {self.clip}; give a positive norm")
        require(0 < self.rate <= 1, f"{name}.rate is {self.rate}; give a chance above 0, up to 1")
        require(self.rows >= 1, f"{name}.rows is {self.rows}; give at least 1")
        require(
            self.steps >= 1 and self.steps % self.rows == 0,
            f"{name}.steps is {self.steps}, no multiple of {name}.rows {self.rows}; give one",
        )
        require(
            all(w > 0 for w in self.class_weights),
            f"{name}.class_weights {self.class_weights} must be positive; give numbers above 0",
        )
        require(0 <= self.means < 1, f"{name}.means is {self.means}; give a share of 0 up to below 1")


@dataclass(frozen=True)
class Flat:
    """Flat trajectories (FTD, Du et al., CVPR 2023): each step looks at how the loss grows around the parameters.

    Attributes:
        rho: how far it looks, a distance in the parameters (FTD: 0.01); 0: plain SGD. A step costs two gradients.
        alpha: weight of the part of the gradient that makes the surroundings flatter without raising the loss there.
    """

    rho: float = 0.0
    alpha: float = 0.3

    @property
    def on(self) -> bool:
        """Whether anything differs from plain SGD."""
        return self.rho > 0

    def __post_init__(self) -> None:
        require(self.rho >= 0, f"experts.flat.rho is {self.rho}; give 0 or more")
        require(self.alpha >= 0, f"experts.flat.alpha is {self.alpha}; give 0 or more")


@dataclass(frozen=True)
class Experts:
    """EXPERTS: networks trained on the real films, whose parameters are kept epoch by epoch.

    Attributes:
        count: number of experts.
        epochs: passes over the training films; not used by private experts, who have steps and rows.
        lr: SGD step size.
        momentum: SGD momentum (MTT: 0).
        batch: films a step; of private experts only how many are worked at once.
        augment: differentiable augmentation operations; flip mirrors left and right, so it is off here.
        flat: flat trajectories, off by default.
        private: the DP mode.
    """

    count: int = 6
    epochs: int = 30
    lr: float = 0.01
    momentum: float = 0.0
    batch: int = 64
    augment: list[str] = field(default_factory=lambda: ["color", "crop", "cutout", "scale", "rotate"])
    flat: Flat = field(default_factory=Flat)
    private: Private = field(default_factory=Private)

    @property
    def rows(self) -> int:
        """T, the last row of a trajectory."""
        return self.private.rows if self.private.on else self.epochs

    def decides(self) -> dict[str, Any]:
        """The settings that decide every plain expert: neither their number, nor what is off."""
        every = asdict(self)
        if not self.flat.on:
            del every["flat"]
        del every["private"]
        return every | {"count": 1}

    def decides_private(self) -> dict[str, Any]:
        """The settings that decide experts in DP mode: their number too, on which the noise depends."""
        every = asdict(self)
        del every["flat"]
        return every

    def __post_init__(self) -> None:
        for name in ("count", "epochs", "batch"):
            require(getattr(self, name) >= 1, f"experts.{name} is {getattr(self, name)}; give at least 1")
        require(self.lr > 0, f"experts.lr is {self.lr}; give a positive step size")
        require(0 <= self.momentum < 1, f"experts.momentum is {self.momentum}; give 0 up to below 1")
        check_augment("experts.augment", self.augment)
        require(
            not self.private.on or self.momentum == 0,
            f"experts.momentum is {self.momentum}, but private experts take plain steps, whose noise is known; "
            "momentum would carry it from one step into the next: set it to 0",
        )
        require(
            not (self.private.on and self.flat.on),
            f"experts.flat.rho is {self.flat.rho}, but private experts take noisy steps along one clipped gradient, "
            "which is all that their privacy budget pays for; set it to 0",
        )
