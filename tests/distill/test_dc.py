"""DC and DSA: the distance by hand, its slope by finite differences, and an iteration spelt out with torch.optim."""

import json
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medistill import augment, seeds
from medistill.cli import configure
from medistill.config import Distill
from medistill.config.surrogate import Dc, Dm
from medistill.distill.course import Films, Given
from medistill.distill.dc import dc, distance_of_gradients, dsa, rows_distance
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.nets import Architecture
from medistill.stages.distill import distill
from medistill.stages.session import Session

GRAY = Architecture("convnet", 1, 2, 16, 4, 2)
COLOUR = Architecture("convnet", 3, 3, 16, 5, 2)


def problem(architecture, seed=3, films=9, ipc=2):
    """Random films, fewer of the last class, and random start images."""
    g, classes = torch.Generator().manual_seed(1), architecture.classes
    shape = (architecture.channels, architecture.size, architecture.size)
    labels = torch.arange(films * classes - 2) // films
    real = torch.randn(len(labels), *shape, generator=g).double()
    start = torch.randn(classes * ipc, *shape, generator=g).double()
    targets = F.one_hot(torch.arange(classes).repeat_interleave(ipc)).double()
    return Given(start, targets, architecture, seed, films=Films(real, labels))


def parallel(given):
    """The same, but the films of a class are one picture, and its images as well."""
    picture = given.start[::2]
    labels = torch.arange(len(picture)).repeat_interleave(5)
    return Given(
        picture.repeat_interleave(2, 0),
        given.labels,
        given.architecture,
        given.seed,
        films=Films(picture.repeat_interleave(5, 0), labels),
    )


def spelt_out(real, synthetic):
    """The distance row by row, in plain numbers."""
    total = 0.0
    for a, b in zip(real, synthetic, strict=True):
        for row in range(len(a)):
            u, v = a[row].flatten(), b[row].flatten()
            total += 1 - u.dot(v) / (u.norm() * v.norm() + 1e-6)
    return total


def test_the_distance_of_matrices_by_hand():
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).double()
    b = torch.tensor([[4.0, 3.0], [0.0, 5.0], [0.0, -1.0], [2.0, 2.0]]).double()
    # cosines 24/25, 0, -1, 1
    assert rows_distance([a], [b]).item() == pytest.approx(0.04 + 1 + 2 + 0, abs=1e-5)
    # rows of a convolution are its output channels, all else flattened
    c = torch.zeros(2, 1, 1, 2).double()
    c[0, 0, 0], c[1, 0, 0] = a[0], a[1]
    d = torch.zeros(2, 1, 1, 2).double()
    d[0, 0, 0], d[1, 0, 0] = b[0], b[1]
    assert rows_distance([a, c], [b, d]).item() == pytest.approx(3.04 + 1.04, abs=1e-5)


def test_a_row_with_next_to_no_gradient_is_damped():
    """Two parallel rows whose lengths multiply to the damping: 1 - 1e-6 / 2e-6; rows of zeros: 1, with a slope of 0."""
    tiny = torch.tensor([[1e-3, 0.0]]).double()
    assert rows_distance([tiny], [tiny]).item() == pytest.approx(0.5)
    zero = torch.zeros(1, 2).double().requires_grad_()
    loss = rows_distance([torch.ones(1, 2).double()], [zero])
    assert loss.item() == 1
    assert torch.autograd.grad(loss, zero)[0].isfinite().all()


@pytest.mark.parametrize("architecture", [GRAY, COLOUR])
def test_the_slope_in_the_pixels_equals_finite_differences(architecture):
    given = problem(architecture)
    net = architecture.build(torch.Generator().manual_seed(4)).double()
    real, x = given.films.of_class(1), given.start[2:4].clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance_of_gradients(net, real, x, 1), x)
    g = torch.Generator().manual_seed(5)
    for _ in range(4):
        direction, h = torch.randn(x.shape, generator=g).double(), 1e-6
        ends = [distance_of_gradients(net, real, x.detach() + sign * h * direction, 1).item() for sign in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx((slope * direction).sum().item(), rel=1e-5)


def test_a_linear_network_by_hand():
    """The gradient's rows are -.5 and .5 times the mean image, a cosine of 24/25 apart; biases have no part."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double()
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    real, synthetic = torch.tensor([[3.0, 4.0], [3.0, 4.0]]).double(), torch.tensor([[4.0, 3.0]]).double()
    images = [x.view(-1, 1, 1, 2).requires_grad_() for x in (real, synthetic)]
    assert distance_of_gradients(net, *images, 0).item() == pytest.approx(2 * 0.04, abs=1e-5)


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "vit"])
def test_a_short_step_down_the_slope_brings_other_networks_nearer_by_its_length(name):
    net = Architecture(name, 1, 2, 32, 32, 4).build(torch.Generator().manual_seed(0)).double()
    g = torch.Generator().manual_seed(1)
    real, x = (torch.randn(n, 1, 32, 32, generator=g).double().requires_grad_() for n in (3, 2))
    far = distance_of_gradients(net, real, x, 1)
    (slope,) = torch.autograd.grad(far, x)
    nearer = distance_of_gradients(net, real, x - 1e-6 / slope.norm() * slope, 1)
    assert (far - nearer).item() == pytest.approx(1e-6 * slope.norm().item(), rel=1e-3)


def test_a_vit_needs_a_trained_head():
    """Its head starts at zero, so all rows below it are a constant 1 apart; after some training they are not."""
    vit = Architecture("vit", 1, 2, 16, 32, 1)
    with pytest.raises(UserError, match=r"distill.dc.outer is 1, but a vit .* zero: .*; give 2 or more"):
        dsa(problem(vit), Distill(augment=[]))
    course = dsa(problem(vit), Distill(augment=[], dc=Dc(1, outer=2, inner=3, lr_net=0.1)))
    net = vit.build(torch.Generator().manual_seed(0)).double()
    below = sum(len(p) for p in net.parameters() if p.dim() > 1) - 2
    x = course.given.start[2:]
    assert distance_of_gradients(net, x, x, 1).item() == pytest.approx(below, abs=0.01)
    course.train(net, course.given.start, torch.Generator())
    assert distance_of_gradients(net, x, x, 1).item() < 0.1 * below


@pytest.mark.parametrize("architecture", [GRAY, COLOUR])
def test_iterations_equal_the_algorithm_spelt_out(architecture):
    """Everything fits into the batch, so only the networks are drawn."""
    given = problem(architecture)
    course = dc(given, Distill(dc=Dc(2, outer=3, inner=2, lr=0.2, momentum=0.6, lr_net=0.05, lr_students=0.04)))
    assert len(list(course.run())) == 2
    x = given.start.clone().requires_grad_()
    pixels, losses = torch.optim.SGD([x], 0.2, 0.6), []
    for iteration in range(2):
        net = architecture.build(seeds.generator(given.seed, "dc", iteration)).double()
        weights, learner = [p for p in net.parameters() if p.dim() > 1], torch.optim.SGD(net.parameters(), 0.05)
        losses.append([])
        for step in range(3):
            loss = 0
            for k in range(architecture.classes):
                batches = given.films.of_class(k), x[2 * k : 2 * k + 2]
                parts = [F.cross_entropy(net(b), torch.full((len(b),), k)) for b in batches]
                loss = loss + spelt_out(*(torch.autograd.grad(part, weights, create_graph=True) for part in parts))
            pixels.zero_grad()
            loss.backward()
            pixels.step()
            losses[-1].append(loss.item())
            for _ in range(2 if step < 2 else 0):
                learner.zero_grad()
                F.cross_entropy(net(x.detach()), given.labels).backward()
                learner.step()
    assert course.history[:, 0].tolist() == pytest.approx([sum(part) / 3 for part in losses], rel=1e-9)
    assert (x - given.start).abs().max() > 1e-2
    assert torch.allclose(course.pixels.images, x.detach(), rtol=0, atol=1e-10)
    made = course.made()
    assert made.lr == 0.04 and made.labels is given.labels and made.provenance == {"networks": 2}


def test_the_network_trains_in_batches_of_all_images():
    """Five epochs of three batches of two are fifteen steps of torch.optim on batches that hold each image once."""
    given, seen = problem(COLOUR), []
    course = dc(given, Distill(dc=Dc(1, batch=2, inner=5)))
    net = COLOUR.build(torch.Generator().manual_seed(0)).double()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    course.train(net, given.start, torch.Generator().manual_seed(7))
    assert len(seen) == 15
    where = [int((given.start == image).flatten(1).all(1).nonzero()) for image in torch.cat(seen)]
    epochs = [where[6 * epoch : 6 * epoch + 6] for epoch in range(5)]
    assert all(sorted(order) == list(range(6)) for order in epochs) and len({tuple(order) for order in epochs}) > 1


@pytest.mark.parametrize("operation", augment.OPERATIONS)
def test_one_operation_with_one_set_of_numbers_on_both_batches(operation):
    """All films and all images of a class are one picture: numbers of their own would set their gradients apart."""
    course = dsa(parallel(problem(COLOUR)), Distill(augment=[operation], dc=Dc(4)))
    list(course.run())
    apart = dsa(problem(COLOUR), Distill(augment=[operation], dc=Dc(4)))
    list(apart.run())
    assert course.history.abs().max() < 1e-4 * apart.history.min()


def test_dsa_without_operations_is_dc_and_dc_knows_none():
    """But for the name in their seeds."""
    given = problem(GRAY)
    plain, augmented = dc(given, Distill(augment=["cutout"], dc=Dc(2))), dsa(given, Distill(augment=[], dc=Dc(2)))
    augmented.name = "dc"
    list(plain.run()), list(augmented.run())
    assert torch.equal(plain.history, augmented.history)
    cut = dsa(given, Distill(augment=["cutout"], dc=Dc(2)))
    cut.name = "dc"
    list(cut.run())
    assert (cut.history - plain.history).abs().min() > 1e-3


def test_dsa_trains_its_network_on_augmented_images_each_with_its_own_numbers():
    given, seen = problem(COLOUR), []
    course = dsa(given, Distill(augment=["cutout"], dc=Dc(1, inner=1)))
    net = COLOUR.build(torch.Generator().manual_seed(0)).double()
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    course.train(net, given.start, torch.Generator().manual_seed(7))
    holes = {tuple((image == 0).all(0).flatten().tolist()) for image in seen[0]}
    assert len(seen) == 1 and len(holes) > 3


def test_what_is_left_is_foretold_from_both_parts(monkeypatch):
    """A step on the pixels takes 3 s and an epoch 2 s by this clock: 4 steps and 3 x 5 epochs are 42 s a network."""
    course = dc(problem(GRAY), Distill(dc=Dc(6, outer=4, inner=5)))
    clock = [0.0]
    monkeypatch.setattr("medistill.resources.time.perf_counter", lambda: clock[0])

    def takes(seconds, result=None):
        def work(*_arguments, **_named):
            clock[0] += seconds
            return result

        return work

    next(course.run())
    monkeypatch.setattr(course, "step", takes(3.0, (course.pixels, 0.0)))
    monkeypatch.setattr(course, "train", takes(2.0))
    assert course.rehearse().seconds == pytest.approx(5 * 42)


@pytest.mark.parametrize("method", ["dm", "dc", "dsa"])
def test_through_the_stage(tiny, tmp_path, method):
    """From phantoms to a file, by a command's options, with a checkpoint that goes on."""
    said = []
    words = ["--track", "false", "--distill.method", method, "--distill.ipc", "2"]
    words += ["--distill.dm.iterations", "4", "--distill.dc.networks", "3", "--distill.dc.outer", "2"]
    distill(Session(configure("distill", tiny.options(tmp_path, *words)), said.append))
    folder = next(tmp_path.glob("distill-*"))
    final = Distilled.load(folder / "distilled.safetensors")
    assert final.images.shape == (6, 1, 16, 16) and final.lr == 0.01
    assert final.labels.argmax(1).tolist() == [0, 0, 1, 1, 2, 2] and final.labels.sum() == 6
    assert final.provenance["method"] == method.upper()
    assert "training films" in final.provenance["reads"] and not list(tmp_path.glob("experts-*"))
    losses = json.loads((folder / "history.json").read_text())["loss"]
    assert len(losses) == (4 if method == "dm" else 3) and all(loss > 0 for loss in losses)
    assert any("iterations, about" in line for line in said)


def test_the_shipped_configs_hold_the_published_settings():
    """One thousand networks, 10 steps on the pixels and 50 epochs for ten images a class; 20,000 steps of DM."""
    read = {name: configure("distill", ["--config", f"configs/cifar10_{name}.yaml"]) for name in ("dm", "dc", "dsa")}
    for name, config in read.items():
        assert config.distill.method == name and config.distill.ipc == 10 and not config.data.zca
        assert config.net.width == 128 and config.net.depth == 3 and config.run == f"runs/cifar10_{name}"
        assert len(config.distill.augment) == len(config.evaluate.augment) == (0 if name == "dc" else 6)
        assert config.evaluate.steps == (300 if name == "dc" else 1000)
    assert read["dc"].distill.dc == read["dsa"].distill.dc == Dc(1000, 10, 50)
    assert read["dm"].distill.dm == Dm(20000)
    published = {"lr": 0.1, "momentum": 0.5, "lr_net": 0.01, "batch": 256, "lr_students": 0.01}
    assert published.items() <= asdict(read["dc"].distill.dc).items()
    assert {"lr": 1.0, "momentum": 0.5, "batch": 256}.items() <= asdict(read["dm"].distill.dm).items()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"networks": 0}, "distill.dc.networks is 0; give at least 1"),
        ({"outer": 0}, "distill.dc.outer is 0; give at least 1"),
        ({"inner": -1}, "distill.dc.inner is -1; give at least 1"),
        ({"lr_net": 0.0}, "distill.dc.lr_net is 0.0; give a positive number"),
        ({"lr": 0.0}, "distill.dc.lr is 0.0; give a positive number"),
        ({"momentum": -0.1}, "distill.dc.momentum is -0.1; give 0 up to below 1"),
        ({"batch": 0}, "distill.dc.batch is 0; give at least 1"),
    ],
)
def test_mistakes_in_settings(settings, words):
    with pytest.raises(UserError) as error:
        Dc(**settings)
    assert str(error.value) == words
