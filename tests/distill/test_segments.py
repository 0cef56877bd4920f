"""Several segments an iteration: the mean of their gradients, whoever matches them."""

import threading

import pytest
import torch
import torch.nn.functional as F

from medistill import seeds
from medistill.config import Distill
from medistill.distill import importance, initial
from medistill.distill.course import Share
from medistill.distill.iadd import distill, kernels_for
from medistill.distill.state import State
from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.kernels import Kernels
from medistill.nets import Architecture, Flat

ARCHITECTURE = Architecture("convnet", 1, 3, 16, 4, 2)
SETTINGS = {
    "ipc": 2,
    "iterations": 15,
    "inner_steps": 3,
    "expert_epochs": 1,
    "max_start_epoch": 3,
    "lr_images": 10.0,
    "alpha": 0.05,
    "lr_alpha": 1e-4,
    "lr_importance": 30.0,
    "soft_labels": True,
}


def begin(trajectories, settings, dtype=torch.float64):
    images = initial.noise((6, 1, 16, 16), 1.0, 0.0, seeds.generator(0, "start")).to(dtype)
    return State.begin(images, F.one_hot(initial.labels_of(3, 2), 3).to(dtype), trajectories.size, settings)


def run(trajectories, settings, dtype=torch.float64, share=None):
    state = begin(trajectories, settings, dtype)
    for _ in distill(kernels_for(trajectories, state, settings), trajectories, state, settings, 3, share):
        pass
    return state


class Together:
    """A sum over threads that stand for processes."""

    def __init__(self, count):
        self.barrier, self.parts = threading.Barrier(count), [None] * count

    def total(self, rank):
        def add(tensor):
            self.parts[rank] = tensor
            self.barrier.wait(timeout=60)
            summed = sum(self.parts)
            self.barrier.wait(timeout=60)
            return summed

        return add


def shared(trajectories, settings, dtype, count):
    """The states of so many processes after the run."""
    together, states = Together(count), [None] * count

    def work(rank):
        states[rank] = run(trajectories, settings, dtype, Share(rank, count, together.total(rank)))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return states


def test_a_step_follows_the_mean_of_the_segments_gradients(trajectories):
    settings = Distill(**{**SETTINGS, "iterations": 1, "momentum": 0.0}, segments=3, importance="literal")
    start, after = begin(trajectories, settings), run(trajectories, settings)
    net = Flat(ARCHITECTURE).to(torch.device("cpu"), torch.float64)
    kernels = Kernels(net, torch.device("cpu"), 6)
    labels, alpha = start.logits.softmax(1), start.step.exp()
    images, steps, slopes, plain = [], [], [], []
    for place in ((0,), (0, "segment", 1), (0, "segment", 2)):
        g = seeds.generator(3, "distill", *place)
        expert, i = int(torch.randint(2, (), generator=g)), int(torch.randint(3, (), generator=g))
        theta, target = trajectories.rows(expert, i, i + 1)
        drawn = draw_steps(6, 0, 3, settings.augment, g)
        one = matching_gradient(kernels, theta, target, start.images, labels, alpha, start.weight, drawn)
        images.append(one.images)
        steps.append(alpha * one.alpha)
        slopes.append(importance.slope(start.weight, one.residual, one.distance))
        plain.append(one.plain)
    assert images[0].sub(images[1]).norm() > 0.1 * images[0].norm(), "the segments differ"
    mean = torch.stack(images).mean(0)
    assert torch.allclose(start.images - after.images, settings.lr_images * mean, rtol=1e-9, atol=1e-14)
    assert (start.step - after.step).item() == pytest.approx(settings.lr_alpha * sum(steps).item() / 3, rel=1e-6)
    live = ~net.dead()
    moved = (start.weight - after.weight)[live]
    assert torch.allclose(moved, settings.lr_importance * torch.stack(slopes).mean(0)[live], rtol=1e-9, atol=1e-12)
    assert after.history[0, 1].item() == pytest.approx(sum(plain).item() / 3, rel=1e-12)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_any_number_of_processes_ends_the_same(trajectories, count, dtype, most):
    settings = Distill(**SETTINGS, segments=4)
    alone = run(trajectories, settings, dtype)
    states = shared(trajectories, settings, dtype, count)
    for name in ("images", "logits", "step", "weight", "images_velocity", "average", "history"):
        one = getattr(alone, name)
        for state in states:
            assert (getattr(state, name) - one).norm() <= most * one.norm(), name
            assert torch.equal(getattr(state, name), getattr(states[0], name)), "the processes drift apart"
    assert (alone.images - begin(trajectories, settings, dtype).images).norm() > 1e-3


def test_one_segment_that_explodes_lets_every_process_skip(trajectories):
    settings = Distill(**SETTINGS, segments=2, loss_limit=1e-3)
    start = begin(trajectories, settings)
    for state in shared(trajectories, settings, torch.float64, 2):
        assert state.history[:, 5].sum() == settings.iterations and torch.equal(state.images, start.images)


def test_a_process_without_a_segment_goes_along(trajectories):
    settings = Distill(**SETTINGS, segments=1)
    alone = run(trajectories, settings, torch.float32)
    for state in shared(trajectories, settings, torch.float32, 2):
        assert torch.equal(state.images, alone.images) and torch.equal(state.weight, alone.weight)
