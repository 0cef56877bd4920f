"""The table of pipelines/multi_index.py: mean and spread over seeds of each problem, algorithm and size."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

KEY = ("d", "r", "L", "algorithm", "M")
SIDES = ("distilled", "random real", "all real")
THRESHOLD = 0.5
"""Error, of a variance of 1, at which the floats that were needed are read off."""


def table(cells: Sequence[dict]) -> list[dict]:
    """A row each, by growing M: mean and standard deviation over seeds of energy and errors.

    The error of a seed is the median of its students; `worse_than_a_constant` is the share of all students on distilled
    sets whose error is above 1, the variance of the labels without noise.
    """
    groups: dict[tuple, list[dict]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell[name] for name in KEY), []).append(cell)
    rows = []
    for place, seeds in groups.items():
        row = dict(zip(KEY, place, strict=True)) | {"seeds": len(seeds), "floats": seeds[0]["floats"]}
        row["line"] = row["r"] ** 2 * row["d"] + row["L"]
        row["energy"] = spread([seed["energy"] for seed in seeds])
        for side in SIDES:
            row[side] = spread([float(np.median(seed[side])) for seed in seeds])
        row["worse_than_a_constant"] = float(np.mean([np.array(seed["distilled"]) > 1 for seed in seeds]))
        rows.append(row)
    return rows


def spread(values: Sequence[float]) -> dict:
    """Mean and standard deviation; without the latter where one value tells none."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def problems(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each problem in words, distilled by the first row's algorithm."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        if row["algorithm"] == rows[0]["algorithm"]:
            found.setdefault(f"d = {row['d']}, r = {row['r']}, L = {row['L']}", []).append(row)
    return found


def needed(rows: Sequence[dict], side: str = "distilled") -> float:
    """Floats at which a problem's error first falls to THRESHOLD, between two sizes on a line of logarithms.

    `rows` are one problem's, by growing size. NaN: at no size, or at the smallest one already.
    """
    points = [(math.log(row["floats"]), math.log(row[side]["mean"] / THRESHOLD)) for row in rows]
    if points[0][1] <= 0:
        return math.nan
    for (x, y), (next_x, next_y) in pairwise(points):
        if next_y <= 0:
            return math.exp(x + (next_x - x) * y / (y - next_y))
    return math.nan
