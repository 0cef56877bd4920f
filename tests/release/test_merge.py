"""Distilled sets put together: images, names and step size are those of the parts; what does not fit is refused."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from medistill.data.zca import Zca
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.evaluate.student import Recipe, fit
from medistill.nets import Architecture
from medistill.release.merge import combine, under
from medistill.seeds import generator

CPU = torch.device("cpu")
NAMES = ("north", "south", "west")


@pytest.fixture
def one(toy: dict[str, Any]) -> Distilled:
    made: Distilled = toy["distilled"]
    return made


def some(made: Distilled, rows: slice) -> Distilled:
    return replace(made, images=made.images[rows], labels=made.labels[rows])


def test_a_set_cut_in_two_is_whole_again(one: Distilled) -> None:
    whole = combine([some(one, slice(0, 2)), some(one, slice(2, 6))], NAMES[:2])
    assert torch.equal(whole.images, one.images) and torch.equal(whole.labels, one.labels)
    assert whole.lr == pytest.approx(one.lr, rel=1e-12)
    for name in ("classes", "mean", "std", "architecture", "augment"):
        assert getattr(whole, name) == getattr(one, name)


def test_students_of_a_set_and_of_its_halves_are_the_same(one: Distilled) -> None:
    """What merging is for: a network cannot tell whether the images came in one release or in two."""
    whole = combine([some(one, slice(0, 3)), some(one, slice(3, 6))], NAMES[:2])
    recipe = Recipe(steps=30, augment=("crop",))
    asked = torch.randn(5, 1, 16, 16, generator=generator(1, "asked"))
    answers = [
        fit(made.images, made.labels, made.architecture, made.lr, recipe, generator(0, "student"), CPU)(asked)
        for made in (one, whole)
    ]
    assert torch.allclose(*answers, atol=1e-5) and not torch.allclose(answers[0], answers[0].flip(0), atol=1e-2)


def test_the_step_size_is_the_mean_of_logarithms_by_images_whatever_the_order(one: Distilled) -> None:
    few, many = replace(some(one, slice(0, 2)), lr=0.001), replace(some(one, slice(2, 6)), lr=0.1)
    third = replace(one, lr=0.02)
    merged = combine([few, many], NAMES[:2])
    assert merged.lr == pytest.approx((0.001**2 * 0.1**4) ** (1 / 6))
    at_once = combine([few, many, third], NAMES)
    assert combine([merged, third], NAMES[:2]).lr == pytest.approx(at_once.lr, rel=1e-12)
    assert combine([third, many, few], NAMES).lr == pytest.approx(at_once.lr, rel=1e-12)


def test_labels_follow_the_names_not_the_order(one: Distilled) -> None:
    soft = torch.tensor([[0.7, 0.2, 0.1]] * 6)
    turned = replace(one, classes=("normal", "COVID", "lung opacity"), labels=soft)
    merged = combine([one, turned], NAMES[:2])
    assert merged.classes == ("COVID", "lung opacity", "normal")
    assert torch.equal(merged.labels[6:], torch.tensor([[0.2, 0.1, 0.7]] * 6))
    assert torch.equal(merged.labels[:6], one.labels)


def test_a_class_that_a_site_lacks_has_probability_0(one: Distilled) -> None:
    two = replace(
        one,
        classes=("normal", "tuberculosis"),
        labels=torch.tensor([[0.25, 0.75]] * 6),
        architecture=replace(one.architecture, classes=2),
    )
    with pytest.raises(UserError, match=r"south: its classes are normal, tuberculosis, those of north COVID, .*union"):
        combine([one, two], NAMES[:2])
    merged = combine([one, two], NAMES[:2], "union")
    assert merged.classes == ("COVID", "lung opacity", "normal", "tuberculosis")
    assert merged.architecture == replace(one.architecture, classes=4)
    assert torch.equal(merged.labels[6:], torch.tensor([[0, 0, 0.25, 0.75]] * 6))
    assert torch.equal(merged.labels[:6], torch.nn.functional.pad(one.labels, (0, 1)))
    assert merged.architecture.build(generator(0))(merged.images).shape == (12, 4)
    # a subset is another set of classes too
    fewer = replace(one, classes=("normal", "COVID"), labels=torch.tensor([[1.0, 0.0]] * 6))
    with pytest.raises(UserError, match="--classes union"):
        combine([one, fewer], NAMES[:2])
    assert combine([fewer, one], NAMES[:2], "union").classes == ("normal", "COVID", "lung opacity")


def test_under_keeps_every_probability() -> None:
    labels = torch.rand(4, 3, generator=generator(0, "labels")).softmax(1)
    spread = under(labels, ("b", "a", "d"), ("a", "b", "c", "d"))
    assert torch.equal(spread, torch.stack([labels[:, 1], labels[:, 0], torch.zeros(4), labels[:, 2]], 1))


def test_the_network_is_that_of_most_images_and_augmentation_what_all_share(one: Distilled) -> None:
    wide = Architecture("convnet", 1, 3, 16, 8, 2)
    few = replace(some(one, slice(0, 4)), architecture=wide, augment=("crop", "rotate", "flip"))
    assert combine([few, one], NAMES[:2]).architecture == one.architecture
    assert combine([few, some(one, slice(0, 4))], NAMES[:2]).architecture == wide
    assert combine([few, one], NAMES[:2]).augment == ("crop", "flip")


def smaller(one: Distilled) -> Distilled:
    return replace(one, images=one.images[..., ::2, ::2])


def colour(one: Distilled) -> Distilled:
    return replace(one, images=one.images.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (smaller, "south: images of 8 × 8 pixels in 1 channel where north has 16 × 16 pixels .*data.size 16"),
        (colour, "south: images of 16 × 16 pixels in 3 channels where north"),
        (lambda one: replace(one, mean=(0.4,)), r"south: normalised by mean \[0.4\] .* where north is by \[0.5\]"),
        (lambda one: replace(one, std=(0.2,)), r"south: normalised by .* deviation \[0.2\]"),
        (
            lambda one: replace(one, sequence=((3, 0.1), (6, 0.2)), provenance={"method": "SeqMatch"}),
            r"south: its images must be learned in their order \(method SeqMatch\)",
        ),
        (lambda one: replace(one, zca=Zca.fit(torch.randn(9, 1, 4, 4))), "south: its images are whitened"),
    ],
)
def test_what_would_mean_something_else_is_refused(one: Distilled, change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        combine([one, change(one)], NAMES[:2])


def test_a_step_size_of_any_magnitude_stays_finite(one: Distilled) -> None:
    tiny, huge = replace(one, lr=1e-300), replace(one, lr=1e300)
    assert math.isclose(combine([tiny, huge], NAMES[:2]).lr, 1.0, rel_tol=1e-9)
