"""Sets that leak and sets that do not, drawn from phantom films."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit.check import Candidate, Private
from medistill.audit.nearest import planted_copies
from medistill.audit.text import planted_words
from medistill.config import Audit, Config, Distill, Evaluate, Experts
from medistill.data import phantom
from medistill.data.imageset import ImageSet
from medistill.distill.distilled import Distilled
from medistill.distill.iadd import distill, kernels_for, result
from medistill.distill.initial import noise
from medistill.distill.state import State
from medistill.experts.train import train_experts
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.nets import Architecture
from medistill.seeds import generator

SIDE, IPC = 48, 2
MEAN, STD = (0.5,), (0.25,)
NET = Architecture("convnet", 1, 3, SIDE, 8, 2)


@dataclass(frozen=True)
class ControlSet:
    """A set to audit.

    Attributes:
        pictures: (M, 1, S, S).
        labels: (M,) their classes.
        start: as its record says.
        films: (M,) the training films it really started from, or None.
    """

    pictures: Tensor
    labels: Tensor
    start: str = "noise"
    films: Tensor | None = None

    def candidate(self) -> Candidate:
        """The set as it would be released."""
        labels = F.one_hot(self.labels, 3).float()
        record = {"start": self.start, "selected": "last iteration, fixed beforehand"}
        images = (self.pictures - MEAN[0]) / STD[0]
        return Candidate(Distilled(images, labels, 0.02, phantom.CLASSES, MEAN, STD, NET, provenance=record))

    def private(self) -> Private:
        """The house it came from."""
        train, holdout = cohort()
        config = Config(audit=Audit(quick=True, planted=20), evaluate=Evaluate(steps=20, seeds=1))
        return Private(train, holdout, config, start=self.films)


@cache
def cohort() -> tuple[ImageSet, ImageSet]:
    """120 training and 120 holdout patients, a film each."""
    images, labels = phantom.films(80, SIDE, 5)
    order = torch.randperm(len(images), generator=generator(5, "cohort"))
    patients = torch.arange(len(images))
    parts = []
    for split, rows in zip(("train", "test"), order.chunk(2), strict=True):
        made = ImageSet(images[rows], labels[rows], patients[rows], phantom.CLASSES, "control", split, MEAN, STD)
        parts.append(made)
    return parts[0], parts[1]


def drawn(place: str) -> torch.Generator:
    """The random numbers of one set."""
    return generator(5, "controls", place)


def random_films() -> Tensor:
    """(M,) training films, no two alike."""
    return torch.randperm(len(cohort()[0]), generator=drawn("films"))[: 3 * IPC]


def distilled(start: Tensor, labels: Tensor, lr_images: float) -> Tensor:
    """Pictures (M, 1, S, S) distilled from start pictures of classes (M,), by two short experts."""
    films = cohort()[0]
    experts = Experts(count=2, epochs=4, batch=16, lr=0.02)
    settings = Distill(iterations=15, inner_steps=5, max_start_epoch=3, lr_images=lr_images)
    with TemporaryDirectory() as folder:
        files = []
        for index, rows in train_experts(films.pixels(), films.labels, NET, experts, 5, range(2)):
            files.append(Path(folder) / f"expert_{index}.safetensors")
            save_trajectory(files[-1], rows, NET)
        trajectories = Trajectories.open(files)
        begun = State.begin((start - MEAN[0]) / STD[0], F.one_hot(labels, 3).float(), trajectories.size, settings)
        for _ in distill(kernels_for(trajectories, begun, settings), trajectories, begun, settings, 5):
            pass
    return result(begun, settings)[0] * STD[0] + MEAN[0]


def sets() -> dict[str, ControlSet]:
    """All control sets by name; what leaks says so."""
    train = cohort()[0]
    chosen = random_films()
    films, of_films = train.images[chosen], train.labels[chosen]
    second = train.images[torch.randperm(len(train), generator=drawn("second"))[: len(films)]]
    cropped, origin = planted_copies(train.images, 3 * IPC, drawn("cropped"))
    grey = noise(tuple(films.shape), 0.25, 0, drawn("noise"))
    smooth = noise(tuple(films.shape), 0.25, 2, drawn("smooth"))
    strangers, classes = phantom.films(IPC, SIDE, 99)
    many, of_many = phantom.films(10, SIDE, 97)
    public = phantom.films(20, SIDE, 98)[0].view(3, 20, 1, SIDE, SIDE).mean(1).repeat_interleave(IPC, 0)

    def started(pictures: Tensor) -> ControlSet:
        return ControlSet(pictures, of_films, "real", chosen)

    return {
        "leaky: copies": started(films),
        "leaky: copies said to be noise": ControlSet(films, of_films, "noise", chosen),
        "leaky: cropped, flipped, inverted copies": ControlSet(cropped, train.labels[origin], "real", origin),
        "leaky: real start, hardly moved": started(films + 0.05 * grey / 0.25),
        "leaky: real start, far moved": started(films + 0.2 * smooth / 0.25),
        "leaky: real start, distilled at a tiny step": started(distilled(films, of_films, lr_images=1.0)),
        "leaky: two films mixed, .7 and .3": started(0.7 * films + 0.3 * second),
        "leaky: means of two films": started((films + second) / 2),
        "leaky: one copy among five strangers": ControlSet(torch.cat([films[:1], strangers[1:]]), classes),
        "leaky: one copy among many strangers": ControlSet(torch.cat([films[:1], many[1:]]), of_many),
        "leaky: words": ControlSet(planted_words(strangers, drawn("words")), classes),
        "clean: phantoms of strangers": ControlSet(strangers, classes, "phantom"),
        "clean: noise": ControlSet(grey + 0.5, classes),
        "clean: noise, distilled": ControlSet(distilled(grey + 0.5, classes, lr_images=100.0), classes),
        "clean: smooth noise": ControlSet(smooth + 0.5, classes),
        "clean: means of strangers": ControlSet(public, classes, "phantom"),
    }
