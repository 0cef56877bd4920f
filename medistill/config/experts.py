"""Settings of the network and of EXPERTS."""

from dataclasses import dataclass, field
from typing import Literal

from medistill.config.rules import check_augment, require


@dataclass(frozen=True)
class Net:
    """The network that experts, distillation and evaluation share.

    Attributes:
        name: `convnet` (ConvNet-D of the field).
        width: channels of each block.
        depth: number of blocks; each halves the image.
    """

    name: Literal["convnet"] = "convnet"
    width: int = 32
    depth: int = 4

    def __post_init__(self) -> None:
        require(self.width >= 1, f"net.width is {self.width}; give at least 1")
        require(1 <= self.depth <= 7, f"net.depth is {self.depth}; give 1 to 7")


@dataclass(frozen=True)
class Experts:
    """EXPERTS: networks trained on the real films, whose parameters are kept epoch by epoch.

    Attributes:
        count: number of experts.
        epochs: passes over the training films.
        lr: SGD step size.
        momentum: SGD momentum (MTT: 0).
        batch: films a step.
        augment: differentiable augmentation operations; flip mirrors left and right, so it is off here.
    """

    count: int = 6
    epochs: int = 30
    lr: float = 0.01
    momentum: float = 0.0
    batch: int = 64
    augment: list[str] = field(default_factory=lambda: ["color", "crop", "cutout", "scale", "rotate"])

    def __post_init__(self) -> None:
        for name in ("count", "epochs", "batch"):
            require(getattr(self, name) >= 1, f"experts.{name} is {getattr(self, name)}; give at least 1")
        require(self.lr > 0, f"experts.lr is {self.lr}; give a positive step size")
        require(0 <= self.momentum < 1, f"experts.momentum is {self.momentum}; give 0 up to below 1")
        check_augment("experts.augment", self.augment)
