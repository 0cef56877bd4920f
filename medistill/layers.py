"""Layers written for the compiler: same parameters, same function, other operations.

torch's own layers are the fastest run one by one. Taken apart for torch.compile they leave two things on the
table. The derivative of a convolution's backward pass computes weight gradients that nobody asks for, and takes
others by a convolution whose kernel is as large as the image; here each derivative is a convolution of its own,
so that what is not asked for is not computed. And a norm of elementary operations, all channels-last, joins the
loops around it. docs/engine.md has the measurements.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function

Geometry = tuple[list[int], list[int], list[int], bool, list[int], int]
"""The last arguments of aten::convolution: stride, padding, dilation, transposed, output padding, groups."""


def for_compiler(module: nn.Module) -> nn.Module:
    """A copy of a network in which the layers that gain by it are written for the compiler."""
    twin = copy.deepcopy(module)
    for layer in twin.modules():
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            layer.__class__ = Convolution
        elif type(layer) is nn.GroupNorm and layer.affine and layer.num_groups == layer.num_channels:
            layer.__class__ = InstanceNorm
    return twin


class Convolution(nn.Conv2d):
    """nn.Conv2d whose derivatives of any order are convolutions of their own."""

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, in, H, W) -> (B, out, H', W')."""
        geometry = ([*self.stride], [*self.padding], [*self.dilation], False, [0, 0], self.groups)
        out: Tensor = _Output.apply(x, self.weight, geometry)
        return out if self.bias is None else out + self.bias[:, None, None]


class InstanceNorm(nn.GroupNorm):
    """nn.GroupNorm with one group a channel, of elementary operations."""

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, C, H, W) -> the same."""
        centred = x - x.mean((2, 3), keepdim=True)
        scale = (centred.square().mean((2, 3), keepdim=True) + self.eps).rsqrt()
        return centred * (scale * self.weight[:, None, None]) + self.bias[:, None, None]


# The output, the gradient in the input and the gradient in the weight are bilinear in two of the three tensors
# x, w (weight) and g (gradient in the output), and the derivative of each is made of the other two.


class _Bilinear(Function):
    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.geometry = inputs
        ctx.save_for_backward(*tensors)


class _Output(_Bilinear):
    @staticmethod
    def forward(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        return _channels_last(torch.ops.aten.convolution(_channels_last(x), _channels_last(w), None, *geometry))

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        x, w = ctx.saved_tensors
        in_x = _InputGradient.apply(u, w, x, ctx.geometry) if ctx.needs_input_grad[0] else None
        in_w = _WeightGradient.apply(x, u, w, ctx.geometry) if ctx.needs_input_grad[1] else None
        return in_x, in_w, None


class _InputGradient(_Bilinear):
    @staticmethod
    def forward(g: Tensor, w: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        return _channels_last(_backward(g, x, w, geometry, [True, False, False])[0])

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        g, w, _ = ctx.saved_tensors
        in_g = _Output.apply(u, w, ctx.geometry) if ctx.needs_input_grad[0] else None
        in_w = _WeightGradient.apply(u, g, w, ctx.geometry) if ctx.needs_input_grad[1] else None
        return in_g, in_w, None, None


class _WeightGradient(_Bilinear):
    @staticmethod
    def forward(x: Tensor, g: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        found: Tensor = _backward(g, x, w, geometry, [False, True, False])[1]
        return found

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Any, ...]:
        x, g, _ = ctx.saved_tensors
        in_x = _InputGradient.apply(g, u, x, ctx.geometry) if ctx.needs_input_grad[0] else None
        in_g = _Output.apply(x, u, ctx.geometry) if ctx.needs_input_grad[1] else None
        return in_x, in_g, None, None


def _backward(g: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: list[bool]) -> Any:
    inputs = (_channels_last(part) for part in (g, x, w))
    return torch.ops.aten.convolution_backward(*inputs, None, *geometry, wanted)


def _channels_last(x: Tensor) -> Tensor:
    # not by memory_format=torch.channels_last, which vmap does not know
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
