"""A toy that is learnable in a second: class k is bright in quarter k of a 16 x 16 picture."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from medistill.distill.distilled import Distilled
from medistill.nets import Architecture
from medistill.seeds import generator

CLASSES = ("COVID", "lung opacity", "normal")
MEAN, STD = (0.5,), (0.25,)


def films(count: int, place: str) -> tuple[Tensor, Tensor]:
    """Noisy pictures (count, 1, 16, 16) in [0, 1] and their classes (count,)."""
    drawn = generator(7, place)
    labels = torch.arange(count) % len(CLASSES)
    pictures = 0.3 + 0.1 * torch.randn(count, 1, 16, 16, generator=drawn)
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        pictures[index, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 0.35
    return pictures.clamp(0, 1), labels


def toy_distilled() -> Distilled:
    images, labels = films(6, "distilled")
    return Distilled(
        images=(images - MEAN[0]) / STD[0],
        labels=torch.nn.functional.one_hot(labels, len(CLASSES)).float(),
        lr=0.02,
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        architecture=Architecture("convnet", 1, len(CLASSES), 16, 4, 2),
        augment=("flip", "crop"),
        provenance={"method": "iadd", "start": "noise", "iteration": 500, "experts": 8},
    )


def toy_evaluation() -> dict[str, Any]:
    mean = {"accuracy": 0.812, "balanced_accuracy": 0.8, "auroc_macro": 0.91, "auroc_positive": 0.93}
    return {
        "classes": list(CLASSES),
        "positive": "COVID",
        "seeds": 5,
        "test_films": 400,
        "test_patients": 310,
        "arms": {
            "distilled": {
                "mean": mean,
                "sd": dict.fromkeys(mean, 0.011),
                "interval": {"accuracy": [0.77, 0.85]},
            },
            "random real": {"mean": {"accuracy": 0.613}},
            "full data": {"mean": {"accuracy": 0.928}, "sd": {"accuracy": 0.004}},
        },
    }


def toy_audit() -> dict[str, Any]:
    return {
        "verdict": "pass",
        "context": {},
        "checks": [
            {
                "name": "nearest real neighbour",
                "verdict": "pass",
                "statistic": {"fired": 0, "of": 6, "zncc": [0.1] * 20},
                "interval": [0.81, 0.99],
                "power": 0.94,
                "positive_control": {"planted": 32, "found": 30},
                "negative_control": "none: toy",
                "explanation": "No synthetic image lies nearer to a training film than holdout films do.",
            }
        ],
        "words": [],
    }


@pytest.fixture
def toy_films() -> Callable[[int, str], tuple[Tensor, Tensor]]:
    return films


def toy_parts() -> dict[str, Any]:
    """The keyword arguments of `write_release`."""
    return {
        "distilled": toy_distilled(),
        "config_yaml": "data:\n  cohort: /srv/hospital/films.csv\n  size: 16\nmethod: iadd\n",
        "evaluation": toy_evaluation(),
        "audit": toy_audit(),
        "overview": {
            "name": "Toy films",
            "citation": "Planted et al. 2021",
            "licence": "CC BY 4.0",
            "counts": {"train": {"COVID": 120, "lung opacity": 7, "normal": 300}},
            "patients": {"train": 388},
        },
    }


@pytest.fixture
def toy() -> dict[str, Any]:
    """The keyword arguments of `write_release`, for each test its own."""
    return toy_parts()


@pytest.fixture
def years_later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Moves the clock."""

    def go() -> None:
        monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
        monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))

    return go
