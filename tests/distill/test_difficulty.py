"""Difficulty-aligned matching (DATM): the range of starts, labels of an expert, starts that it classifies rightly."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from medistill import augment, seeds
from medistill.cli import configure
from medistill.config import Distill
from medistill.config.difficulty import Difficulty
from medistill.distill import initial
from medistill.distill.course import Given
from medistill.distill.iadd import start_epochs
from medistill.distill.matching import iadd
from medistill.distill.unroll import draw_steps
from medistill.errors import UserError
from medistill.experts.trajectory import Trajectories
from medistill.nets import Flat
from medistill.stages import start as stage

SETTINGS = Distill(
    ipc=2,
    iterations=8,
    inner_steps=3,
    expert_epochs=1,
    max_start_epoch=4,
    importance="off",
    loss_limit=1e6,
    alpha=0.05,
    momentum=0.0,
)


def given(trajectories):
    """Float64 noise for three classes."""
    start = initial.noise((6, 1, 16, 16), 1.0, 0.0, seeds.generator(0, "start")).double()
    labels = F.one_hot(initial.labels_of(3, 2), 3).double()
    return Given(start, labels, trajectories.architecture, 3, trajectories)


def logits_by_hand(trajectories, images):
    """Of the first expert after its last epoch, by torch's own modules."""
    module = trajectories.architecture.build(torch.Generator()).double()
    torch.nn.utils.vector_to_parameters(trajectories.rows(0, trajectories.epochs)[0], module.parameters())
    with torch.no_grad():
        return module(images)


@pytest.mark.parametrize(
    ("difficulty", "iterations", "last", "ends"),
    [
        ({}, 4, 6, [6, 6, 6, 6]),
        ({"first_max": 2, "widened_at": 4}, 7, 6, [2, 3, 4, 5, 6, 6, 6]),
        ({"first_max": 2, "widened_at": 8}, 10, 6, [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]),
        ({"first_max": 3}, 7, 6, [3, 3, 4, 4, 5, 5, 6]),  # to the last iteration
        ({"first_max": 3}, 1, 6, [3]),
        ({"first_max": 9}, 3, 6, [6, 6, 6]),
    ],
)
def test_the_range_of_starts_grows_evenly_by_hand(difficulty, iterations, last, ends):
    settings = replace(SETTINGS, iterations=iterations, max_start_epoch=last, difficulty=Difficulty(**difficulty))
    assert [start_epochs(settings, iteration) for iteration in range(iterations)] == [(0, end) for end in ends]
    later = replace(settings, difficulty=replace(settings.difficulty, min_start_epoch=1))
    assert [start_epochs(later, iteration) for iteration in range(iterations)] == [(1, end) for end in ends]


def test_every_iteration_of_a_long_run_has_the_range_of_exact_arithmetic():
    """29 / 100 * 100 is below 29 in floating point."""
    settings = replace(
        SETTINGS, iterations=101, max_start_epoch=101, difficulty=Difficulty(first_max=1, widened_at=100)
    )
    assert [start_epochs(settings, iteration)[1] for iteration in range(101)] == list(range(1, 102))


def test_segments_start_within_the_range_and_everywhere_in_it(trajectories, monkeypatch):
    asked, rows = [], Trajectories.rows

    def watched(self, expert, *epochs):
        asked.append(epochs)
        return rows(self, expert, *epochs)

    monkeypatch.setattr(Trajectories, "rows", watched)
    grows = Difficulty(min_start_epoch=1, first_max=2, widened_at=4)
    settings = replace(SETTINGS, difficulty=grows, segments=12, inner_steps=1)
    for _ in iadd(given(trajectories), settings).run():
        pass
    ranges = [{start for start, _ in asked[12 * iteration : 12 * iteration + 12]} for iteration in range(8)]
    assert ranges == [{1}, {1}, {1, 2}, {1, 2}, *[{1, 2, 3}] * 4]
    assert all(target == start + 1 for start, target in asked)


def test_labels_start_as_the_logits_of_the_expert(trajectories):
    settings = replace(SETTINGS, soft_labels=True, difficulty=Difficulty(labels="expert"))
    material = given(trajectories)
    expected = logits_by_hand(trajectories, material.start)
    torch.testing.assert_close(iadd(material, settings).begun.logits, expected, rtol=1e-10, atol=1e-10)
    fixed = iadd(material, replace(settings, lr_labels=0.0))
    for _ in fixed.run():
        pass
    torch.testing.assert_close(fixed.made().labels, expected.softmax(1), rtol=1e-10, atol=1e-10)


def test_labels_are_learned_from_there_as_autograd_says(trajectories):
    settings = replace(SETTINGS, iterations=1, soft_labels=True, lr_labels=5.0, difficulty=Difficulty(labels="expert"))
    material = given(trajectories)
    course = iadd(material, settings)
    for _ in course.run():
        pass
    logits = logits_by_hand(trajectories, material.start).requires_grad_()
    g = seeds.generator(3, "distill", 0)
    expert, i = int(torch.randint(2, (), generator=g)), int(torch.randint(0, 4, (), generator=g))
    start, target = trajectories.rows(expert, i, i + 1)
    net = Flat(trajectories.architecture).to(torch.device("cpu"), torch.float64)
    theta = start.requires_grad_()
    for step in draw_steps(6, 0, 3, settings.augment, g):
        out = net(theta, augment.apply(material.start[step.index], step.drawn)).log_softmax(1)
        loss = -(logits.softmax(1)[step.index] * out).sum(1).mean()
        theta = theta - 0.05 * torch.autograd.grad(loss, theta, create_graph=True)[0]
    ((theta - target).square().sum() / (start - target).square().sum()).backward()
    moved = logits.detach() - 5.0 * logits.grad
    assert (moved - logits).abs().max() > 1e-6
    torch.testing.assert_close(course.begun.logits, moved, rtol=1e-9, atol=1e-12)


def test_a_correct_start_takes_only_films_that_the_expert_classifies_rightly(trajectories, monkeypatch):
    films = torch.randn(300, 1, 16, 16, generator=seeds.generator(1, "films")).double().cumsum(2).cumsum(3)
    said = logits_by_hand(trajectories, films).argmax(1)
    # the expert is right on every third film, and each patient has two
    labels = torch.where(torch.arange(300) % 3 == 0, said, (said + 1) % 3)
    right = torch.nonzero(labels == said).flatten().tolist()
    classes = tuple(f"class {k}" for k in range(3))
    train = SimpleNamespace(pixels=lambda: films, labels=labels, groups=torch.arange(300) // 2, classes=classes)
    fewest = min(int((said[right] == k).sum()) for k in range(3))
    monkeypatch.setattr(stage, "trained", lambda session, splits: trajectories)

    def chosen(correct, ipc):
        settings = Distill(ipc=ipc, start="real", difficulty=Difficulty(correct=correct))
        session = SimpleNamespace(config=SimpleNamespace(distill=settings, seed=0))
        return stage.start_films(session, SimpleNamespace(train=train)).tolist()

    assert fewest >= 2
    for ipc in range(1, fewest + 1):
        films_of_start = chosen(True, ipc)
        assert set(films_of_start) <= set(right) and len(set(films_of_start)) == 3 * ipc
        assert labels[films_of_start].tolist() == [k for k in range(3) for _ in range(ipc)]
    assert not set(chosen(False, fewest)) <= set(right)
    with pytest.raises(UserError, match="the first expert is right about fewer films of class"):
        chosen(True, fewest + 1)


def test_the_run_is_the_same_when_all_are_off(trajectories):
    """Sets that were distilled before it was there are found again, and are the same."""
    assert "difficulty" not in Distill().decides()
    for name, value in (("min_start_epoch", 1), ("first_max", 2), ("widened_at", 3), ("labels", "expert")):
        changed = Distill(soft_labels=True, difficulty=Difficulty(**{name: value}))
        assert changed.decides()["difficulty"][name] == value
    assert Distill(start="real", difficulty=Difficulty(correct=True)).decides()["difficulty"]["correct"] is True
    off, whole = (iadd(given(trajectories), replace(SETTINGS, difficulty=d)) for d in (Difficulty(), Difficulty(0, 4)))
    for course in (off, whole):
        for _ in course.run():
            pass
    assert torch.equal(off.made().images, whole.made().images)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"min_start_epoch": -1}, r"difficulty\.min_start_epoch is -1; give 0 or more"),
        ({"widened_at": -1}, r"difficulty\.widened_at is -1; give 0 or more"),
        ({"min_start_epoch": 3, "first_max": 3}, r"first_max is 3, not above min_start_epoch 3"),
    ],
)
def test_wrong_settings_are_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        Difficulty(**changes)


def test_the_shipped_config_has_the_published_settings():
    config = configure("run", ["--config", "configs/cifar10_datm.yaml"])
    settings = config.distill
    assert settings.difficulty == Difficulty(first_max=10, widened_at=1000, labels="expert", correct=True)
    assert settings.method == "mtt" and settings.soft_labels and settings.start == "real"
    assert (settings.inner_steps, settings.expert_epochs, settings.max_start_epoch) == (80, 2, 20)
    assert (settings.lr_images, settings.lr_labels, settings.ema, settings.alpha) == (100, 2, 0.9995, 0.01)
    assert config.experts.flat.on


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dm", "difficulty": Difficulty(first_max=2)}, "matches no trajectories"),
        ({"difficulty": Difficulty(labels="expert")}, "labels are not learned; set distill.soft_labels to true"),
        ({"difficulty": Difficulty(correct=True)}, "distill.start is noise, which takes no film"),
        ({"method": "seqmatch", "ipc": 1}, "distill.ipc is 1, but each of distill.seqmatch.subsets 2"),
    ],
)
def test_no_setting_is_silently_without_effect(settings, message):
    with pytest.raises(UserError, match=message):
        Distill(**settings)
