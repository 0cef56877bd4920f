"""One arm of a table: several fresh students trained on one set of images, and what they are worth."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medistill.data.imageset import ImageSet, require_classes
from medistill.errors import UserError
from medistill.evaluate import metrics
from medistill.evaluate.student import Recipe, fit_all, predict
from medistill.nets import Architecture
from medistill.resources import Used
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
        seeds: one student each.
        thresholds: for each student Youden's threshold on the validation films.
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
    seeds: tuple[int, ...]
    thresholds: tuple[float, ...]
    val_runs: tuple[dict[str, float], ...]
    val_summary: dict[str, tuple[float, float]]
    test_runs: tuple[dict[str, float], ...]
    test_summary: dict[str, tuple[float, float]]
    bootstrap: metrics.Bootstrap
    confusion: tuple[tuple[int, ...], ...]
    roc: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The arm as plain dicts, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Arm":
        """The arm that `to_json` wrote, after a way through a JSON file."""
        recipe = values["recipe"] | {"augment": tuple(values["recipe"]["augment"])}
        bootstrap = values["bootstrap"]
        pairs = {name: tuple(pair) for name, pair in bootstrap["intervals"].items()}
        summaries = {
            name: {metric: tuple(pair) for metric, pair in values[name].items()}
            for name in ("val_summary", "test_summary")
        }
        lists = {
            name: tuple(values[name]) for name in ("classes", "seeds", "thresholds", "val_runs", "test_runs", "roc")
        }
        return cls(
            **{
                **values,
                **lists,
                **summaries,
                "recipe": Recipe(**recipe),
                "bootstrap": metrics.Bootstrap(**{**bootstrap, "intervals": pairs}),
                "confusion": tuple(tuple(row) for row in values["confusion"]),
            }
        )


def evaluate_arm(
    name: str,
    images: Tensor,
    targets: Tensor,
    lr: float,
    architecture: Architecture,
    recipe: Recipe,
    val: ImageSet,
    test: ImageSet,
    positive: str,
    seeds: Sequence[int],
    base_seed: int,
    device: torch.device,
    resamples: int = 1000,
    progress: Callable[[int], None] = lambda steps: None,
    compiled: bool | None = None,
    told: Callable[[Used], None] | None = None,
) -> Arm:
    """Train one student a seed on normalised images (N, C, H, W), targets (N, K) or (N,), and measure it.

    Arms with the same base seed share each seed's initial network, so their differences are paired.
    `progress`, `compiled` and `told` are those of `fit_all`. Raises UserError for a class without a film in `val` or
    `test`, an unknown positive class, or a loss that diverges.
    """
    _check(val, test, positive)
    val_pixels, test_pixels = val.pixels(), test.pixels()
    generators = [generator(base_seed, "student", seed) for seed in seeds]
    students = fit_all(images, targets, architecture, lr, recipe, generators, device, progress, compiled, told=told)
    predicted = {
        number: (predict(student, val_pixels, device), predict(student, test_pixels, device))
        for number, student in students
    }
    on_val, on_test = zip(*(predicted[number] for number in range(len(seeds))), strict=True)
    return arm_from_predictions(
        name, len(images), lr, recipe, on_val, on_test, val, test, positive, seeds, base_seed, resamples
    )


def arm_from_predictions(
    name: str,
    images: int,
    lr: float,
    recipe: Recipe,
    on_val: Sequence[Tensor],
    on_test: Sequence[Tensor],
    val: ImageSet,
    test: ImageSet,
    positive: str,
    seeds: Sequence[int],
    base_seed: int,
    resamples: int = 1000,
) -> Arm:
    """Measure the students whose probabilities on `val` and `test`, (N, K) each, are given."""
    classes, target = test.classes, test.classes.index(positive)
    is_positive = test.labels == target
    thresholds = [_threshold(p, val, target) for p in on_val]
    val_runs, test_runs = (
        tuple(
            metrics.measure(p, split.labels, classes, positive, threshold)
            for p, threshold in zip(predictions, thresholds, strict=True)
        )
        for predictions, split in ((on_val, val), (on_test, test))
    )
    return Arm(
        name=name,
        images=images,
        lr=lr,
        recipe=recipe,
        classes=classes,
        positive=positive,
        seeds=tuple(seeds),
        thresholds=tuple(thresholds),
        val_runs=val_runs,
        val_summary=metrics.summary(val_runs),
        test_runs=test_runs,
        test_summary=metrics.summary(test_runs),
        bootstrap=metrics.bootstrap_by_patient(
            on_test,
            test.labels,
            test.groups,
            classes,
            positive,
            thresholds,
            generator(base_seed, "bootstrap"),
            resamples,
        ),
        confusion=_summed([metrics.confusion(p, test.labels) for p in on_test]),
        roc=tuple(np.mean([metrics.roc_points(p[:, target], is_positive) for p in on_test], axis=0).tolist()),
    )


def _threshold(probabilities: Tensor, val: ImageSet, target: int) -> float:
    """Youden's threshold for the target class on the validation films."""
    return metrics.youden_threshold(probabilities[:, target], val.labels == target)


def _summed(matrices: Sequence[list[list[int]]]) -> tuple[tuple[int, ...], ...]:
    """The elementwise sum of confusion matrices."""
    return tuple(tuple(row) for row in np.sum(matrices, axis=0).tolist())


def _check(val: ImageSet, test: ImageSet, positive: str) -> None:
    """Raise a UserError for splits that cannot be measured."""
    for split in (val, test):
        require_classes(split)
    if positive not in test.classes:
        raise UserError(
            f"evaluation: the positive class {positive!r} is not among the classes "
            f"{', '.join(test.classes)}; name one of these"
        )
