"""Settings of `medistill train`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from medistill.config.net import parse_network
from medistill.config.rules import check_augment, require

NONE = ["none"]
"""What --augment is given for no augmentation at all."""


@dataclass(frozen=True)
class Train:
    """TRAIN: a classifier of films, fitted on a release and on nothing else.

    Attributes:
        folder: the release.
        arch: the network: convnet, resnet18, vgg11, alexnet, densenet121 or vit, as NAME or NAME:WIDTH; empty: the one
            the set was distilled on.
        pub: the public key of whom you expect the release from (NAME.pub), in a file; empty: no signature is asked for.
        seed: the base seed from which every random number descends.
        students: how many networks; `medistill predict` takes the mean of their probabilities.
        steps: SGD steps of each; 0: as the release evaluated itself, or 1000 where it does not say.
        batch: images a step; 0: likewise, or 64.
        lr: step size; 0: the set's own for the kind of network it was distilled on, else that of docs/using.md.
        augment: augmentation while training; empty: as the release evaluated itself; `none`: none.
        test: labelled films of your own to measure the network on: a CSV (path, label, patient_id) or a folder of class
            folders; of a table with a column split its test films alone.
        columns: our column name -> that of --test's CSV, where they differ.
        out: the folder to write; empty: model-<8 digits> here.
        workers: processes that decode films; 0: one a core.
        device: `auto` takes a GPU when there is one.
        track: log to MLflow (SQLite here, or the server that MLFLOW_TRACKING_URI names).
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str
    arch: str = ""
    pub: str = ""
    seed: int = 0
    students: int = 1
    steps: int = 0
    batch: int = 0
    lr: float = 0.0
    augment: list[str] = field(default_factory=list)
    test: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    out: str = ""
    workers: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    track: bool = True

    def __post_init__(self) -> None:
        require(1 <= self.students <= 100, f"--students is {self.students}; give 1 to 100")
        for name in ("seed", "steps", "batch", "lr", "workers"):
            require(getattr(self, name) >= 0, f"--{name} is {getattr(self, name)}; give 0 or more")
        require(self.lr < float("inf"), f"--lr is {self.lr}; give a step size")
        if self.augment != NONE:
            check_augment("--augment", self.augment)
        if self.arch:
            parse_network("--arch", self.arch)
        require(bool(self.test) or not self.columns, "--columns names columns of the table of --test; give that too")
