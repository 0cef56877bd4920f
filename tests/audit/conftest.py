"""A small cohort of smooth pictures, and what the checks are given of it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit.check import Candidate, Private
from medistill.config import Audit, Config, Evaluate
from medistill.data.imageset import ImageSet
from medistill.distill.distilled import Distilled
from medistill.nets import Architecture
from medistill.seeds import generator

SIDE = 32
CLASSES = ("Normal", "Pneumonia", "COVID")


@pytest.fixture(scope="session")
def films() -> Callable[..., Tensor]:
    """Smooth random pictures over one common background, as chest films are, in [0, 1]: films(count, place)."""

    def make(count: int, place: str, side: int = SIDE) -> Tensor:
        source = generator(7, place)
        coarse = F.interpolate(torch.randn(count, 1, 6, 6, generator=source), size=side, mode="bicubic")
        fine = F.interpolate(torch.randn(count, 1, 14, 14, generator=source), size=side, mode="bicubic")
        ramp = torch.linspace(-1, 1, side).square().expand(side, side)
        return torch.sigmoid(1.5 * ramp + coarse + 0.5 * fine)

    return make


@pytest.fixture(scope="session")
def image_set(films: Callable[..., Tensor]) -> Callable[..., ImageSet]:
    """Patients with two films each, classes taking turns: image_set(patients, place)."""

    def make(patients: int, place: str, split: str = "train") -> ImageSet:
        patient = torch.arange(patients).repeat_interleave(2)
        first = 0 if split == "train" else 10_000
        return ImageSet(
            films(len(patient), place), patient % 3, patient + first, CLASSES, "toy", split, mean=(0.5,), std=(0.25,)
        )

    return make


@pytest.fixture(scope="session")
def private(image_set: Callable[..., ImageSet]) -> Private:
    """60 training and 45 holdout patients with two films each."""
    config = Config(audit=Audit(planted=20), evaluate=Evaluate(steps=20, seeds=1))
    return Private(image_set(60, "train"), image_set(45, "holdout", "test"), config)


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Candidate]:
    """A set that shows given pictures (M, 1, H, W) in [0, 1], classes taking turns: candidate(pictures, **record)."""

    def make(pictures: Tensor, start: str = "noise", **record: object) -> Candidate:
        labels = F.one_hot(torch.arange(len(pictures)) % 3, 3).float()
        architecture = Architecture("convnet", 1, 3, pictures.shape[-1], 8, 2)
        provenance = {"start": start, "selected": "last iteration, fixed beforehand"} | record
        return Candidate(
            Distilled(
                (pictures - 0.5) / 0.25,
                labels,
                0.02,
                CLASSES,
                (0.5,),
                (0.25,),
                architecture,
                provenance={k: v for k, v in provenance.items() if v is not None},
            )
        )

    return make
