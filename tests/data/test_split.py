"""The split: whole patients, each class in its share, the same from the same seed."""

import numpy as np
import pytest

from medistill.data.split import split_patients
from medistill.errors import UserError

CLASSES = ("a", "b", "c")


def cohort(patients: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Labels in shares 5:3:2, one to four films a patient; some patients carry two labels."""
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(patients), draw.integers(1, 5, patients))
    labels = draw.choice(3, patients, p=(0.5, 0.3, 0.2))[groups]
    labels[::17] = (labels[::17] + 1) % 3
    return labels.astype(np.int64), groups.astype(np.int64)


def split(labels, groups, **options):
    options = {"val_fraction": 0.1, "test_fraction": 0.2, "seed": 7} | options
    return split_patients(labels, groups, classes=CLASSES, **options)


def crossing(groups, names) -> int:
    return sum(len(set(names[groups == group])) > 1 for group in np.unique(groups))


def test_patients_stay_whole_and_classes_keep_their_shares():
    labels, groups = cohort()
    names = split(labels, groups)
    assert crossing(groups, names) == 0
    total = np.bincount(labels)
    for name, share in (("test", 0.2), ("val", 0.08), ("train", 0.72)):
        assert np.abs(np.bincount(labels[names == name], minlength=3) / total - share).max() < 0.03


def test_same_seed_same_split_other_seed_other_split():
    labels, groups = cohort()
    assert np.array_equal(split(labels, groups), split(labels, groups))
    assert not np.array_equal(split(labels, groups), split(labels, groups, seed=8))


def test_given_test_is_respected_and_val_comes_from_train():
    labels, groups = cohort()
    given = np.where(groups % 5 == 0, "test", "train")
    names = split(labels, groups, given=given.tolist(), val_fraction=0.25)
    assert np.array_equal(names == "test", given == "test")
    assert crossing(groups, names) == 0
    train = given == "train"
    share = np.bincount(labels[names == "val"]) / np.bincount(labels[train])
    assert np.abs(share - 0.25).max() < 0.03


def test_three_given_splits_stay_as_they_are():
    labels, groups = cohort()
    given = np.array(["train", "val", "test"])[groups % 3]
    assert np.array_equal(split(labels, groups, given=given.tolist()), given)


def test_a_share_over_one_half():
    labels, groups = cohort()
    names = split(labels, groups, test_fraction=0.75)
    assert abs((names == "test").mean() - 0.75) < 0.03 and crossing(groups, names) == 0


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_impossible_fractions(fraction):
    with pytest.raises(UserError, match=r"data\.test_fraction"):
        split(*cohort(), test_fraction=fraction)


def test_a_class_that_cannot_be_everywhere():
    labels, groups = cohort()
    labels = np.where(labels == 2, 0, labels)
    labels[groups == 3] = 2
    with pytest.raises(UserError, match=r"split has no film of c"):
        split(labels, groups)


def test_too_few_patients():
    with pytest.raises(UserError, match=r"data\.test_fraction: 3 patients are too few to set 1 in 5 apart"):
        split(np.array([0, 1, 2]), np.array([0, 1, 2]))


def test_a_given_split_without_test():
    labels, groups = cohort()
    with pytest.raises(UserError, match="the given split has no test"):
        split(labels, groups, given=["train"] * len(labels))
