"""Duplicates: exact ones by hash, planted crops by correlation, and nothing where there is nothing."""

from itertools import product

import pytest
import torch
from torch.nn.functional import interpolate

from medistill.data import duplicates, near
from medistill.data.cohort import read_cohort
from medistill.data.decode import decode
from medistill.data.duplicates import Alike, exact_duplicates, near_duplicates, require_distinct
from medistill.errors import UserError
from medistill.seeds import generator

SIDE = 128


@pytest.fixture(scope="module")
def films() -> torch.Tensor:
    """(30, 1, 128, 128) smooth random fields."""
    coarse = torch.rand(30, 1, 9, 9, generator=generator(0, "duplicates"))
    return interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0, 1)


def cropped(film: torch.Tensor, side: int, top: int, left: int) -> torch.Tensor:
    """(1, 128, 128): a square of a film, enlarged, its contrast changed."""
    part = film[:, top : top + side, left : left + side]
    large = interpolate(part[None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0]
    return 0.1 + 0.7 * large**1.1


def test_exact_duplicates():
    names, hashes = ["f0", "f1", "f2", "f3", "f4", "f5"], ["x", "x", "y", "y", "", ""]
    split = ["train", "test", "train", "train", "train", "test"]
    across, labels = ["c", "c", "d", "d", "c", "c"], ["c", "c", "d", "e", "c", "c"]
    assert exact_duplicates(names, hashes, across, split) == [
        "f0 and f1: one film in test and train; keep one row, or give both the same patient_id"
    ]
    found = exact_duplicates(names, hashes, labels, split)
    assert found[1] == "f2 and f3: one film under the labels d and e; decide for one and delete the other row"
    with pytest.raises(UserError, match="f0 and f1") as caught:
        require_distinct(names, hashes, labels, split)
    assert len(str(caught.value).split("\n")) == 2
    require_distinct(names, hashes, ["c"] * 2 + ["d"] * 4, ["train"] * 6)


def test_unrelated_films_are_no_pair(films):
    assert near_duplicates(films, ["train"] * 15 + ["test"] * 15) == Alike([])


@pytest.mark.parametrize(("side", "top", "left"), [(128, 0, 0), (118, 3, 9), (100, 28, 0), (90, 11, 23), (78, 50, 37)])
def test_a_planted_crop_is_found(films, side, top, left):
    images = torch.cat([films, cropped(films[4], side, top, left)[None]])
    (pair,) = near_duplicates(images, ["train"] * 30 + ["test"]).pairs
    assert (pair.first, pair.second) == (4, 30)
    assert pair.correlation > 0.985
    assert pair.scale == pytest.approx(side / SIDE, abs=0.05)


def test_a_planted_crop_is_found_whichever_side_holds_it(films):
    images = torch.cat([cropped(films[4], 90, 11, 23)[None], films])
    (pair,) = near_duplicates(images, ["train"] + ["test"] * 30).pairs
    assert (pair.first, pair.second) == (5, 0)


def test_full_frame_correlation_would_miss_it(films):
    both = torch.stack([films[4], cropped(films[4], 78, 50, 37)]).flatten(1)
    assert torch.corrcoef(both)[0, 1] < 0.8


def test_pairs_within_a_split_are_not_listed(films):
    images = torch.cat([films, films[:1]])
    assert near_duplicates(images, ["train"] * 30 + ["train"]) == Alike([])


def test_threshold_and_order(films):
    images = torch.cat([films, films[:1], cropped(films[4], 100, 28, 0)[None]])
    split = ["train"] * 30 + ["test"] * 2
    pairs = near_duplicates(images, split).pairs
    assert [{pair.first, pair.second} for pair in pairs] == [{0, 30}, {4, 31}]
    assert pairs[0].correlation == pytest.approx(1, abs=1e-5)
    assert [{pair.first, pair.second} for pair in near_duplicates(images, split, threshold=0.9999).pairs] == [{0, 30}]


def brute_force(images: torch.Tensor, split: list[str], threshold: float) -> dict[tuple[int, int], tuple[float, int]]:
    """(first, second) -> correlation and side, one pair and crop at a time, with no bound and no block."""
    films = interpolate(images, (64, 64), mode="bilinear", antialias=True, align_corners=False)

    def vector(film: torch.Tensor, side: int, top: int, left: int, size: int) -> torch.Tensor:
        part = film[None, :, top : top + side, left : left + side]
        flat = interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False).flatten()
        return (flat - flat.mean()) / (flat - flat.mean()).norm().clamp_min(1e-6)

    sweep = []
    for side in (64, 61, 58, 55, 52, 49, 46, 43, 40, 38):
        corners = sorted({*range(0, 64 - side, 3), 64 - side})
        sweep += [(side, top, left) for top in corners for left in corners]
    found: dict[tuple[int, int], tuple[float, int]] = {}
    whole = {size: torch.stack([vector(film, 64, 0, 0, size) for film in films]) for size in (12, 32)}
    for first, film in enumerate(films):
        coarse = torch.stack([vector(film, *crop, 12) for crop in sweep]) @ whole[12].T  # (crops, N)
        for second in range(len(films)):
            if split[first] == split[second] or coarse[:, second].max() < threshold - 0.06:
                continue
            best = sweep[int(coarse[:, second].argmax())]
            for step in (2, 1):
                side, top, left = best
                near = [
                    (side + wider, top + down - wider // 2, left + right - wider // 2)
                    for wider, down, right in product((0, -step, step), repeat=3)
                ]
                near = [(s, t, u) for s, t, u in near if 38 <= s <= 64 and 0 <= t <= 64 - s and 0 <= u <= 64 - s]
                values = torch.stack([vector(film, *crop, 32) @ whole[32][second] for crop in near])
                best, value = near[int(values.argmax())], values.max().item()
            key = (min(first, second), max(first, second))
            if value >= threshold and value > found.get(key, (0.0, 0))[0]:
                found[key] = (value, best[0])
    return found


LOW = 0.65


@pytest.fixture(scope="module")
def crowd(films) -> tuple[torch.Tensor, list[str], dict[tuple[int, int], tuple[float, int]]]:
    """Films that have much in common, in three splits, and the pairs among them by brute force."""
    mixed = 0.6 * films[:1] + 0.4 * films[1:15]
    images = torch.cat([mixed, cropped(mixed[0], 90, 5, 30)[None], mixed[3:4]])
    split = ["train", "test", "val", "train"] * 4
    return images, split, brute_force(images, split, LOW)


def as_found(alike: Alike) -> dict[tuple[int, int], tuple[float, int]]:
    return {(min(p.first, p.second), max(p.first, p.second)): (p.correlation, round(p.scale * 64)) for p in alike.pairs}


@pytest.mark.parametrize(
    "changed",
    [{}, {"ROWS": 3, "COLUMNS": 2, "HELD": 1, "REFINED": 2}, {"DENSE": -1}, {"COMPONENTS": 1}],
    ids=["as it is", "small blocks", "no gathering", "a poor bound"],
)
def test_the_blocks_and_the_bound_lose_no_pair(crowd, monkeypatch, changed):
    images, split, truth = crowd
    for name, value in changed.items():
        monkeypatch.setattr(near, name, value)
    torch.set_num_threads(2)
    found = as_found(near_duplicates(images, split, threshold=LOW))
    assert len(truth) > 8 and found.keys() == truth.keys()
    for pair, (value, side) in truth.items():
        assert found[pair] == (pytest.approx(value, abs=1e-5), side)
    assert torch.get_num_threads() == 2


def test_the_bound_is_above_every_product():
    draw = generator(0, "bound")
    x, y = (torch.nn.functional.normalize(torch.randn(50, 30, generator=draw), dim=1) for _ in range(2))
    basis = torch.linalg.qr(torch.randn(30, 6, generator=draw)).Q
    bound = near._bounds(x, basis) @ near._bounds(y, basis).T
    assert (bound >= x @ y.T - 1e-6).all() and (near._bounds(x, basis) @ near._bounds(x, basis).T).diag().allclose(
        torch.ones(50), atol=1e-5
    )


def test_many_pairs_are_counted_and_the_most_alike_listed(crowd, monkeypatch):
    images, split, truth = crowd
    monkeypatch.setattr(duplicates, "LISTED", 3)
    monkeypatch.setattr(near, "ROWS", 4)
    alike = near_duplicates(images, split, threshold=LOW)
    best = sorted(truth.values(), reverse=True)[:3]
    assert [pair.correlation for pair in alike.pairs] == pytest.approx([value for value, _ in best], abs=1e-5)
    assert len(truth) - 3 <= alike.more <= 2 * len(truth)


def test_the_same_film_twice_in_a_split_is_searched_once(films):
    images = torch.cat([films[:4], films[:1], films[:1], films[:1]])
    split, seen = ["train"] * 5 + ["test"] * 2, []
    alike = near_duplicates(images, split, hashes=["a", "b", "", "", "a", "c", "c"], progress=seen.append)
    assert [(pair.first, pair.second) for pair in alike.pairs] in ([(0, 5)], [(5, 0)])
    assert sum(seen) == 7


def test_many_films_that_stand_twice_are_counted(monkeypatch):
    monkeypatch.setattr(duplicates, "LISTED", 2)
    names = [f"f{index}" for index in range(10)]
    with pytest.raises(UserError) as caught:
        require_distinct(names, [str(index // 2) for index in range(10)], ["c"] * 10, ["train", "test"] * 5)
    lines = str(caught.value).split("\n")
    assert len(lines) == 3 and lines[2] == "... and 3 more films that stand twice"


@pytest.mark.realdata
def test_real_films_cropped(real_data):
    columns = {"path": "file", "patient_id": "group"}
    cohort = read_cohort(real_data / "cxr" / "metadata.csv", columns=columns)
    rows = list(range(0, len(cohort), 35))
    images = decode([cohort.paths[row] for row in rows], SIDE, workers=2).images
    planted = torch.stack([cropped(image, 84 + index, index % 20, 7) for index, image in enumerate(images[:20])])
    pairs = near_duplicates(torch.cat([images, planted]), ["train"] * len(rows) + ["test"] * 20).pairs
    assert {(pair.first, pair.second) for pair in pairs} == {(index, len(rows) + index) for index in range(20)}


@pytest.mark.realdata
def test_real_films_against_brute_force(real_data):
    """A few of the 1,750, across groups, from a correlation that many reach."""
    cohort = read_cohort(real_data / "cxr" / "metadata.csv", columns={"path": "file", "patient_id": "group"})
    paths = cohort.paths[::100]
    images = decode(paths, SIDE, workers=2).images
    split = [("train", "test")[index % 2] for index in range(len(paths))]
    truth = brute_force(images, split, 0.9)
    found = as_found(near_duplicates(images, split, threshold=0.9))
    assert found.keys() == truth.keys() and truth
    assert all(found[pair] == (pytest.approx(value, abs=1e-5), side) for pair, (value, side) in truth.items())
