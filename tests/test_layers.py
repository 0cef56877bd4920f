"""Layers written for the compiler: the function and all derivatives of torch's own layers, and nothing in vain."""

import copy
from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from medistill import kernels, seeds
from medistill.layers import Convolution, InstanceNorm, for_compiler
from medistill.nets import Architecture, Flat, flatten

GEOMETRIES = [
    {"padding": 1},
    {"stride": 2},
    {"padding": 2, "dilation": 2},
    {"stride": (2, 1), "padding": (1, 0), "bias": False},
    {"padding": 1, "groups": 2},
]


def first_and_second(layer, x, u, v):
    """Output, gradients of <output, u>, and the derivatives of <those gradients, v> in input, u and parameters."""
    x, u = x.clone().requires_grad_(), u.clone().requires_grad_()
    parameters = list(layer.parameters())
    out = layer(x)
    first = torch.autograd.grad((out * u).sum(), (x, *parameters), create_graph=True)
    along = sum((g * (v * g.detach().sin() + 1)).sum() for g in first)
    second = torch.autograd.grad(along, (x, u, *parameters), allow_unused=True)
    return [out, *first, *(s for s in second if s is not None and s.any())]


def same_as_torch(layer, shape):
    g = seeds.generator(0, "layers")
    layer = layer.double()
    for p in layer.parameters():
        nn.init.normal_(p, generator=g)
    twin = for_compiler(nn.Sequential(layer))[0]
    assert type(twin) in (Convolution, InstanceNorm) and type(layer) not in (Convolution, InstanceNorm)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    u = torch.randn(layer(x).shape, generator=g, dtype=torch.float64)
    for mine, torchs in zip(first_and_second(twin, x, u, 0.7), first_and_second(layer, x, u, 0.7), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolution_and_its_derivatives_equal_torchs(geometry):
    same_as_torch(nn.Conv2d(4, 6, 3, **geometry), (3, 4, 9, 8))


def test_instance_norm_and_its_derivatives_equal_torchs():
    same_as_torch(nn.GroupNorm(4, 4), (3, 4, 9, 8))


def test_layers_of_another_kind_stay_as_they_are():
    net = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.GroupNorm(2, 4),
        nn.GroupNorm(4, 4, affine=False),
        nn.ReLU(),
    )
    assert [type(layer) for layer in for_compiler(net)] == [type(layer) for layer in net]


def test_an_adjoint_computes_no_convolution_in_vain():
    """By hand, for a network of depth D whose first layer's input gradient only the last sweep needs.

    Outputs: D in the forward pass, D <weight direction>, D - 1 <input gradients pulled back>; input gradients:
    D - 1, D and D; weight gradients: D - 1 and D.
    """
    architecture, g = Architecture("convnet", 2, 3, 16, 4, 3), seeds.generator(0, "in vain")
    net = Flat(architecture)
    theta, x, y = flatten(architecture.build(g)), torch.randn(2, 2, 16, 16, generator=g), torch.eye(3)[:2]

    def counts(net):
        graph = make_fx(partial(kernels._adjoint, net))(theta, x, y, theta).graph
        graph.eliminate_dead_code()
        names = Counter(node.target.__name__ for node in graph.nodes if "convolution" in str(node.target))
        wanted = Counter(
            i
            for node in graph.nodes
            if "convolution_backward" in str(node.target)
            for i, w in enumerate(node.args[-1])
            if w
        )
        return names["convolution.default"], wanted[0], wanted[1]

    depth = 3
    assert counts(net.for_compiler()) == (3 * depth - 1, 3 * depth - 1, 2 * depth - 1)
    assert sum(counts(copy.copy(net))) > 8 * depth - 3
