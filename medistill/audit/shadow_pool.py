"""The films that shadow distillations share out among themselves, patient by patient."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill import seeds
from medistill.audit.check import Private
from medistill.config import Distill
from medistill.data import phantom
from medistill.distill import initial


@dataclass(frozen=True)
class Pool:
    """All films there are, of patients that the run has used and of others.

    Attributes:
        pixels: (N, C, H, W) as the networks see them, on the device.
        labels: (N,) int64, on the CPU as what follows.
        patient: (N,) int64, numbered 0 to G - 1.
        member: (G,) True for a patient of the training films.
        classes: their names.
    """

    pixels: Tensor
    labels: Tensor
    patient: Tensor
    member: Tensor
    classes: tuple[str, ...]

    @classmethod
    def of(cls, private: Private) -> "Pool":
        """The films of train and holdout, whose patients are different people whatever their numbers."""
        train, holdout = private.train, private.holdout
        inside, outside = (torch.unique(part.groups, return_inverse=True)[1] for part in (train, holdout))
        members, others = int(inside.max()) + 1, int(outside.max()) + 1
        return cls(
            torch.cat([train.pixels(), holdout.pixels()]).to(private.device),
            torch.cat([train.labels, holdout.labels]),
            torch.cat([inside, outside + members]),
            torch.arange(members + others) < members,
            train.classes,
        )

    @property
    def kind(self) -> Tensor:
        """(G,) int64, the class of each patient's first film."""
        first = torch.zeros(len(self.member), dtype=torch.int64)
        first[self.patient.flip(0)] = self.labels.flip(0)
        return first

    def halves(self, pairs: int, seed: int) -> Tensor:
        """(2 pairs, G) bool: in each pair of rows the patients are shared out at random, each class evenly."""
        kind, rows = self.kind, []
        for pair in range(pairs):
            generator = seeds.generator(seed, "audit", "shadows", "halves", pair)
            order = torch.randperm(len(kind), generator=generator)
            order = order[kind[order].argsort(stable=True)]
            coin = torch.randint(2, (), generator=generator)
            row = torch.zeros(len(kind), dtype=torch.bool)
            row[order] = (torch.arange(len(kind)) + coin) % 2 == 0
            rows += [row, ~row]
        return torch.stack(rows)

    def parts(self, inside: Tensor) -> list[Tensor]:
        """The films (int64) of the patients in each row of (K, G)."""
        return [torch.nonzero(row[self.patient]).flatten() for row in inside]

    def unfit(self, settings: Distill) -> str:
        """Why the patients cannot be shared out, or nothing."""
        needed = 2 * (settings.ipc if settings.start == "real" else 1)
        for name, count in zip(self.classes, torch.bincount(self.kind, minlength=len(self.classes)), strict=True):
            if count < needed:
                return f"class {name} has {int(count)} patients, too few to share out between two distillations"
        return ""

    def start(self, part: Tensor, private: Private, settings: Distill, number: int) -> tuple[Tensor, Tensor]:
        """Start images (M, C, H, W) and one-hot labels (M, C) for a shadow, of the run's kind.

        A start that costs privacy budget is stood in for by noise, which shows less.

        Args:
            part: the films the shadow is made from.
            private: the run.
            settings: of the distillation.
            number: of the shadow.
        """
        classes, device = len(self.classes), self.pixels.device
        place = (private.config.seed, "audit", "shadows", "start", number)
        generator = seeds.generator(*place)
        shape = (classes * settings.ipc, *self.pixels.shape[1:])
        if settings.start == "real":
            chosen = initial.real(self.labels[part], self.patient[part], self.classes, settings.ipc, generator)
            images = self.pixels[part[chosen].to(device)]
        elif settings.start == "class_mean":
            films = self.pixels[part.to(device)]
            images = initial.class_means(films, self.labels[part].to(device), classes, settings.ipc)
        elif settings.start == "phantom":
            each = -(-shape[0] // len(phantom.CLASSES))
            films, _ = phantom.films(each, self.pixels.shape[2], seeds.derive(*place))
            images = private.train.as_seen(films[: shape[0]])
        else:
            images = initial.noise(shape, settings.start_scale, settings.start_smooth, generator)
        labels = F.one_hot(initial.labels_of(classes, settings.ipc), classes)
        return images.to(device), labels.to(device, images.dtype)

    def planted(self, part: Tensor, ipc: int, seed: int, number: int) -> Tensor:
        """(M,) films of a part, of different patients in each class, that stand in for a shadow's distilled set."""
        labels, patient = self.labels[part], self.patient[part]
        least = min(len(patient[labels == label].unique()) for label in range(len(self.classes)))
        generator = seeds.generator(seed, "audit", "shadows", "planted", number)
        return part[initial.real(labels, patient, self.classes, min(ipc, least), generator)]
