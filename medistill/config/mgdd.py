"""Settings of MGDD."""

from dataclasses import dataclass, field

from medistill.config.rules import require


@dataclass(frozen=True)
class Mgdd:
    """MGDD (Liu and Wang, NeurIPS 2023): a meta-trained generator that a few steps adapt to a data set.

    Attributes:
        meta: steps of Reptile on tasks made of the training films, before the adaptation; 0: none.
        inner: steps on each of these tasks.
        meta_lr: share of the way to a task's generator that a step of Reptile goes.
        adapt: steps that adapt the generator to the films; 0: none, for a generator that is adapted already.
        lr: step size of Adam, on the tasks and while adapting.
        batch: real films a step, shared out evenly among the classes.
        ipcs: images per class of a step, one drawn for each; empty: distill.ipc. The generator makes any number.
        width: channels of the generator's first layer.
        features: width of the random networks whose features are regressed on; 0: net.width.
        ridge: the ridge, as a share of the mean square of a synthetic image's features.
        maps: random networks over which the labels of the set are averaged.
        lr_student: step size that is handed on to students.
        generator: learned.safetensors of an earlier run, of any data set of as many channels, to start from; empty: a
            fresh generator.
    """

    meta: int = 0
    inner: int = 5
    meta_lr: float = 0.5
    adapt: int = 200
    lr: float = 0.003
    batch: int = 256
    ipcs: list[int] = field(default_factory=list)
    width: int = 16
    features: int = 0
    ridge: float = 1e-6
    maps: int = 8
    lr_student: float = 0.01
    generator: str = ""

    def __post_init__(self) -> None:
        for name in ("inner", "batch", "width", "maps"):
            require(getattr(self, name) >= 1, f"distill.mgdd.{name} is {getattr(self, name)}; give at least 1")
        for name in ("lr", "lr_student"):
            require(getattr(self, name) > 0, f"distill.mgdd.{name} is {getattr(self, name)}; give a positive number")
        for name in ("meta", "adapt", "features", "ridge"):
            require(getattr(self, name) >= 0, f"distill.mgdd.{name} is {getattr(self, name)}; give 0 or more")
        require(0 < self.meta_lr <= 1, f"distill.mgdd.meta_lr is {self.meta_lr}; give a share above 0 up to 1")
        require(
            all(ipc >= 1 for ipc in self.ipcs), f"distill.mgdd.ipcs is {self.ipcs}; give numbers of at least 1, or none"
        )
        require(
            self.adapt > 0 or self.meta > 0 or bool(self.generator),
            "distill.mgdd.adapt and distill.mgdd.meta are 0, so nothing is learned; give one of them steps, or name an "
            "adapted generator in distill.mgdd.generator",
        )
