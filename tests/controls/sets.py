"""Sets that leak and sets that do not, drawn from phantom films."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit.check import Candidate, Private
from medistill.audit.nearest import planted_copies
from medistill.audit.text import planted_words
from medistill.config import Audit, Config, Evaluate
from medistill.data import phantom
from medistill.data.imageset import ImageSet
from medistill.distill.distilled import Distilled
from medistill.distill.initial import noise
from medistill.nets import Architecture
from medistill.seeds import generator

SIDE, IPC = 48, 2
MEAN, STD = (0.5,), (0.25,)


@dataclass(frozen=True)
class ControlSet:
    """A set to audit.

    Attributes:
        pictures: (M, 1, S, S), classes one after another.
        start: as its record says.
        films: (M,) the training films it really started from, or None.
    """

    pictures: Tensor
    start: str = "noise"
    films: Tensor | None = None

    def candidate(self) -> Candidate:
        """The set as it would be released."""
        labels = F.one_hot(torch.arange(len(self.pictures)) % 3, 3).float()
        record = {"start": self.start, "selected": "last iteration, fixed beforehand"}
        net = Architecture("convnet", 1, 3, SIDE, 8, 2)
        images = (self.pictures - MEAN[0]) / STD[0]
        return Candidate(Distilled(images, labels, 0.02, phantom.CLASSES, MEAN, STD, net, provenance=record))

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


def sets() -> dict[str, ControlSet]:
    """All control sets by name; what leaks says so."""
    train = cohort()[0].images
    chosen = random_films()
    films = train[chosen]
    cropped, origin = planted_copies(train, 3 * IPC, drawn("cropped"))
    grey = noise(tuple(films.shape), 0.25, 0, drawn("noise"))
    smooth = noise(tuple(films.shape), 0.25, 2, drawn("smooth"))
    strangers = phantom.films(IPC, SIDE, 99)[0]
    public = phantom.films(20, SIDE, 98)[0].view(3, 20, 1, SIDE, SIDE).mean(1).repeat_interleave(IPC, 0)
    return {
        "leaky: copies": ControlSet(films, "real", chosen),
        "leaky: copies said to be noise": ControlSet(films, "noise", chosen),
        "leaky: cropped, flipped, inverted copies": ControlSet(cropped, "real", origin),
        "leaky: real start, hardly moved": ControlSet(films + 0.05 * grey / 0.25, "real", chosen),
        "leaky: real start, far moved": ControlSet(films + 0.2 * smooth / 0.25, "real", chosen),
        "leaky: one copy among five strangers": ControlSet(torch.cat([films[:1], strangers[1:]])),
        "leaky: words": ControlSet(planted_words(strangers, drawn("words"))),
        "clean: phantoms of strangers": ControlSet(strangers, "phantom"),
        "clean: noise": ControlSet(grey + 0.5),
        "clean: smooth noise": ControlSet(smooth + 0.5),
        "clean: means of strangers": ControlSet(public, "phantom"),
    }
