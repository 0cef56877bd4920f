"""The search for films that resemble a part of another: all pairs across splits, a block at a time, on all cores.

The crops of a block of films meet the whole films at 12 x 12 pixels; what comes near the threshold is searched finely
at 32 x 32. Most pairs are dismissed by a bound in few dimensions: for vectors with projections p, q on the leading
principal components and remainders r, s, x . y = p . q + r . s <= p . q + |r| |s| (Cauchy-Schwarz). The bound is no
estimate: what it dismisses could not have reached the limit.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medistill.data.crops import (
    BASE,
    COARSE,
    FINE,
    Integers,
    cut_coarse,
    cut_fine,
    neighbours,
    shrink,
    sweep_crops,
    unit,
)
from medistill.data.store import Images

MARGIN = 0.06  # what the first sweep may lose of the correlation; 300 planted crops lost 0.045 at most
COMPONENTS = 20  # of the bound: of 1,750 real films it leaves 5 in 10,000 crops of pairs, of which one in 5 is right
SLACK = 1e-4  # for rounding in the bound

ROWS, COLUMNS = 128, 1024  # films that are cropped, and whole ones, that meet at a time
AT_ONCE = 8  # crops of each row that meet the columns in one product
DENSE = 20_000  # products that the bound leaves of one such, from which all are computed: gathering would be slower
REFINED = 256  # pairs refined at a time
HELD = 65_536  # pairs that wait to be refined


@dataclass(frozen=True)
class Pairs:
    """Pairs of films, an entry each: indices, the best crop of the first, and the correlation it reaches."""

    first: Integers
    second: Integers
    crop: Integers  # (n, 3) side, top, left
    correlation: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def keep(self, which: NDArray[np.generic]) -> "Pairs":
        """Some of them, in that order."""
        return Pairs(self.first[which], self.second[which], self.crop[which], self.correlation[which])

    def best(self, count: int) -> "Pairs":
        """The most alike, in order."""
        return self.keep(np.lexsort((self.second, self.first, -self.correlation))[:count])

    @staticmethod
    def joined(parts: "Sequence[Pairs]") -> "Pairs":
        """All of some."""
        empty = Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3), int), np.zeros(0, np.float32))
        fields = ("first", "second", "crop", "correlation")
        return Pairs(*(np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in fields))


@dataclass(frozen=True)
class Vectors:
    """All films as unit vectors of zero mean, in files without a name: they cost address space, no memory.

    Attributes:
        coarse: (N, D) at 12 x 12.
        fine: (N, F) at 32 x 32.
        bound: (N, K + 1) projections of `coarse` on the principal components, and the length of the remainder.
        basis: (D, K) these components.
    """

    coarse: Tensor
    fine: Tensor
    bound: Tensor
    basis: Tensor

    @classmethod
    def of(cls, images: Images, chosen: Integers, scratch: Path | None) -> "Vectors":
        """The vectors of the chosen images; the files lie in `scratch`, or where the system has its temporary ones."""
        count, channels = len(chosen), images.shape[1]
        coarse = _scratch((count, channels * COARSE**2), scratch)
        fine = _scratch((count, channels * FINE**2), scratch)
        moment = torch.zeros(coarse.shape[1], coarse.shape[1], dtype=torch.float64)
        for start in range(0, count, COLUMNS):
            films = _films(images, chosen[start : start + COLUMNS])
            part = unit(shrink(films, COARSE))
            coarse[start : start + COLUMNS], fine[start : start + COLUMNS] = part, unit(shrink(films, FINE))
            moment += (part.T @ part).double()
        basis = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, :COMPONENTS].float().contiguous()
        bound = _scratch((count, COMPONENTS + 1), scratch)
        for start in range(0, count, COLUMNS):
            bound[start : start + COLUMNS] = _bounds(coarse[start : start + COLUMNS], basis)
        return cls(coarse, fine, bound, basis)


def search(
    images: Images,
    chosen: Integers,
    side: Integers,
    threshold: float,
    most: int,
    scratch: Path | None,
    progress: Callable[[int], None],
) -> tuple[Pairs, int]:
    """The most alike pairs across splits, at most `most`, and how many entries were dropped for it.

    Both films of a pair are cropped in turn: a pair may come twice, as (a, b) and as (b, a).

    Args:
        images: (N, C, S, S).
        chosen: (n,) indices of the images that take part, those of one split beside each other.
        side: (n,) their splits, ascending.
        threshold: the correlation from which a pair counts.
        most: pairs.
        scratch: a folder for temporary files.
        progress: told after each block how many films have been cropped in it.
    """
    vectors = Vectors.of(images, chosen, scratch)
    threads = torch.get_num_threads()
    blocks = [range(start, min(start + ROWS, end)) for a, end in _runs(side) for start in range(a, end, ROWS)]

    def work(block: range) -> tuple[Pairs, int]:
        a, b = np.searchsorted(side, [side[block.start], side[block.start] + 1])
        films = _films(images, chosen[block.start : block.stop])
        columns = [
            range(c, min(c + COLUMNS, end))
            for start, end in ((0, a), (b, len(side)))
            for c in range(start, end, COLUMNS)
        ]
        found, dropped = Pairs.joined([]), 0
        for candidates in _sweep(films, vectors, columns, threshold - MARGIN):
            for step in (2, 1):
                candidates = refine(films, vectors.fine, candidates, step)
            found = Pairs.joined([found, candidates.keep(candidates.correlation >= threshold)])
            dropped += max(0, len(found) - most)
            found = found.best(most)
        return Pairs(chosen[found.first + block.start], chosen[found.second], found.crop, found.correlation), dropped

    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    every, dropped = Pairs.joined([]), 0
    try:
        under_way = {pool.submit(work, block): len(block) for block in blocks}
        for future in as_completed(under_way):
            found, left = future.result()
            every = Pairs.joined([every, found])
            dropped += left + max(0, len(every) - 2 * most)
            every = every.best(2 * most)
            progress(under_way[future])
    finally:
        pool.shutdown(cancel_futures=True)
        # a worker's number is also what threads to come would begin with
        torch.set_num_threads(threads)
    return every, dropped


def _sweep(films: Tensor, vectors: Vectors, columns: list[range], least: float) -> Iterator[Pairs]:
    """Pairs of these films (R, C, 64, 64) and the columns' whose coarse correlation reaches `least`, many at a time.

    `first` is the row, `second` the number of the vector.
    """
    crops = sweep_crops()
    cuts = torch.stack([cut_coarse(films, crop) for crop in crops])  # (crops, R, D)
    bound = _bounds(cuts, vectors.basis)  # (crops, R, K + 1)
    waiting: list[Pairs] = []
    for block in columns:
        best, which = _meet(cuts, bound, vectors, block, least)
        row, column = np.nonzero(best >= least)
        waiting.append(Pairs(row, column + block.start, crops[which[row, column]], best[row, column]))
        if sum(map(len, waiting)) >= HELD:
            yield Pairs.joined(waiting)
            waiting.clear()
    yield Pairs.joined(waiting)


def _meet(
    cuts: Tensor, bound: Tensor, vectors: Vectors, block: range, least: float
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """(R, columns) the best coarse correlation over all crops where it reaches `least`, else -1; and which crop."""
    whole, rows = vectors.coarse[block.start : block.stop], cuts.shape[1]
    columns = vectors.bound[block.start : block.stop].T.contiguous()
    best = np.full((rows, len(block)), -1, np.float32)
    which = np.zeros((rows, len(block)), np.int16)
    for start in range(0, len(cuts), AT_ONCE):
        some = cuts[start : start + AT_ONCE].flatten(0, 1)  # (crops x R, D)
        limit = bound[start : start + AT_ONCE].flatten(0, 1) @ columns
        hits = np.flatnonzero(limit.numpy() >= least - SLACK)
        if len(hits) > DENSE:
            values = (some @ whole.T).numpy().ravel()
            hits = np.flatnonzero(values >= least)
            values = values[hits]
        else:
            left, right = (torch.from_numpy(part) for part in np.divmod(hits, len(block)))
            values = (some[left] * whole[right]).sum(1).numpy()
            hits, values = hits[values >= least], values[values >= least]
        line, column = np.divmod(hits, len(block))
        crop, place = start + line // rows, line % rows * len(block) + column
        better = values > best.ravel()[place]
        crop, place, values = crop[better], place[better], values[better]
        order = np.lexsort((-crop, values))  # of what is written to one place, the last stays: the best, the first crop
        best.ravel()[place[order]], which.ravel()[place[order]] = values[order], crop[order]
    return best, which


def refine(films: Tensor, fine: Tensor, pairs: Pairs, step: int) -> Pairs:
    """Each pair with the best of the 27 crops within `step` pixels of its crop, by the fine correlation.

    Args:
        films: (R, C, 64, 64), which `first` counts.
        fine: (N, F) unit vectors, which `second` counts.
        pairs: with the crops to begin from.
        step: pixels.
    """
    pairs = pairs.keep(np.lexsort((*pairs.crop.T, pairs.first)))  # so that pairs refined together share crops
    parts = []
    for start in range(0, len(pairs), REFINED):
        some = pairs.keep(np.arange(start, min(start + REFINED, len(pairs))))
        near, inside = neighbours(some.crop, step)  # (n, 27, 3), (n, 27)
        film = np.broadcast_to(some.first[:, None], inside.shape)[inside]
        keys = np.concatenate([film[:, None], near[inside]], axis=1)  # (m, 4)
        once, number = np.unique(keys @ (BASE + 1) ** np.arange(3, -1, -1), return_inverse=True)
        which = np.zeros(len(once), np.int64)
        which[number] = np.arange(len(keys))
        cuts = cut_fine(films, keys[which, 0], keys[which, 1:])
        place = np.zeros(inside.shape, np.int64)
        place[inside] = number
        whole = fine[torch.from_numpy(some.second)]
        values = (cuts[torch.from_numpy(place)] @ whole[..., None])[..., 0].numpy()  # (n, 27)
        values[~inside] = -1
        best, row = values.argmax(1), np.arange(len(some))
        parts.append(Pairs(some.first, some.second, near[row, best], values[row, best]))
    return Pairs.joined(parts)


def _bounds(vectors: Tensor, basis: Tensor) -> Tensor:
    """(..., K + 1): vectors (..., D) projected on the basis (D, K), and the length of what is left of them."""
    projected = vectors @ basis
    left = vectors.square().sum(-1, keepdim=True) - projected.square().sum(-1, keepdim=True)
    return torch.cat([projected, left.clamp_min(0).sqrt()], dim=-1)


def _films(images: Images, chosen: Integers) -> Tensor:
    """(n, C, 64, 64) the chosen images."""
    return shrink(images[torch.from_numpy(chosen)].to(torch.float32), BASE)


def _runs(side: Integers) -> list[tuple[int, int]]:
    """Where each split begins and ends."""
    starts = np.flatnonzero(np.diff(side, prepend=-1)).tolist()
    return list(pairwise([*starts, len(side)]))


def _scratch(shape: tuple[int, int], folder: Path | None) -> Tensor:
    """A tensor in a file that has no name and goes with the process, however it ends."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))
