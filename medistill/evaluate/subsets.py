"""Real training films, as many a class as a distilled set has: what distillation must beat.

A subset of films that are all of one person is no sample of a class: with patients given, a patient lends a second
film to a class only after every patient of that class has lent one.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor, nn

from medistill.errors import UserError
from medistill.nets.embedding import embedding

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]

# k-means finds a local optimum: the best of this many starts.
STARTS = 10


def random_subset(labels: Tensor, ipc: int, generator: torch.Generator, groups: Tensor | None = None) -> Tensor:
    """Index (K * ipc,) of `ipc` images of each class, without replacement, ordered by class.

    Labels (N,) and patients `groups` (N,) int64. Raises UserError when a class has fewer images.
    """
    chosen = []
    for members, patient in _classes(labels, ipc, groups):
        order = torch.randperm(len(members), generator=generator).numpy()
        taken = np.zeros(len(members), dtype=bool)  # in the order drawn
        for _ in range(ipc):
            taken[np.argmax(_open(taken, patient[order]))] = True
        chosen.append(members[order[taken]])
    return torch.cat(chosen)


def kmeans_subset(
    features: Tensor, labels: Tensor, ipc: int, generator: torch.Generator, groups: Tensor | None = None
) -> Tensor:
    """Index (K * ipc,) of the films nearest to the `ipc` centres of k-means in each class, ordered by class.

    The closest pair of a centre and a film is settled first, then the closest of those left, so no film stands for
    two centres. Features (N, F), labels (N,) and patients `groups` (N,) int64. Raises UserError when a class has
    fewer than `ipc` films.
    """
    chosen = []
    for members, patient in _classes(labels, ipc, groups):
        points = features[members].double().numpy(force=True)  # (n, F)
        seed = int(torch.randint(2**31, (), generator=generator))
        centres = KMeans(ipc, n_init=STARTS, random_state=seed).fit(points).cluster_centers_
        squares = np.stack([((points - centre) ** 2).sum(1) for centre in centres])  # (ipc, n)
        chosen.append(members[_nearest(squares, patient)])
    return torch.cat(chosen)


def herding_subset(features: Tensor, labels: Tensor, ipc: int, groups: Tensor | None = None) -> Tensor:
    """Index (K * ipc,) of herded films, ordered by class and, within it, by choice: a shorter set is a beginning.

    The k-th film p_k of a class with mean mu is the one that brings the running mean closest to it,
    argmin_x || mu - (x + p_1 + ... + p_{k-1}) / k ||: Rebuffi et al. (iCaRL, CVPR 2017, Algorithm 4) after Welling
    (ICML 2009), without repeats; features are taken as given, not scaled to length 1. Ties go to the earlier film.
    Features (N, F), labels (N,) and patients `groups` (N,) int64. Raises UserError when a class has fewer than
    `ipc` films.
    """
    chosen = []
    for members, patient in _classes(labels, ipc, groups):
        points = features[members].double().numpy(force=True)  # (n, F)
        mean, total = points.mean(0), np.zeros(points.shape[1])
        taken, order = np.zeros(len(members), dtype=bool), []
        for k in range(1, ipc + 1):
            far = ((mean - (total + points) / k) ** 2).sum(1)
            best = int(np.where(_open(taken, patient), far, np.inf).argmin())
            taken[best] = True
            total += points[best]
            order.append(best)
        chosen.append(members[order])
    return torch.cat(chosen)


@torch.no_grad()
def features(module: nn.Module, images: Tensor, device: torch.device, batch: int = 256) -> Tensor:
    """What the last linear layer of a network receives, (N, F) float32 on the CPU, for images (N, C, H, W).

    In evaluation mode, images normalised as in training. Raises ValueError for a network without a linear layer.
    """
    module.to(device).eval()
    return torch.cat([embedding(module, part.to(device)).float().cpu() for part in images.split(batch)])


def _classes(labels: Tensor, ipc: int, groups: Tensor | None) -> list[tuple[Tensor, Numbers]]:
    """Of each class its films (n,) and their patients (n,), numbered from 0; each film its own without groups."""
    found = []
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().squeeze(1).cpu()
        if len(members) < ipc:
            raise UserError(
                f"evaluation: class number {label} has {len(members)} images, fewer than ipc {ipc}; lower ipc"
            )
        people = members if groups is None else groups.cpu()[members]
        found.append((members, torch.unique(people, return_inverse=True)[1].numpy()))
    return found


def _open(taken: Mask, patient: Numbers) -> Mask:
    """(n,) films that may come next: not taken (n,) yet, of the patients (n,) with the fewest films taken."""
    lent = np.where(taken, np.inf, np.bincount(patient, weights=taken)[patient])
    return lent == lent.min()


def _nearest(squares: Array, patient: Numbers) -> list[int]:
    """A film for each centre, by squared distances (ipc, n): the closest pairs first."""
    centres, films = squares.shape
    taken, place = np.zeros(films, dtype=bool), [0] * centres
    left = squares.copy()
    for _ in range(centres):
        free = np.where(_open(taken, patient), left, np.inf)
        centre, film = np.unravel_index(int(free.argmin()), free.shape)
        place[int(centre)], taken[film], left[centre] = int(film), True, np.inf
    return place
