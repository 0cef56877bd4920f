"""Settings of DWA."""

from dataclasses import dataclass

from medistill.config.net import parse_network
from medistill.config.rules import require

TEACHERS = ("convnet", "resnet18")


@dataclass(frozen=True)
class Dwa:
    """DWA (Du et al., NeurIPS 2024): squeeze the films into a teacher, recover images from it, relabel them.

    The defaults of the recovery are those published for CIFAR.

    Attributes:
        teacher: network with batch norms that learns the films: `convnet` or `resnet18` (published), NAME:WIDTH for
            another width than that of `net`, or than the published one where `net` is another network.
        teacher_epochs: its passes over the training films; each counts as an iteration. Published: 200 on CIFAR.
        teacher_batch: films a step of it.
        teacher_lr: its step size (SGD with momentum), which falls to 0 along a cosine.
        iterations: steps on the pixels of each image.
        lr: step size on the pixels (Adam), which falls to 0 along a cosine.
        rho: how far the teacher's parameters are moved, at most, before images are recovered from it; 0: not at all.
        steps: steps of that way.
        r_bn: weight of the distance between batch-norm statistics, beside the cross entropy.
        r_var: weight of variances in that distance, beside the means.
        temperature: of the teacher's softmax that labels the images; 1: its probabilities.
        lr_students: step size that students of the set train with.
    """

    teacher: str = "convnet"
    teacher_epochs: int = 30
    teacher_batch: int = 128
    teacher_lr: float = 0.1
    iterations: int = 1000
    lr: float = 0.25
    rho: float = 0.015
    steps: int = 12
    r_bn: float = 0.01
    r_var: float = 11.0
    temperature: float = 1.0
    lr_students: float = 0.01

    def __post_init__(self) -> None:
        name, _ = parse_network("distill.dwa.teacher", self.teacher)
        require(
            name in TEACHERS,
            f"distill.dwa.teacher is {name}, whose batch norms are not known; give {' or '.join(TEACHERS)}",
        )
        for setting in ("teacher_epochs", "teacher_batch", "iterations", "steps"):
            value = getattr(self, setting)
            require(value >= 1, f"distill.dwa.{setting} is {value}; give at least 1")
        for setting in ("teacher_lr", "lr", "temperature", "lr_students"):
            value = getattr(self, setting)
            require(value > 0, f"distill.dwa.{setting} is {value}; give a positive number")
        for setting in ("rho", "r_bn", "r_var"):
            value = getattr(self, setting)
            require(value >= 0, f"distill.dwa.{setting} is {value}; give 0 or more")
