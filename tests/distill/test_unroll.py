"""The sweep against autograd through the whole unroll, and its memory against J."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from medistill import augment, seeds
from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.kernels import Kernels
from medistill.nets import Architecture, Flat, flatten

CPU = torch.device("cpu")
ARCHITECTURE = Architecture("convnet", 3, 4, 16, 6, 2)


def problem(double=True, ipc=3):
    dtype = torch.float64 if double else torch.float32
    net = Flat(ARCHITECTURE).to(torch.device("cpu"), dtype)
    start = flatten(ARCHITECTURE.build(seeds.generator(0, "start"))).to(dtype)
    g = seeds.generator(0, "problem")
    target = start + 0.05 * torch.randn(start.shape, generator=g).to(dtype)
    images = torch.randn(4 * ipc, 3, 16, 16, generator=g).to(dtype)
    labels = torch.randn(4 * ipc, 4, generator=g).to(dtype).softmax(1)
    weight = torch.rand(start.shape, generator=g).to(dtype) + 0.5
    return net, start, target, images, labels, torch.tensor(0.05, dtype=dtype), weight


def autograd_reference(net, start, target, images, labels, alpha, weight, steps):
    """MTT's way: keep the whole graph and differentiate once."""
    leaves = [t.clone().requires_grad_() for t in (images, labels, alpha, weight)]
    x, y, a, w = leaves
    theta = start.clone().requires_grad_()
    for step in steps:
        logits = net(theta, augment.apply(x[step.index], step.drawn))
        (g,) = torch.autograd.grad(-(y[step.index] * F.log_softmax(logits, 1)).sum(1).mean(), theta, create_graph=True)
        theta = theta - a * g
    loss = (w * (theta - target)).square().sum() / (start - target).square().sum()
    return loss, torch.autograd.grad(loss, leaves)


def relative(ours, reference):
    return ((ours - reference).norm() / reference.norm()).item()


@pytest.mark.parametrize("operation", [None, *augment.OPERATIONS])
@pytest.mark.parametrize("batch", [0, 5])
def test_sweep_equals_autograd_through_the_unroll(operation, batch):
    net, start, target, images, labels, alpha, weight = problem()
    operations = [operation] if operation else []
    steps = draw_steps(len(images), batch, 7, operations, seeds.generator(1, "steps"))
    ours = matching_gradient(Kernels(net, CPU, len(images)), start, target, images, labels, alpha, weight, steps)
    loss, (dx, dy, da, dw) = autograd_reference(net, start, target, images, labels, alpha, weight, steps)
    assert relative(ours.loss, loss) < 1e-12
    assert relative(ours.images, dx) < 1e-9
    assert relative(ours.labels, dy) < 1e-9
    assert relative(ours.alpha, da) < 1e-9
    assert relative(2 * weight * ours.residual.square() / ours.distance, dw) < 1e-9


def test_alpha_gradient_against_a_finite_difference():
    net, start, target, images, labels, alpha, weight = problem()
    steps = draw_steps(len(images), 0, 5, augment.OPERATIONS, seeds.generator(2, "steps"))

    def loss(a):
        return matching_gradient(Kernels(net, CPU, len(images)), start, target, images, labels, a, weight, steps).loss

    numeric = (loss(alpha + 1e-6) - loss(alpha - 1e-6)) / 2e-6
    ours = matching_gradient(Kernels(net, CPU, len(images)), start, target, images, labels, alpha, weight, steps).alpha
    assert ours.item() == pytest.approx(numeric.item(), rel=1e-6)


def test_minibatches_cover_every_image_once_an_epoch():
    steps = draw_steps(10, 4, 6, (), seeds.generator(0, "cover"))
    for epoch in (steps[:3], steps[3:]):
        assert sorted(torch.cat([s.index for s in epoch]).tolist()) == list(range(10))
    assert [len(s.index) for s in steps] == [4, 4, 2, 4, 4, 2]


PEAK = """
import json, resource, sys, torch
from medistill import seeds
from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.kernels import Kernels
from medistill.nets import Architecture, Flat, flatten
torch.set_num_threads(1)
a = Architecture("convnet", 1, 2, 64, 24, 4)
net = Flat(a); start = flatten(a.build(seeds.generator(0, "s"))); target = start + .01
images = torch.randn(8, 1, 64, 64); labels = torch.eye(2).repeat(4, 1)
steps = lambda j: draw_steps(8, 0, j, (), seeds.generator(0, "d"))
alpha, weight = torch.tensor(.01), torch.ones_like(start)
kernels = Kernels(net, torch.device("cpu"), 8)
run = lambda j: matching_gradient(kernels, start, target, images, labels, alpha, weight, steps(j))
run(3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(int(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([before, peak, len(start)]))
"""


def test_peak_memory_does_not_grow_with_the_inner_steps():
    """From J 10 to J 100 the peak of a fresh process grows by the stored parameters alone, within 10 MiB.

    Autograd through the unroll would add about 30 MiB a step here.
    """
    pytest.importorskip("resource")
    peaks = {}
    for j in (10, 100):
        done = subprocess.run([sys.executable, "-c", PEAK, str(j)], capture_output=True, text=True, check=True)
        _, peak, parameters = json.loads(done.stdout)
        peaks[j] = peak / 1024 - j * parameters * 4 / 2**20
    assert abs(peaks[100] - peaks[10]) < 10, peaks
