"""IADD as a whole: against an independent MTT loop, against itself after a stop, and when it explodes."""

import copy
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from medistill import augment, seeds
from medistill.config import Distill
from medistill.distill import initial
from medistill.distill.course import load_checkpoint, save_checkpoint
from medistill.distill.iadd import PATIENCE, distill, kernels_for, rehearse, result
from medistill.distill.importance import groups
from medistill.distill.state import State
from medistill.distill.unroll import draw_steps
from medistill.errors import UserError
from medistill.nets import Architecture, Flat

ARCHITECTURE = Architecture("convnet", 1, 3, 16, 4, 2)
SETTINGS = {
    "ipc": 2,
    "iterations": 20,
    "inner_steps": 4,
    "expert_epochs": 2,
    "max_start_epoch": 3,
    "lr_images": 10.0,
    "alpha": 0.05,
    "lr_alpha": 1e-4,
}


def begin(trajectories, settings, dtype=torch.float64):
    images = initial.noise((6, 1, 16, 16), 1.0, 0.0, seeds.generator(0, "start")).to(dtype)
    labels = F.one_hot(initial.labels_of(3, 2), 3).to(dtype)
    return State.begin(images, labels, trajectories.size, settings)


def run(trajectories, settings, dtype=torch.float64):
    state = begin(trajectories, settings, dtype)
    for _ in distill(kernels_for(trajectories, state, settings), trajectories, state, settings, seed=3):
        pass
    return state


def independent_mtt(trajectories, settings):
    """MTT in a few lines: autograd through the unroll, linear alpha, SGD with momentum by torch."""
    start = begin(trajectories, settings)
    x = start.images.requires_grad_()
    a = start.step.requires_grad_()
    labels = start.labels.argmax(1)
    pixels = torch.optim.SGD([x], lr=settings.lr_images, momentum=settings.momentum)
    lr = torch.optim.SGD([a], lr=settings.lr_alpha, momentum=settings.momentum)
    module = ARCHITECTURE.build(torch.Generator()).double()
    names, shapes = zip(*[(n, p.shape) for n, p in module.named_parameters()], strict=True)
    for iteration in range(settings.iterations):
        g = seeds.generator(3, "distill", iteration)
        expert = int(torch.randint(len(trajectories), (), generator=g))
        i = int(torch.randint(settings.max_start_epoch, (), generator=g))
        theta0, target = trajectories.rows(expert, i, i + settings.expert_epochs)
        theta = theta0.requires_grad_()
        for step in draw_steps(len(x), settings.batch, settings.inner_steps, settings.augment, g):
            parts = [p.view(s) for p, s in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)]
            logits = torch.func.functional_call(
                module, dict(zip(names, parts, strict=True)), augment.apply(x[step.index], step.drawn)
            )
            loss = F.cross_entropy(logits, labels[step.index])
            theta = theta - a * torch.autograd.grad(loss, theta, create_graph=True)[0]
        loss = (theta - target).square().sum() / (theta0 - target).square().sum()
        pixels.zero_grad()
        lr.zero_grad()
        loss.backward()
        pixels.step()
        lr.step()
    return x.detach(), a.item()


@pytest.mark.parametrize("batch", [0, 4])
def test_without_importance_it_follows_an_independent_mtt_loop(trajectories, batch):
    settings = Distill(**SETTINGS, batch=batch, importance="off", alpha_space="linear")
    state = run(trajectories, settings)
    x, alpha = independent_mtt(trajectories, settings)
    assert ((state.images - x).norm() / x.norm()).item() < 1e-9
    assert state.step.item() == pytest.approx(alpha, rel=1e-9)
    moved = begin(trajectories, settings).images
    assert (x - moved).norm() / moved.norm() > 1e-3


def test_a_zero_step_on_w_equals_w_off_bit_for_bit(trajectories):
    off = run(trajectories, Distill(**SETTINGS, importance="off"), torch.float32)
    for mode in ("descend", "literal"):
        still = run(trajectories, Distill(**SETTINGS, importance=mode, lr_importance=0.0), torch.float32)
        assert torch.equal(off.images, still.images) and torch.equal(off.step, still.step)
        assert torch.equal(off.history, still.history)


def test_importance_changes_the_images_and_keeps_its_guard(trajectories):
    off = run(trajectories, Distill(**SETTINGS, importance="off"))
    on = run(trajectories, Distill(**SETTINGS, lr_importance=1.0))
    assert not torch.allclose(off.images, on.images)
    assert on.weight.std() > 0.01
    live = on.history[:, 3]
    assert live[0] <= 1 + 1e-9 and (live >= 0.25).all()


@pytest.mark.parametrize("importance", ["descend", "ascend", "literal"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_parameters_of_a_group_share_their_weight(trajectories, importance, granularity):
    """Each output channel, or each tensor, has one weight; descent lowers what ascent raises."""
    settings = Distill(**SETTINGS, importance=importance, granularity=granularity, lr_importance=1.0)
    state = run(trajectories, settings)
    net = Flat(ARCHITECTURE)
    group = groups(list(net.shapes.values()), granularity)
    for number in range(int(group.max()) + 1):
        assert state.weight[group == number].unique().numel() == 1
    assert state.weight[~net.dead()].unique().numel() > 5
    if importance != "literal":
        opposite = {"descend": "ascend", "ascend": "descend"}[importance]
        other = run(trajectories, replace(settings, importance=opposite))
        moved, back = state.weight[~net.dead()] - 1, other.weight[~net.dead()] - 1
        assert (moved * back).sum() < -0.5 * moved.norm() * back.norm()


def loaded(path):
    return State.of(load_checkpoint(path, "key"), torch.device("cpu"))


@pytest.mark.parametrize(
    "change",
    [{}, {"soft_labels": True, "ema": 0.9, "lr_decay": "cosine", "batch": 4}],
    ids=["plain", "options"],
)
def test_resumed_after_a_stop_it_ends_with_the_same_bytes(trajectories, tmp_path, change):
    settings = Distill(**SETTINGS, **change)
    whole = run(trajectories, settings, torch.float32)
    state = begin(trajectories, settings, torch.float32)
    for _ in distill(kernels_for(trajectories, state, settings), trajectories, state, settings, seed=3):
        if state.iteration == 7:
            break
    save_checkpoint(tmp_path / "checkpoint.safetensors", state.tensors(), "key")
    assert load_checkpoint(tmp_path / "checkpoint.safetensors", "another") is None
    resumed = loaded(tmp_path / "checkpoint.safetensors")
    for _ in distill(kernels_for(trajectories, resumed, settings), trajectories, resumed, settings, seed=3):
        pass
    save_checkpoint(tmp_path / "whole.safetensors", whole.tensors(), "key")
    save_checkpoint(tmp_path / "resumed.safetensors", resumed.tensors(), "key")
    assert (tmp_path / "whole.safetensors").read_bytes() == (tmp_path / "resumed.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_it_follows_the_eager_run_and_resumes_with_the_same_bytes(trajectories, tmp_path):
    """Guards the long runs of every user with a compiler: same numbers to rounding, same bytes after a stop (40 s)."""
    settings = Distill(**SETTINGS, batch=4)

    def begin_compiled():
        state = begin(trajectories, settings, torch.float64)
        state.compiled.fill_(True)
        return state

    def go_on(state, until):
        for _ in distill(kernels_for(trajectories, state, settings), trajectories, state, settings, seed=3):
            if state.iteration == until:
                break
        return state

    eager = run(trajectories, settings)
    whole = go_on(begin_compiled(), settings.iterations)
    assert whole.compiled and not eager.compiled
    torch.testing.assert_close(whole.images, eager.images, rtol=1e-9, atol=1e-9)
    save_checkpoint(tmp_path / "checkpoint.safetensors", go_on(begin_compiled(), 7).tensors(), "key")
    resumed = loaded(tmp_path / "checkpoint.safetensors")
    assert resumed.compiled
    assert go_on(resumed, settings.iterations).images.equal(whole.images)


def test_the_rehearsal_counts_the_inner_steps_and_the_stored_parameters(trajectories):
    state = begin(trajectories, Distill(**SETTINGS), torch.float32)
    few, many = (
        rehearse(kernels_for(trajectories, state, s), state, s)
        for s in (Distill(**SETTINGS), Distill(**SETTINGS | {"inner_steps": 10_000}))
    )
    stored = 4 * trajectories.size * (10_000 - SETTINGS["inner_steps"])
    assert many.seconds > 100 * few.seconds
    assert many.bytes is None or abs(many.bytes - few.bytes - stored) < 0.2 * stored


def test_threads_are_restored_from_the_checkpoint(trajectories, tmp_path):
    torch.set_num_threads(2)
    save_checkpoint(tmp_path / "c.safetensors", begin(trajectories, Distill(**SETTINGS)).tensors(), "key")
    torch.set_num_threads(1)
    load_checkpoint(tmp_path / "c.safetensors", "key")
    assert torch.get_num_threads() == 2


def test_soft_labels_follow_autograd_through_the_softmax(trajectories):
    settings = Distill(**{**SETTINGS, "iterations": 1}, soft_labels=True, importance="off", momentum=0.0)
    state = run(trajectories, settings)
    start = begin(trajectories, settings)
    logits = start.logits.requires_grad_()
    g = seeds.generator(3, "distill", 0)
    expert = int(torch.randint(2, (), generator=g))
    i = int(torch.randint(3, (), generator=g))
    theta0, target = trajectories.rows(expert, i, i + 2)
    from medistill.nets import Flat

    net = Flat(ARCHITECTURE).to(torch.device("cpu"), torch.float64)
    theta = theta0.requires_grad_()
    for step in draw_steps(6, 0, 4, settings.augment, g):
        out = net(theta, augment.apply(start.images[step.index], step.drawn)).log_softmax(1)
        loss = -(logits.softmax(1)[step.index] * out).sum(1).mean()
        theta = theta - start.step.exp() * torch.autograd.grad(loss, theta, create_graph=True)[0]
    ((theta - target).square().sum() / (theta0 - target).square().sum()).backward()
    moved = start.logits.detach() - settings.lr_labels * logits.grad
    assert torch.allclose(state.logits, moved, rtol=1e-9, atol=1e-12)
    assert start.logits.detach().softmax(1).max(1).values == pytest.approx(torch.full((6,), 0.9))
    learned = run(trajectories, Distill(**SETTINGS, soft_labels=True, lr_labels=100.0))
    assert (learned.logits.softmax(1) - start.logits.detach().softmax(1)).abs().max() > 1e-2


def test_ema_is_the_average_of_the_pixels(trajectories):
    settings = Distill(**SETTINGS, ema=0.8)
    state = begin(trajectories, settings)
    average = torch.zeros_like(state.images)
    for _ in distill(kernels_for(trajectories, state, settings), trajectories, state, settings, seed=3):
        average = 0.8 * average + 0.2 * state.images
    assert torch.allclose(result(state, settings)[0], average / (1 - 0.8**20), rtol=1e-12)
    constant = begin(trajectories, settings)
    still = Distill(**{**SETTINGS, "lr_images": 1e-30}, ema=0.99)
    for _ in distill(kernels_for(trajectories, constant, still), trajectories, constant, still, seed=3):
        pass
    assert torch.allclose(result(constant, still)[0], constant.images), "an average of equal images is that image"


def test_exploding_steps_are_skipped_counted_and_stop_with_a_sentence(trajectories):
    settings = Distill(**{**SETTINGS, "iterations": 100}, loss_limit=1e-3)
    state = begin(trajectories, settings)
    untouched = copy.deepcopy(state.images)
    with pytest.raises(UserError, match=r"set distill.alpha to"):
        for _ in distill(kernels_for(trajectories, state, settings), trajectories, state, settings, seed=3):
            pass
    assert state.iteration == PATIENCE and state.history[:, 5].sum() == PATIENCE
    assert torch.equal(state.images, untouched)


def test_nan_is_skipped(trajectories):
    settings = Distill(**SETTINGS)
    state = begin(trajectories, settings)
    state.step.fill_(1e6)
    steps = distill(kernels_for(trajectories, state, settings), trajectories, state, settings, seed=3)
    next(steps)
    assert state.history[0, 5] == 1 and state.images.isfinite().all()


def test_log_alpha_moves_by_alpha_times_its_gradient(trajectories):
    one = {**SETTINGS, "iterations": 1, "momentum": 0.0, "lr_alpha": 1e-4}
    log = run(trajectories, Distill(**one, alpha_space="log"))
    linear = run(trajectories, Distill(**one, alpha_space="linear"))
    d_alpha = (0.05 - linear.step.item()) / 1e-4
    assert log.step.item() == pytest.approx(torch.tensor(0.05).double().log().item() - 1e-4 * 0.05 * d_alpha, rel=1e-6)
