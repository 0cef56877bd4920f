"""Gradient and adjoint of a batch: against autograd, in pieces, compiled, and without a compiler."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medistill import kernels as module
from medistill import seeds
from medistill.kernels import Compiler, Kernels, earns_compiling
from medistill.nets import Architecture, Flat, flatten

CPU = torch.device("cpu")
ARCHITECTURE = Architecture("convnet", 2, 3, 16, 6, 2)


def problem(dtype=torch.float64, batch=7):
    net = Flat(ARCHITECTURE).to(CPU, dtype)
    g = seeds.generator(0, "kernels")
    theta = flatten(ARCHITECTURE.build(g)).to(dtype)
    x = torch.randn(batch, 2, 16, 16, generator=g).to(dtype)
    y = torch.randn(batch, 3, generator=g).softmax(1).to(dtype)
    return net, theta, x, y, torch.randn(theta.shape, generator=g).to(dtype)


def autograd(net, theta, x, y, v):
    theta, x, y = (t.clone().requires_grad_() for t in (theta, x, y))
    loss = F.cross_entropy(net(theta, x), y)
    (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
    inner = slope @ v
    return slope.detach(), *torch.autograd.grad(inner, (theta, x, y))


def ours(kernels, theta, x, y, v):
    return kernels.slope(theta, x, y), *kernels.adjoint(theta, x, y, v)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("most", [1, 3, 4, 7, 100])
def test_pieces_of_any_size_equal_autograd_on_the_whole_batch(monkeypatch, most):
    net, *arguments = problem()
    monkeypatch.setitem(module.PIECE_BYTES, "cpu", most * net.widest)
    kernels = Kernels(net, CPU, batch=7)
    assert kernels.piece == {1: 1, 3: 3, 4: 4, 7: 7, 100: 7}[most]
    for mine, reference in zip(ours(kernels, *arguments), autograd(net, *arguments), strict=True):
        assert relative(mine, reference) < 1e-12


def test_a_batch_smaller_than_a_piece_is_filled_up_with_nothing():
    net, theta, x, y, v = problem()
    kernels = Kernels(net, CPU, batch=7)
    for mine, reference in zip(
        ours(kernels, theta, x[:3], y[:3], v), autograd(net, theta, x[:3], y[:3], v), strict=True
    ):
        assert relative(mine, reference) < 1e-12


def test_a_network_whose_images_depend_on_one_another_is_never_cut(monkeypatch):
    net, *arguments = problem()
    mixed = copy.deepcopy(net)
    mixed.module[1] = nn.BatchNorm2d(6, track_running_stats=False).double()
    monkeypatch.setattr(mixed, "per_instance", False)
    monkeypatch.setitem(module.PIECE_BYTES, "cpu", net.widest)
    for mine, reference in zip(
        ours(Kernels(mixed, CPU, batch=7), *arguments), autograd(mixed, *arguments), strict=True
    ):
        assert relative(mine, reference) < 1e-12


def test_the_cost_of_an_image_by_hand():
    net = Flat(ARCHITECTURE)
    first, second, head = 6 * 2 * 9 * 256, 6 * 6 * 9 * 64, 6 * 16 * 3
    assert net.flops == 2 * (first + second + head)
    assert net.widest == 6 * 256 * 4
    assert net.per_instance
    assert not earns_compiling(net, 1e3) and earns_compiling(net, 1e8)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_kernels_are_as_right_as_eager_ones():
    """Guards the compiled engine: float32 against float64, image by image (about 30 s of compiling).

    A smooth activation stands in for ReLU: a unit within rounding of 0 may fall on either side of the kink in
    float32, which changes its image's gradient by a thousandth, compiled or not.
    """
    net, *arguments = problem(torch.float32, batch=6)
    net.module[2] = net.module[6] = nn.SiLU()
    kernels = Kernels(net, CPU, batch=6, compiled=True)
    compiled = ours(kernels, *arguments)
    assert kernels.compiled
    assert ours(kernels, *arguments)[2].equal(compiled[2])
    reference = autograd(copy.deepcopy(net).to(CPU, torch.float64), *(a.double() for a in arguments))
    for mine, exact in zip(compiled, reference, strict=True):
        assert relative(mine.double(), exact) < 2e-5


def test_what_was_compiled_for_one_tensor_given_twice_still_takes_two(monkeypatch):
    """A rehearsal may give theta in the place of v; the function it leaves behind serves the whole run."""
    monkeypatch.setattr(torch._inductor, "compile", lambda graph, inputs, options: graph)
    net, theta, x, y, v = problem()
    compiled = module._compile(net, module._adjoint, theta, x, y, theta)
    for mine, exact in zip(compiled(theta, x, y, v), module._adjoint(net, theta, x, y, v), strict=True):
        assert relative(mine, exact) < 1e-12


def test_one_function_is_compiled_a_shape_a_network_and_a_number_of_threads(monkeypatch):
    """A batch that its pieces do not divide is filled up; what differs in anything else is a function of its own."""
    compiled = []

    def remember(net, function, *arguments):
        compiled.append((function.__name__, len(arguments[1]), arguments[0].dtype))
        return lambda *inputs: function(copy.deepcopy(net), *inputs)

    monkeypatch.setattr(module, "_compile", remember)
    monkeypatch.setattr(module, "COMPILER", Compiler())
    net, *arguments = problem()
    monkeypatch.setitem(module.PIECE_BYTES, "cpu", 3 * net.widest)
    reference = autograd(net, *arguments)
    for _ in range(2):
        found = ours(Kernels(net, CPU, batch=7, compiled=True), *arguments)
        assert all(relative(mine, exact) < 1e-12 for mine, exact in zip(found, reference, strict=True))
    once = [("_slope_and_loss", 3, torch.float64), ("_adjoint", 3, torch.float64)]
    assert compiled == once
    torch.set_num_threads(2)
    ours(Kernels(net, CPU, batch=7, compiled=True), *arguments)
    assert compiled == 2 * once
    smooth = copy.deepcopy(net)
    smooth.module[2] = nn.SiLU()
    found = ours(Kernels(smooth, CPU, batch=7, compiled=True), *arguments)
    assert relative(found[0], autograd(smooth, *arguments)[0]) < 1e-12
    assert compiled == 3 * once


def test_an_array_laid_out_otherwise_is_brought_into_the_layout_that_was_compiled(monkeypatch):
    seen = []

    def strict(net, function, *_arguments):
        def call(*inputs):
            seen.append(all(i.is_contiguous() for i in inputs))
            return function(copy.deepcopy(net), *inputs)

        return call

    monkeypatch.setattr(module, "_compile", strict)
    monkeypatch.setattr(module, "COMPILER", Compiler())
    net, theta, x, y, v = problem()
    laid = (
        torch.stack([theta, theta], 1)[:, 0],
        x.contiguous(memory_format=torch.channels_last),
        y.T.contiguous().T,
        v,
    )
    found = ours(Kernels(net, CPU, batch=7, compiled=True), *laid)
    assert all(relative(mine, exact) < 1e-12 for mine, exact in zip(found, autograd(net, theta, x, y, v), strict=True))
    assert seen == [True, True]


@pytest.mark.parametrize("error", [MemoryError("full"), torch.OutOfMemoryError("full")])
def test_no_memory_is_no_missing_compiler(monkeypatch, error):
    def full(*_arguments):
        raise error

    monkeypatch.setattr(torch._inductor, "compile", full)
    monkeypatch.setattr(module, "COMPILER", Compiler())
    net, theta, x, y, _ = problem()
    with pytest.raises(type(error), match="full"):
        Kernels(net, CPU, batch=7, compiled=True).slope(theta, x, y)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no C++ compiler was found\nin full"), "no C++ compiler was found"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_without_a_compiler_it_goes_on_and_says_so_once(monkeypatch, caplog, error, said):
    def broken(*_arguments):
        raise error

    monkeypatch.setattr(torch._inductor, "compile", broken)
    monkeypatch.setattr(module, "COMPILER", Compiler())
    net, *arguments = problem()
    kernels = Kernels(net, CPU, batch=7, compiled=True)
    for mine, reference in zip(ours(kernels, *arguments), autograd(net, *arguments), strict=True):
        assert relative(mine, reference) < 1e-12
    assert not kernels.compiled
    assert [r.getMessage() for r in caplog.records] == [
        f"torch.compile does not work here ({said}); going on without it, about half as fast"
    ]
