"""Films that stand in the data twice: exactly, by the hash of their pixels, or nearly, by correlation."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from medistill.errors import UserError

BASE = 64  # the side, in pixels, that crops are cut from
FINE = 32  # the side that the reported correlation is computed at
COARSE = 12  # the side of the first sweep over all pairs
SIDES = (64, 61, 58, 55, 52, 49, 46, 43, 40, 38)  # crops of 1 to 0.6
STRIDE = 3  # between the crops of the first sweep
BLOCK = 1024  # films cropped at a time, which bounds the memory
MARGIN = 0.06  # what the first sweep may lose of the correlation; 300 planted crops lost 0.045 at most
# Measured on 1,750 films of 1,330 groups, in 23 s on two cores: of different groups one pair reaches .980,
# the next .973; 300 planted crops (side .6 to 1, anywhere, gamma .85 to 1.15) all reach .981 or more.
THRESHOLD = 0.98


@dataclass(frozen=True)
class NearPair:
    """Two films that may be one.

    Attributes:
        first: index of the film of which a part, or the whole, resembles the second.
        second: index of the other film.
        correlation: zero-mean normalised cross-correlation of the two at 32 x 32 pixels.
        scale: the side of the crop of `first` over the side of the film; 1 for the whole.
    """

    first: int
    second: int
    correlation: float
    scale: float


@dataclass(frozen=True)
class Crop:
    """A square cut out of a BASE x BASE film: its side and its upper left corner in pixels."""

    side: int
    top: int
    left: int


@dataclass(frozen=True)
class Candidate:
    """A pair under search: the film to crop, the whole one, the best crop so far, and its correlation."""

    first: int
    second: int
    crop: Crop
    correlation: float


def exact_duplicates(
    names: Sequence[str], hashes: Sequence[str], labels: Sequence[str], split: Sequence[str]
) -> list[str]:
    """One sentence for each set of identical films under two labels or in two splits.

    Args:
        names: what the films are called in messages.
        hashes: the SHA-256 of each film's pixels; "" for a film without one.
        labels: each film's class name.
        split: each film's split.
    """
    films = defaultdict(list)
    for index, value in enumerate(hashes):
        if value:
            films[value].append(index)
    mistakes = []
    for same in films.values():
        listed = " and ".join(names[index] for index in same)
        if len({labels[index] for index in same}) > 1:
            under = " and ".join(sorted({labels[index] for index in same}))
            mistakes.append(f"{listed}: one film under the labels {under}; decide for one and delete the other row")
        elif len({split[index] for index in same}) > 1:
            across = " and ".join(sorted({split[index] for index in same}))
            mistakes.append(f"{listed}: one film in {across}; keep one row, or give both the same patient_id")
    return mistakes


def require_distinct(names: Sequence[str], hashes: Sequence[str], labels: Sequence[str], split: Sequence[str]) -> None:
    """Raise a UserError, one line each, when identical films have two labels or cross a split."""
    mistakes = exact_duplicates(names, hashes, labels, split)
    if mistakes:
        raise UserError("\n".join(mistakes))


def near_duplicates(images: Tensor, split: Sequence[str], *, threshold: float = THRESHOLD) -> list[NearPair]:
    """Pairs of films from two splits of which one resembles a part of the other, the most alike first.

    Crops of 1 to 0.6 of the side are swept at 12 x 12 pixels over all pairs; what comes near the threshold is
    searched finely at 32 x 32. Different people's films reach 0.97, so a pair is a question, no verdict.

    Args:
        images: (N, 1, S, S) in [0, 1].
        split: (N,) the split of each film.
        threshold: the correlation from which a pair is listed.
    """
    films = _shrink(images.to(torch.float32), BASE)  # (N, 1, 64, 64)
    sides = {name: index for index, name in enumerate(sorted(set(split)))}
    side = torch.tensor([sides[name] for name in split])
    candidates = _sweep(films, side, threshold - MARGIN)
    for step in (2, 1):
        candidates = _refine(films, candidates, step)
    best: dict[frozenset[int], Candidate] = {}
    for pair in sorted(candidates, key=lambda pair: (-pair.correlation, pair.first, pair.second)):
        if pair.correlation >= threshold:
            best.setdefault(frozenset((pair.first, pair.second)), pair)
    return [NearPair(pair.first, pair.second, pair.correlation, pair.crop.side / BASE) for pair in best.values()]


def _shrink(images: Tensor, size: int) -> Tensor:
    """(N, 1, H, W) to (N, 1, size, size), anti-aliased."""
    return interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def _unit(images: Tensor) -> Tensor:
    """(N, 1, H, W) to (N, HW) of zero mean and unit norm, so that a dot product is the correlation."""
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _cut(films: Tensor, crop: Crop, size: int) -> Tensor:
    """(N, 1, 64, 64) to the unit vectors (N, size * size) of a crop."""
    part = films[..., crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    return _unit(_shrink(part, size))


def _crops() -> Iterator[Crop]:
    """The crops of the first sweep: every side, at every STRIDE pixels up to both edges."""
    for side in SIDES:
        corners = sorted({*range(0, BASE - side, STRIDE), BASE - side})
        for top in corners:
            for left in corners:
                yield Crop(side, top, left)


def _sweep(films: Tensor, side: Tensor, least: float) -> list[Candidate]:
    """Pairs across splits whose coarse correlation reaches `least`, each with its best crop."""
    whole = _unit(_shrink(films, COARSE))  # (N, 256)
    crops = list(_crops())
    candidates = []
    for start in range(0, len(films), BLOCK):
        block = films[start : start + BLOCK]
        best = torch.full((len(block), len(films)), -1.0)
        which = torch.zeros(best.shape, dtype=torch.int16)
        for number, crop in enumerate(crops):
            correlation = _cut(block, crop, COARSE) @ whole.T  # (block, N): rows are cropped, columns whole
            which.masked_fill_(correlation > best, number)
            torch.maximum(best, correlation, out=best)
        across = side[start : start + BLOCK, None] != side[None, :]
        for row, second in torch.nonzero((best >= least) & across).tolist():
            crop = crops[int(which[row, second])]
            candidates.append(Candidate(start + row, second, crop, float(best[row, second])))
    return candidates


def _refine(films: Tensor, candidates: list[Candidate], step: int) -> list[Candidate]:
    """Each pair with the best of the 27 crops within `step` pixels of its crop, by the fine correlation."""
    whole = _unit(_shrink(films, FINE))  # (N, 1024)
    by_crop = defaultdict(list)
    for candidate in candidates:
        by_crop[candidate.crop].append(candidate)
    refined = []
    for crop, same in by_crop.items():
        first = torch.tensor([candidate.first for candidate in same])
        second = torch.tensor([candidate.second for candidate in same])
        near = list(_neighbours(crop, step))
        correlations = torch.stack([(_cut(films[first], other, FINE) * whole[second]).sum(1) for other in near])
        values, numbers = correlations.max(0)
        for candidate, value, number in zip(same, values.tolist(), numbers.tolist(), strict=True):
            refined.append(Candidate(candidate.first, candidate.second, near[number], value))
    return refined


def _neighbours(crop: Crop, step: int) -> Iterator[Crop]:
    """The crop itself and those one step larger, smaller or moved, as far as they lie in the film."""
    for wider, down, right in product((0, -step, step), repeat=3):
        side = crop.side + wider
        top, left = crop.top + down - wider // 2, crop.left + right - wider // 2
        if SIDES[-1] <= side <= BASE and 0 <= top <= BASE - side and 0 <= left <= BASE - side:
            yield Crop(side, top, left)
