"""Duplicates: exact ones by hash, planted crops by correlation, and nothing where there is nothing."""

import pytest
import torch
from torch.nn.functional import interpolate

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


@pytest.mark.realdata
def test_real_films_cropped(real_data):
    columns = {"path": "file", "patient_id": "group"}
    cohort = read_cohort(real_data / "cxr" / "metadata.csv", columns=columns)
    rows = list(range(0, len(cohort), 35))
    images = decode([cohort.paths[row] for row in rows], SIDE, workers=2).images
    planted = torch.stack([cropped(image, 84 + index, index % 20, 7) for index, image in enumerate(images[:20])])
    pairs = near_duplicates(torch.cat([images, planted]), ["train"] * len(rows) + ["test"] * 20).pairs
    assert {(pair.first, pair.second) for pair in pairs} == {(index, len(rows) + index) for index in range(20)}
