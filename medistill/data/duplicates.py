"""Films that stand in the data twice: exactly, by the hash of their pixels, or nearly, by correlation."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from medistill.data.crops import BASE
from medistill.data.near import search
from medistill.data.store import Images
from medistill.errors import UserError

# Measured on 1,750 films of 1,330 groups, in 23 s on two cores: of different groups one pair reaches .980,
# the next .973; 300 planted crops (side .6 to 1, anywhere, gamma .85 to 1.15) all reach .981 or more.
THRESHOLD = 0.98
LISTED = 1000
"""Pairs of near duplicates, and mistakes of exact ones, that are told one by one."""


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
class Alike:
    """What was found of near duplicates.

    Attributes:
        pairs: the most alike, in order.
        more: at most so many further pairs reach the threshold; a pair may count twice, once from each side.
    """

    pairs: list[NearPair]
    more: int = 0


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
        more = [f"... and {len(mistakes) - LISTED} more films that stand twice"] if len(mistakes) > LISTED else []
        raise UserError("\n".join([*mistakes[:LISTED], *more]))


def near_duplicates(
    images: Images,
    split: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    hashes: Sequence[str] = (),
    scratch: Path | None = None,
    progress: Callable[[int], None] = lambda films: None,
) -> Alike:
    """Pairs of films from two splits of which one resembles a part of the other, the most alike first.

    Crops of 1 to 0.6 of the side are swept at 12 x 12 pixels over all pairs; what comes near the threshold is
    searched finely at 32 x 32. Different people's films reach 0.97, so a pair is a question, no verdict.

    Args:
        images: (N, C, S, S) in [0, 1].
        split: (N,) the split of each film.
        threshold: the correlation from which a pair is listed.
        hashes: (N,) the SHA-256 of each film's pixels; of films of one split that are the same the first alone is
            searched. "", or none given: not known.
        scratch: a folder for temporary files, 5 kB a film; None: the system's.
        progress: told how many more films were searched.
    """
    sides = {name: index for index, name in enumerate(sorted(set(split)))}
    keys = [(name, value or str(row)) for row, (name, value) in enumerate(zip_longest(split, hashes, fillvalue=""))]
    chosen = np.array(sorted({key: row for row, key in reversed([*enumerate(keys)])}.values()), dtype=np.int64)
    side = np.array([sides[split[row]] for row in chosen], dtype=np.int64)
    order = np.argsort(side, kind="stable")
    progress(len(split) - len(chosen))
    found, more = search(images, chosen[order], side[order], threshold, LISTED, scratch, progress)
    best: dict[frozenset[int], NearPair] = {}
    found = found.best(len(found))
    for first, second, crop, value in zip(found.first, found.second, found.crop, found.correlation, strict=True):
        pair = NearPair(int(first), int(second), float(value), int(crop[0]) / BASE)
        best.setdefault(frozenset((pair.first, pair.second)), pair)
    pairs = list(best.values())
    return Alike(pairs[:LISTED], more + len(pairs[LISTED:]))
