"""How far networks trained on a set go the way of the experts: weights and logits, as the insider can compare them.

Both start from the same parameters of an expert. The set carries what is common to the displacements; if it also
carries what the expert remembers of single films, the logits change alike on training films more than on others.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit.inversion_attack import Moved
from medistill.nets import Flat

BATCH = 256


@dataclass(frozen=True)
class Imitation:
    """Means over the networks.

    Attributes:
        cosine: of the student's displacement and the expert's.
        loss: the matching loss, squared distance of their ends over the squared length of the expert's way.
        logits_train: correlation of the changes of their logits on training films.
        logits_holdout: the same on films of other patients.
    """

    cosine: float
    loss: float
    logits_train: float
    logits_holdout: float

    def to_json(self) -> dict[str, Any]:
        """As it stands in a check's statistic."""
        return {
            "cosine_of_displacements": self.cosine,
            "matching_loss": self.loss,
            "logits": {"train": self.logits_train, "holdout": self.logits_holdout},
        }


def imitation(net: Flat, students: list[Moved], experts: list[Moved], train: Tensor, holdout: Tensor) -> Imitation:
    """Compare students with experts that started from the same parameters.

    Args:
        net: the network.
        students: trained on the set, one a start.
        experts: trained on the films, likewise.
        train: films (N, C, H, W) that the experts saw, as networks see them.
        holdout: films (L, C, H, W) of other patients.
    """
    found = torch.tensor(
        [
            (
                F.cosine_similarity(student.displacement, expert.displacement, dim=0).item(),
                ((student.end - expert.end).norm() / expert.displacement.norm()).item() ** 2,
                *(correlation(logit_change(net, student, x), logit_change(net, expert, x)) for x in (train, holdout)),
            )
            for student, expert in zip(students, experts, strict=True)
        ],
        dtype=torch.float64,
    )
    return Imitation(*found.mean(0).tolist())


@torch.no_grad()
def logit_change(net: Flat, moved: Moved, images: Tensor) -> Tensor:
    """(N, K) what training changed in the logits of images (N, C, H, W), less their mean over the classes."""
    parts = [net(moved.end, part) - net(moved.start, part) for part in images.split(BATCH)]
    change = torch.cat(parts)
    return change - change.mean(1, keepdim=True)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's coefficient over films, each class centred for itself, of two changes (N, K); 0 if one is constant."""
    a, b = ((x - x.mean(0)).double().flatten() for x in (a, b))
    return float(F.cosine_similarity(a, b, dim=0))
