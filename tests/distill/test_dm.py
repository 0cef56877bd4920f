"""DM against sums done by hand, and against torch.optim on the whole loss."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from medistill import augment, seeds
from medistill.config import Distill
from medistill.config.surrogate import Dc, Dm
from medistill.distill.course import Films, Given
from medistill.distill.dm import dm
from medistill.distill.methods import METHODS
from medistill.errors import UserError
from medistill.nets import Architecture

GRAY = Architecture("convnet", 1, 2, 16, 4, 2)
COLOUR = Architecture("convnet", 3, 3, 16, 5, 2)


@dataclass(frozen=True)
class Fixed:
    """Stands for an architecture: always these features before its linear head."""

    features: nn.Module

    def build(self, generator):
        return nn.Sequential(nn.Flatten(), self.features, nn.Linear(2, 2))


def pixels(*pairs):
    """(n, 1, 1, 2) float64 images of two pixels."""
    return torch.tensor(pairs, dtype=torch.float64).view(-1, 1, 1, 2)


def one_hot(labels):
    return torch.nn.functional.one_hot(torch.tensor(labels)).double()


def by_hand(features=None, batch=256, momentum=0.5, lr=0.25, films=None):
    """Two pixels; class 0 has three films and two images, class 1 two films and one image."""
    own = Films(pixels([1, 0], [3, 0], [2, 6], [4, 4], [0, 8]), torch.tensor([0, 0, 0, 1, 1]))
    start = pixels([0, 0], [2, 2], [1, 1])
    given = Given(start, one_hot([0, 0, 1]), Fixed(features or nn.Identity()), 5, films=films or own)
    return dm(given, Distill(augment=[], dm=Dm(2, batch, lr, momentum, 0.03)))


def problem(architecture, seed=3, films=9, ipc=2):
    """Random films, fewer of the last class, and random start images."""
    g, classes = torch.Generator().manual_seed(1), architecture.classes
    shape = (architecture.channels, architecture.size, architecture.size)
    labels = torch.arange(films * classes - 2) // films
    real = torch.randn(len(labels), *shape, generator=g).double()
    start = torch.randn(classes * ipc, *shape, generator=g).double()
    targets = one_hot(sorted(list(range(classes)) * ipc))
    return Given(start, targets, architecture, seed, films=Films(real, labels))


def test_two_steps_by_hand():
    """Features are the pixels. Class 0: mean film (2, 2), images' (1, 1); class 1: film (2, 6), image (1, 1)."""
    course = by_hand()
    run = course.run()
    next(run)
    # losses (1 + 1) and (1 + 25); slopes 2 (image - film) / ipc, times the step size .25
    assert course.history.tolist() == [[28.0]]
    expected = pixels([0.25, 0.25], [2.25, 2.25], [1.5, 3.5])
    assert torch.allclose(course.pixels.images, expected, atol=1e-12)
    next(run)
    # means of images are (1.25, 1.25) and (1.5, 3.5); velocity .5 (-1, -1) + (-.75, -.75), .5 (-2, -10) + (-1, -5)
    assert course.history[1].tolist() == pytest.approx([2 * 0.75**2 + 0.5**2 + 2.5**2])
    expected = expected + 0.25 * pixels([1.25, 1.25], [1.25, 1.25], [2, 10])
    assert torch.allclose(course.pixels.images, expected, atol=1e-12)
    assert list(run) == []
    made = course.made()
    assert torch.equal(made.images, course.pixels.images) and made.lr == 0.03
    assert made.labels.tolist() == [[1, 0], [1, 0], [0, 1]] and made.provenance == {"networks": 2}


def test_a_linear_map_by_hand():
    """Features W x with W = [[1, 1], [0, 2]]: the slope of class 1 is 2 W'W (image - mean film)."""
    features = nn.Linear(2, 2, bias=False).double()
    features.weight.data = torch.tensor([[1.0, 1.0], [0.0, 2.0]]).double()
    course = by_hand(features, momentum=0.0)
    next(course.run())
    # W (mean film - mean image) is (2, 2) and (6, 10)
    assert course.history.tolist() == [[8 + 136]]
    # W'(2, 2) = (2, 6) for each of two images: slope -2/2 of it; W'(6, 10) = (6, 26): slope -2 of it
    expected = pixels([0.5, 1.5], [2.5, 3.5], [1 + 3, 1 + 13])
    assert torch.allclose(course.pixels.images, expected, atol=1e-12)


@pytest.mark.parametrize("architecture", [GRAY, COLOUR])
def test_steps_equal_torch_optim_on_the_whole_loss(architecture):
    """Every class fits into the batch, so only the networks are drawn."""
    given = problem(architecture)
    course = dm(given, Distill(augment=[], dm=Dm(3, lr=0.4, momentum=0.7)))
    assert len(list(course.run())) == 3
    x = given.start.clone().requires_grad_()
    optimizer, losses = torch.optim.SGD([x], 0.4, 0.7), []
    for iteration in range(3):
        net = architecture.build(seeds.generator(given.seed, "dm", iteration)).double()[:-1]
        means = [(net(given.films.of_class(k)).mean(0), net(x[2 * k : 2 * k + 2]).mean(0)) for k in range(len(x) // 2)]
        loss = sum((real - synthetic).pow(2).sum() for real, synthetic in means)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert course.history[:, 0].tolist() == pytest.approx(losses, rel=1e-10)
    assert (x - given.start).abs().max() > 1e-3
    assert torch.allclose(course.pixels.images, x.detach(), rtol=0, atol=1e-12)


def test_a_batch_is_of_one_class_without_repeats_and_another_one_each_time():
    """Class 0's films are 1, 2, 4, 8 and the image 0, so the mean of a batch of two tells which they are."""
    films = Films(pixels([1, 0], [2, 0], [4, 0], [8, 0], [64, 0]), torch.tensor([0, 0, 0, 0, 1]))
    given = Given(pixels([0, 0], [64, 0]), one_hot([0, 1]), Fixed(nn.Identity()), 5, films=films)
    course = dm(given, Distill(augment=[], dm=Dm(40, batch=2, lr=1e-12)))
    list(course.run())
    sums = {round(2 * loss**0.5) for loss in course.history[:, 0].tolist()}
    assert sums == {3, 5, 9, 6, 10, 12}


@pytest.mark.parametrize("operation", augment.OPERATIONS)
def test_equal_sets_stay_equal_under_the_siamese_augmentation(operation):
    """All films and all images of a class are one picture: numbers of their own would set them apart."""
    g = torch.Generator().manual_seed(0)
    picture = torch.randn(2, 1, 16, 16, generator=g).double()
    films = Films(picture.repeat_interleave(4, 0), torch.tensor([0] * 4 + [1] * 4))
    start = picture.repeat_interleave(3, 0)
    given = Given(start, one_hot([0, 0, 0, 1, 1, 1]), GRAY, 2, films=films)
    course = dm(given, Distill(augment=[operation], dm=Dm(4)))
    list(course.run())
    assert course.history.max() < 1e-24
    assert torch.allclose(course.pixels.images, start, atol=1e-12)


def test_films_and_images_are_augmented():
    """Cutting out half the side from films of 1 and images of 3 leaves 3/4 of the pixels to differ."""
    course = dm(
        Given(
            torch.full((1, 1, 16, 16), 3.0).double(),
            torch.ones(1, 1).double(),
            Fixed(nn.Identity()),
            2,
            films=Films(torch.ones(5, 1, 16, 16).double(), torch.zeros(5, dtype=torch.int64)),
        ),
        Distill(augment=["cutout"], dm=Dm(6, lr=1e-12)),
    )
    course.network = lambda generator: nn.Sequential(nn.Flatten(), nn.Linear(256, 2)).double()
    list(course.run())
    # a square of 8 x 8 whose centre lies anywhere keeps between 4 x 4 and 8 x 8 of its pixels inside
    differ = course.history[:, 0] / 4
    assert (differ >= 192 - 1e-6).all() and (differ <= 240 + 1e-6).all() and len(set(differ.tolist())) > 2


def test_a_class_without_films_keeps_its_start():
    films = Films(pixels([1, 0], [3, 0]), torch.tensor([1, 1]))
    course = by_hand(films=films)
    list(course.run())
    assert course.pixels.images[:2].flatten().tolist() == [0, 0, 2, 2]
    assert course.pixels.images[2].flatten().tolist() != [1, 1]


@pytest.mark.parametrize("name", ["dm", "dc", "dsa"])
def test_resumed_it_ends_with_the_same_bytes(name):
    settings = Distill(dm=Dm(5, batch=3), dc=Dc(5, outer=2, inner=2, batch=3))
    whole, first, second = (METHODS[name].begin(problem(GRAY), settings) for _ in range(3))
    list(whole.run())
    run = first.run()
    next(run), next(run)
    state = first.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    next(run)
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    second.resume(kept)
    assert second.iteration == 2
    second.rehearse()
    list(second.run())
    assert all(torch.equal(whole.state()[name], second.state()[name]) for name in kept)
    assert len(set(whole.history[:, 0].tolist())) == 5


def test_another_seed_draws_other_networks():
    courses = [dm(problem(GRAY, seed), Distill(augment=[], dm=Dm(1))) for seed in (1, 2)]
    for course in courses:
        list(course.run())
    assert courses[0].history.item() != courses[1].history.item()


def test_a_step_too_large_is_told():
    course = by_hand(lr=1e200)
    with pytest.raises(UserError, match=r"the loss of iteration 2 is not finite any more; lower distill.dm.lr, which"):
        list(course.run())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iterations": 0}, "distill.dm.iterations is 0; give at least 1"),
        ({"batch": 0}, "distill.dm.batch is 0; give at least 1"),
        ({"lr": 0.0}, "distill.dm.lr is 0.0; give a positive number"),
        ({"lr_students": -1.0}, "distill.dm.lr_students is -1.0; give a positive number"),
        ({"momentum": 1.0}, "distill.dm.momentum is 1.0; give 0 up to below 1"),
    ],
)
def test_mistakes_in_settings(settings, words):
    with pytest.raises(UserError) as error:
        Dm(**settings)
    assert str(error.value) == words
