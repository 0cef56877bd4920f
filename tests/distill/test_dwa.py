"""DWA: its perturbation and its distance of statistics by hand, its recovery against a plain loop, and its stops."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medistill import augment, seeds
from medistill.cli import configure, main
from medistill.config import Distill
from medistill.config.dwa import Dwa
from medistill.distill import initial
from medistill.distill.course import Films, Given, load_checkpoint, save_checkpoint
from medistill.distill.distilled import Distilled
from medistill.distill.dwa import DirectedWeights, dwa
from medistill.distill.dwa_teacher import answers, learn, perturbed, teacher_named, with_batch_norms
from medistill.distill.methods import METHODS
from medistill.errors import UserError
from medistill.nets import Architecture

GRAY = Architecture("convnet", 1, 3, 16, 4, 2)
COLOR = replace(GRAY, channels=3)
OWN = Dwa(teacher_epochs=3, teacher_batch=16, teacher_lr=0.05, iterations=6, steps=3, rho=0.5, lr=0.1)


def given(architecture=GRAY, ipc=2, dtype=torch.float64):
    """Films of three classes, bright in one third each, and noise to start from."""
    g = seeds.generator(7, "dwa films")
    labels = torch.arange(40) % 3
    shape = (architecture.channels, 16, 16)
    images = torch.randn(40, *shape, generator=g)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 5 * label : 5 * label + 5] += 2
    start = initial.noise((3 * ipc, *shape), 1.0, 0.0, seeds.generator(7, "dwa start")).to(dtype)
    hot = F.one_hot(initial.labels_of(3, ipc), 3).to(dtype)
    return Given(start, hot, architecture, 11, films=Films(images.to(dtype), labels))


def begin(architecture=GRAY, ipc=2, dtype=torch.float64, **own):
    return dwa(given(architecture, ipc, dtype), Distill(method="dwa", ipc=ipc, dwa=replace(OWN, **own)))


def run(course, until=None):
    for _ in course.run():
        if course.iteration == until:
            break
    return course


def teacher(seed=0, architecture=GRAY):
    """A teacher whose running statistics are of films, in float64."""
    course = begin(architecture)
    course.given = replace(course.given, seed=seed)
    return run(course, OWN.teacher_epochs).teacher


def test_each_step_of_the_perturbation_goes_up_the_gradient_by_its_share_of_rho():
    """The slopes are taken anew by backward() on classes instead of probabilities."""
    net, data, rho = teacher(), given(), 0.3
    x, y = data.start[::2], data.labels[::2]
    before = nn.utils.parameters_to_vector(net.parameters()).detach()
    for steps in (1, 2, 5):
        path = [net] + [perturbed(net, x, y, rho * k / steps, k) for k in range(1, steps + 1)]
        thetas = [nn.utils.parameters_to_vector(p.parameters()).detach() for p in path]
        for here, there, model in zip(thetas, thetas[1:], path, strict=False):
            clone = copy.deepcopy(model).requires_grad_(True)
            F.cross_entropy(clone(x), y.argmax(1)).backward()
            slope = torch.cat([p.grad.flatten() for p in clone.parameters()])
            torch.testing.assert_close(there - here, rho / steps * slope / slope.norm(), rtol=1e-8, atol=1e-12)
        assert (thetas[-1] - before).norm() <= rho + 1e-9
    assert (thetas[-1] - before).norm() > 0.5 * rho
    assert F.cross_entropy(path[-1](x), y) > F.cross_entropy(net(x), y)


def test_the_perturbation_climbs_by_finite_differences_too():
    net, data = teacher(), given()
    x, y = data.start[::2], data.labels[::2]
    theta = nn.utils.parameters_to_vector(net.parameters()).detach()
    step = nn.utils.parameters_to_vector(perturbed(net, x, y, 1.0, 1).parameters()) - theta

    def loss(direction, size):
        moved = copy.deepcopy(net)
        nn.utils.vector_to_parameters(theta + size * direction, moved.parameters())
        return F.cross_entropy(moved(x), y).item()

    def slope(direction):
        return (loss(direction, 1e-5) - loss(direction, -1e-5)) / 2e-5

    g = torch.Generator().manual_seed(1)
    others = [F.normalize(torch.randn(len(theta), generator=g, dtype=theta.dtype), dim=0) for _ in range(5)]
    assert step.norm().item() == pytest.approx(1, rel=1e-9)
    for other in others:
        # the derivative along any direction is that along the steepest one times the cosine
        assert slope(other) == pytest.approx(slope(step) * (step @ other).item(), rel=1e-4, abs=1e-8)


def test_the_distance_of_statistics_is_the_formula_on_a_net_of_two_layers():
    """Activations are computed layer by layer, without hooks."""
    torch.manual_seed(0)
    first, one = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
    second, two = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
    for norm in (one, two):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    head = [nn.Flatten(), nn.Linear(4 * 9, 3)]
    net = nn.Sequential(first, one, nn.ReLU(), second, two, *head).double().eval()
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64)
    seen = first(x)
    later = second(one(seen).relu())
    total = 0.0
    for weight, norm, inputs in ((10, one, seen), (1, two, later)):
        channels = inputs.transpose(0, 1).flatten(1)  # (C, B H W)
        mean = channels.sum(1) / channels.shape[1]
        variance = (channels - mean[:, None]).square().sum(1) / channels.shape[1]
        total += weight * (
            7 * (norm.running_var - variance).square().sum().sqrt() + (norm.running_mean - mean).square().sum().sqrt()
        )
    logits, distance = answers(net, x, r_var=7.0)
    assert distance.item() == pytest.approx(total.item(), rel=1e-12)
    assert torch.equal(logits, net(x))
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_a_batch_of_the_running_statistics_themselves_is_at_no_distance():
    norm = nn.BatchNorm2d(2).double().eval()
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    norm.running_mean.copy_(x.mean((0, 2, 3)))
    norm.running_var.copy_(x.var((0, 2, 3), unbiased=False))
    assert answers(norm, x, 3.0)[1].item() < 1e-14
    assert answers(norm, x + 1, 3.0)[1].item() == pytest.approx(10 * math.sqrt(2), rel=1e-12)


def plain_recovery(course, number):
    """The images of one number in a few lines: torch's autograd, Adam and schedule, statistics layer by layer."""
    own, data, ipc = course.own, course.given, course.ipc
    x = data.start[number::ipc].clone()
    y = data.labels[number::ipc].argmax(1)
    net = perturbed(course.teacher, x, data.labels[number::ipc], own.rho, own.steps)
    x.requires_grad_()
    adam = torch.optim.Adam([x], lr=own.lr, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, own.iterations)
    films = data.films.images
    for step in range(own.iterations):
        shift = torch.randint(5, (2,), generator=seeds.generator(11, "dwa", number, step)).tolist()
        out, distance, norms = torch.roll(x, shift, (2, 3)), 0.0, 0
        for layer in net:
            if isinstance(layer, nn.BatchNorm2d):
                gap = own.r_var * torch.dist(layer.running_var, out.var((0, 2, 3), unbiased=False))
                distance = distance + (1 if norms else 10) * (gap + torch.dist(layer.running_mean, out.mean((0, 2, 3))))
                norms += 1
            out = layer(out)
        adam.zero_grad()
        (F.cross_entropy(out, y) + own.r_bn * distance).backward()
        adam.step()
        schedule.step()
        for channel in range(x.shape[1]):
            low, high = films[:, channel].min().item(), films[:, channel].max().item()
            x.data[:, channel] = x.data[:, channel].clamp(low, high)
    return x.detach()


@pytest.mark.parametrize("architecture", [GRAY, COLOR], ids=["one channel", "three channels"])
def test_the_recovery_follows_a_plain_loop(architecture):
    course = begin(architecture, lr=0.5)
    course.given = replace(course.given, start=4 * course.given.start)  # beyond the films' range, so pixels are clipped
    run(course)
    for number in range(2):
        x = plain_recovery(course, number)
        torch.testing.assert_close(course.images[number::2], x, rtol=1e-7, atol=1e-9)
        assert (x - course.given.start[number::2]).abs().mean() > 0.1
    films = course.given.films.images
    ends = [films.amin((0, 2, 3), keepdim=True), films.amax((0, 2, 3), keepdim=True)]
    assert all((course.images == end).any() for end in ends)


def test_the_squeeze_follows_torch_sgd_and_its_cosine_schedule():
    course = begin()
    net = with_batch_norms(GRAY, seeds.generator(11, "dwa teacher")).double().train()
    sgd = torch.optim.SGD(net.parameters(), lr=OWN.teacher_lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, OWN.teacher_epochs)
    films, losses = course.given.films, []
    for epoch in range(OWN.teacher_epochs):
        g, seen = seeds.generator(11, "dwa teacher", epoch), 0.0
        for index in torch.randperm(40, generator=g).split(16):
            x = augment.apply(films.images[index], augment.draw(course.augment, len(index), g))
            loss = F.cross_entropy(net(x), films.labels[index])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            seen += loss.item() * len(index)
        schedule.step()
        losses.append(seen / 40)
    run(course, OWN.teacher_epochs)
    for mine, theirs in zip(course.teacher.state_dict().values(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    assert course.history[:, 0].tolist() == pytest.approx(losses, rel=1e-9)
    assert not course.teacher.training


def test_a_round_counts_each_film_once_in_its_loss():
    films = given().films
    net = with_batch_norms(GRAY, seeds.generator(0, "x")).double()
    still = torch.optim.SGD(net.parameters(), lr=0.0)
    batches = torch.arange(40).split(32)
    expected = [F.cross_entropy(net.train()(films.images[b]), films.labels[b]).item() for b in batches]
    loss = learn(net, still, films, batches, [], seeds.generator(0, "y"))
    assert loss == pytest.approx((32 * expected[0] + 8 * expected[1]) / 40, rel=1e-12)


def test_recovery_leaves_the_teacher_and_its_statistics_as_they_are():
    course = run(begin(), OWN.teacher_epochs)
    before = {name: tensor.clone() for name, tensor in course.teacher.state_dict().items()}
    run(course)
    course.made()
    for name, tensor in course.teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert before["1.num_batches_tracked"] == 3 * OWN.teacher_epochs


def test_numbers_within_a_class_do_not_depend_on_each_other():
    """The second image of each class is the same beside another first one, and the first is so without a second."""
    both, other, alone = begin(), begin(), begin(ipc=1)
    start = other.given.start.clone()
    start[::2] = 0.3
    other.given = replace(other.given, start=start)
    alone.given = replace(alone.given, start=both.given.start[::2])
    for course in (both, other, alone):
        run(course)
    assert torch.equal(both.images[1::2], other.images[1::2])
    assert not torch.equal(both.images[::2], other.images[::2])
    assert torch.equal(both.images[::2], alone.images)


def test_without_perturbation_all_numbers_are_recovered_from_one_teacher():
    course = run(begin(rho=0.0))
    torch.testing.assert_close(course.images[::2], plain_recovery(course, 0), rtol=1e-7, atol=1e-9)
    assert not torch.allclose(course.images, run(begin()).images)


@pytest.mark.parametrize("stop", [0, 2, 3, 5, 9, 11], ids=lambda stop: f"after {stop}")
def test_resumed_after_a_stop_it_ends_with_the_same_bytes(tmp_path, stop):
    """In the squeeze, between the two, in the first number, between numbers and in the second; later steps run on."""
    whole = run(begin(dtype=torch.float32))
    stopped = begin(dtype=torch.float32)
    steps = stopped.run()
    for _ in range(stop):
        next(steps)
    held = stopped.state()
    copies = {name: tensor.clone() for name, tensor in held.items()}
    next(steps, None)
    assert all(torch.equal(held[name], copies[name]) for name in held), "a state is touched by no later step"
    save_checkpoint(tmp_path / "stopped.safetensors", held, "key")
    resumed = begin(dtype=torch.float32)
    resumed.resume(load_checkpoint(tmp_path / "stopped.safetensors", "key"))
    assert resumed.iteration == stop
    run(resumed)
    for name, course in (("whole", whole), ("resumed", resumed)):
        save_checkpoint(tmp_path / name, course.state(), "key")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()


def test_the_state_holds_no_copy_of_a_teacher_that_changes_no_more():
    course = run(begin(), 5)
    state = course.state()
    pointers = {parameter.data_ptr() for parameter in course.teacher.parameters()}
    assert {state[f"teacher.{name}"].data_ptr() for name, _ in course.teacher.named_parameters()} == pointers
    assert not any(name.startswith("momentum.") for name in state)
    assert len(run(begin(), 2).state()) > len(state), "while it learns, its momentum is there"


def test_labels_are_the_teachers_softmax_at_the_temperature():
    course = run(begin(temperature=4.0, lr_students=0.07))
    made = course.made()
    logits = course.teacher(made.images).detach()
    expected = (logits / 4).exp() / (logits / 4).exp().sum(1, keepdim=True)
    torch.testing.assert_close(made.labels, expected, rtol=1e-12, atol=0)
    sharp = run(begin(temperature=1.0)).made()
    assert torch.equal(sharp.images, made.images) and (sharp.labels.amax(1) > made.labels.amax(1)).all()
    right = sum(int(row.argmax()) == place // 2 for place, row in enumerate(made.labels))
    assert made.provenance["agreement"] == right / 6
    assert made.provenance["teacher_loss"] == course.history[2, 0] and made.lr == 0.07


def test_the_history_tells_loss_parts_and_number():
    course = run(begin())
    loss, entropy, statistics, number = course.history.T
    assert number.tolist() == [0] * 3 + [1] * 6 + [2] * 6
    torch.testing.assert_close(loss, entropy + OWN.r_bn * statistics, rtol=1e-12, atol=0)
    assert (statistics[:3] == 0).all() and (statistics[3:] > 0).all()
    assert course.total == len(course.history) == 15


def test_a_resnet18_teacher_has_batch_norms_only_and_recovers():
    architecture = teacher_named("resnet18:2", replace(COLOR, width=4))
    net = with_batch_norms(architecture, seeds.generator(0, "resnet"))
    kinds = [type(layer) for layer in net.modules()]
    assert kinds.count(nn.BatchNorm2d) == 20 and nn.GroupNorm not in kinds
    assert all(torch.equal(layer.running_var, torch.ones(layer.num_features)) for layer in norms(net))
    course = run(begin(COLOR, ipc=1, teacher="resnet18:2", iterations=2, teacher_epochs=1))
    assert course.images.shape == (3, 3, 16, 16) and course.images.isfinite().all()
    assert course.made().provenance["teacher"] == "resnet18:2 with batch norms"


def norms(net):
    return [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_a_teachers_size_is_that_of_the_network_or_the_published_one():
    assert teacher_named("convnet", GRAY) == GRAY
    assert teacher_named("convnet:9", GRAY) == replace(GRAY, width=9)
    assert teacher_named("resnet18", GRAY) == replace(GRAY, name="resnet18", width=64, depth=4)
    like = Architecture("resnet18", 3, 10, 32, 16, 4)
    assert teacher_named("convnet", like) == Architecture("convnet", 3, 10, 32, 128, 3)
    with pytest.raises(UserError, match=r"distill\.dwa\.teacher: 'resnet18': resnet18 needs images of 16"):
        teacher_named("resnet18", replace(GRAY, size=8))


def test_the_rehearsal_leaves_no_trace_and_counts_what_is_left():
    course = begin()
    before = {name: tensor.clone() for name, tensor in course.state().items()}
    few, many = course.rehearse(), begin(iterations=100_000).rehearse()
    after = course.state()
    assert all(torch.equal(after[name], before[name]) for name in after)
    assert many.seconds > 100 * few.seconds


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"teacher": "vgg11"}, r"distill\.dwa\.teacher is vgg11.* give convnet or resnet18"),
        ({"teacher": "resnet"}, r"distill\.dwa\.teacher: 'resnet' is no network"),
        ({"steps": 0}, r"distill\.dwa\.steps is 0; give at least 1"),
        ({"temperature": 0.0}, r"distill\.dwa\.temperature is 0\.0; give a positive number"),
        ({"rho": -0.1}, r"distill\.dwa\.rho is -0\.1; give 0 or more"),
    ],
)
def test_wrong_settings_are_told_in_a_sentence(own, sentence):
    with pytest.raises(UserError, match=sentence):
        Dwa(**own)


@pytest.mark.parametrize(
    ("own", "sentence"),
    [({"teacher_lr": 1e30}, "lower distill.dwa.teacher_lr"), ({"r_var": 1e300, "r_bn": 1e300}, "lower distill.dwa.lr")],
)
def test_a_loss_that_is_not_finite_ends_with_a_sentence(own, sentence):
    with pytest.raises(UserError, match=sentence):
        run(begin(**own))


def test_the_shipped_config_is_the_published_recovery():
    distill = configure("distill", ["--config", "configs/cifar10_dwa.yaml"]).distill
    own = distill.dwa
    assert distill.method == "dwa" and own.teacher == "resnet18" and own.teacher_epochs == 200
    assert (own.iterations, own.lr, own.rho, own.steps, own.r_bn, own.r_var) == (1000, 0.25, 0.015, 12, 0.01, 11)
    assert METHODS["dwa"].films and not METHODS["dwa"].experts


def test_through_the_stage(tiny, tmp_path, capsys):
    """From files of a cohort to the distilled set, and nothing to do a second time."""
    words = {"teacher_epochs": 2, "teacher_batch": 32, "iterations": 3, "temperature": 2.0}
    more = [word for key, value in words.items() for word in (f"--distill.dwa.{key}", str(value))]
    words = ["distill", *tiny.options(tmp_path, "--distill.method", "dwa", "--track", "false", *more)]
    main(words)
    assert "in 5 iterations" in capsys.readouterr().out
    (file,) = tmp_path.glob("distill-*/distilled.safetensors")
    made = Distilled.load(file)
    torch.testing.assert_close(made.labels.sum(1), torch.ones(3))
    assert made.images.shape == (3, 1, 16, 16) and made.labels.min() > 0 and made.labels.max() < 1
    assert made.provenance["method"] == "DWA" and made.provenance["reads"] == METHODS["dwa"].reads
    main(words)
    assert "done already" in capsys.readouterr().out


def test_the_course_is_what_the_method_begins():
    assert isinstance(begin(), DirectedWeights)
