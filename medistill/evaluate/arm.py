"""One arm of a table: several fresh students trained on one set of images, and what they are worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from medistill.data.imageset import ImageSet
from medistill.evaluate import metrics
from medistill.evaluate.predictions import Predictions, require_finite, require_positive
from medistill.evaluate.student import Recipe
from medistill.seeds import generator


@dataclass(frozen=True)
class Arm:
    """What the students of one arm reach; choose by `val_*` alone and report `test_*` once.

    Attributes:
        name: shown in tables and legends.
        images: how many images a student saw.
        lr: the students' learning rate.
        recipe: how they were trained.
        classes: the class names, in the order of the confusion matrix.
        positive: the class that sensitivity, specificity and the ROC speak of.
        thresholds: for each student that of the validation films.
        val_runs: metrics of each student on the validation films, where its threshold was chosen: sensitivity
            and specificity flatter there.
        val_summary: mean and standard deviation over the students.
        test_runs: metrics of each student on the test films.
        test_summary: mean and standard deviation over the students.
        bootstrap: intervals of the means in `test_summary` over test patients; they leave out the chance of
            training.
        confusion: K x K test films, true class by row, summed over the students.
        roc: mean true positive rate of the students at false positive rates 0, .01, ... 1, on the test films.
    """

    name: str
    images: int
    lr: float
    recipe: Recipe
    classes: tuple[str, ...]
    positive: str
    thresholds: tuple[float, ...]
    val_runs: tuple[dict[str, float], ...]
    val_summary: dict[str, tuple[float, float]]
    test_runs: tuple[dict[str, float], ...]
    test_summary: dict[str, tuple[float, float]]
    bootstrap: metrics.Bootstrap
    confusion: tuple[tuple[int, ...], ...]
    roc: tuple[float, ...]


def measured_arm(
    name: str,
    images: int,
    lr: float,
    recipe: Recipe,
    found: Predictions,
    val: ImageSet,
    test: ImageSet,
    positive: str,
    base_seed: int,
    resamples: int = 1000,
    rule: Callable[[Tensor, Tensor], float] = metrics.youden_threshold,
) -> Arm:
    """Measure the students who gave these answers; thresholds come from `val` by `rule`, figures from `test`.

    Raises:
        UserError: an unknown positive class, or answers that are no probabilities.
    """
    require_positive(test, positive)
    require_finite(found, name, lr)
    classes, target = test.classes, test.classes.index(positive)
    is_positive = test.labels == target
    thresholds = [rule(p[:, target], val.labels == target) for p in found.val]
    val_runs, test_runs = (
        tuple(
            metrics.measure(p, split.labels, classes, positive, threshold)
            for p, threshold in zip(answers, thresholds, strict=True)
        )
        for answers, split in ((found.val, val), (found.test, test))
    )
    return Arm(
        name=name,
        images=images,
        lr=lr,
        recipe=recipe,
        classes=classes,
        positive=positive,
        thresholds=tuple(thresholds),
        val_runs=val_runs,
        val_summary=metrics.summary(val_runs),
        test_runs=test_runs,
        test_summary=metrics.summary(test_runs),
        bootstrap=metrics.bootstrap_by_patient(
            list(found.test),
            test.labels,
            test.groups,
            classes,
            positive,
            thresholds,
            generator(base_seed, "bootstrap"),
            resamples,
        ),
        confusion=_summed([metrics.confusion(p, test.labels) for p in found.test]),
        roc=tuple(np.mean([metrics.roc_points(p[:, target], is_positive) for p in found.test], axis=0).tolist()),
    )


def _summed(matrices: Sequence[list[list[int]]]) -> tuple[tuple[int, ...], ...]:
    """The elementwise sum of confusion matrices."""
    return tuple(tuple(row) for row in np.sum(matrices, axis=0).tolist())
