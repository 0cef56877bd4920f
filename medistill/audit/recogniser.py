"""Who is who: which training patients teach the network of check 4, which test it, and whom it takes an image for."""

from dataclasses import dataclass

import torch
from torch import Tensor

from medistill.audit.siamese import Siamese
from medistill.seeds import generator

FALSE_POSITIVES = 0.001
FITTED = 0.75
BACKGROUND = 10
_BOUND = 1 - 1e-5  # keeps rounding near 1 out of atanh


@dataclass(frozen=True)
class Recogniser:
    """A trained network and the training films as it sees them.

    Attributes:
        siamese: the network.
        films: (N, D) the embedded training films.
        groups: (N,) int64, their patients, 0 to P - 1.
        threshold: a pair that is more similar counts as one patient.
    """

    siamese: Siamese
    films: Tensor
    groups: Tensor
    threshold: float

    def similarities(self, images: Tensor) -> Tensor:
        """(M, N) similarities of images (M, C, H, W) with each training film."""
        return similarities(turned(self.siamese, images), self.films)

    def by_patient(self, values: Tensor) -> Tensor:
        """(M, P) the highest of the similarities (M, N) to any film of each patient."""
        people = int(self.groups.max()) + 1
        lowest = values.new_full((len(values), people), -1.0)
        return lowest.scatter_reduce(1, self.groups.expand(len(values), -1), values, "amax")

    def outstanding(self, values: Tensor) -> Tensor:
        """(M,) float64, by how much the most similar patient of similarities (M, N) stands out from the next ten."""
        evidence = torch.atanh(self.by_patient(values).double().clamp(-_BOUND, _BOUND))
        highest = evidence.topk(min(BACKGROUND + 1, evidence.shape[1]), 1).values
        return highest[:, 0] - highest[:, 1:].mean(1) / 2


def turned(siamese: Siamese, images: Tensor) -> Tensor:
    """(4, M, D) images (M, C, H, W) embedded as they are, mirrored, inverted and both, which copies may be."""
    return torch.stack([siamese.embed(each) for each in (images, images.flip(3), -images, -images.flip(3))])


def similarities(looks: Tensor, films: Tensor) -> Tensor:
    """(M, N) the highest cosine of any look (4, M, D) of an image with each film (N, D)."""
    return (looks @ films.T).amax(0)


def roles(groups: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the films that the network is fitted on, and of those that tell its power; groups (N,).

    Of the patients with several films three quarters are fitted on, with all their films; none stands in both.
    """
    patients, place, counts = groups.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(patients), generator=generator(seed, "reidentification", "roles"))
    several = order[counts[order] > 1]
    fit, power = several.tensor_split([round(FITTED * len(several))])
    return torch.nonzero(torch.isin(place, fit))[:, 0], torch.nonzero(torch.isin(place, power))[:, 0]


def pairs(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """The similarities (n, n) of films with patients (n,), each pair once: those of one patient, those of two."""
    first, second = torch.triu_indices(len(groups), len(groups), 1)
    each, same = values[first, second], groups[first] == groups[second]
    return each[same], each[~same]


def threshold_at(different: Tensor, rate: float) -> float:
    """The lowest value of `different` (n,) that no more than a share `rate` of them exceed."""
    return float(different.sort(descending=True).values[int(rate * len(different))])


def one_each(groups: Tensor, source: torch.Generator) -> Tensor:
    """Indices of one film of each patient, drawn at random, in random order; groups (N,)."""
    known: dict[int, int] = {}
    for index in torch.randperm(len(groups), generator=source).tolist():
        known.setdefault(int(groups[index]), index)
    return torch.tensor(list(known.values()), dtype=torch.int64)
