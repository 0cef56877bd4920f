"""DSA: each operation against its definition, replay, and gradients."""

import math

import pytest
import torch

from medistill import augment, seeds
from medistill.augment import Drawn


def images(channels=1, side=16, batch=4):
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def drawn(operation, *rows):
    return Drawn(operation, torch.tensor(rows, dtype=torch.float64))


def test_flip_mirrors_left_and_right():
    x = images(batch=2)
    out = augment.apply(x, drawn("flip", (0.4, 0, 0), (0.6, 0, 0)))
    assert torch.equal(out[0], x[0].flip(2)) and torch.equal(out[1], x[1])


def test_color_by_its_formula():
    x = images(3, batch=1)
    out = augment.apply(x, drawn("color", (0.7, 0.9, 0.8)))
    y = x + 0.2
    gray = y.mean(1, keepdim=True)
    y = (y - gray) * 1.8 + gray
    assert torch.allclose(out, (y - y.mean()) * 1.3 + y.mean())


def test_crop_shifts_by_whole_pixels_with_zeros():
    x = images(batch=2)
    out = augment.apply(x, drawn("crop", (0.0, 0.5, 0), (0.999, 0.5, 0)))
    assert torch.equal(out[0, 0, 2:], x[0, 0, :-2]) and (out[0, 0, :2] == 0).all()
    assert torch.equal(out[1, 0, :-2], x[1, 0, 2:]) and (out[1, 0, -2:] == 0).all()


def test_cutout_removes_half_the_side():
    x = torch.ones(1, 1, 16, 16)
    out = augment.apply(x, drawn("cutout", (0.5, 0.5, 0)))
    assert (out == 0).sum() == 64 and out[0, 0, 4:12, 4:12].sum() == 0
    out = augment.apply(torch.ones(1, 1, 29, 29), drawn("cutout", (0.5, 0.5, 0)))
    assert (out == 0).sum() == 15**2 and out[0, 0, 7:22, 7:22].sum() == 0


def test_scale_and_rotation_against_the_sampling_positions():
    ramp = torch.linspace(-1, 1, 65, dtype=torch.float64)[None, None, None].expand(1, 1, 65, 65)
    inner = slice(24, 41)
    factor = 0.25 * (1.2 - 1 / 1.2) + 1 / 1.2
    out = augment.apply(ramp, drawn("scale", (0.25, 0.5, 0)))
    assert torch.allclose(out[0, 0, inner, inner], factor * ramp[0, 0, inner, inner], atol=1e-9)
    angle = 0.5 * math.radians(15)
    out = augment.apply(ramp, drawn("rotate", (0.75, 0, 0)))
    rows = ramp[0, 0].T
    expected = math.cos(angle) * ramp[0, 0] - math.sin(angle) * rows
    assert torch.allclose(out[0, 0, inner, inner], expected[inner, inner], atol=1e-9)


@pytest.mark.parametrize("operation", augment.OPERATIONS)
def test_replay_is_exact_and_the_gradient_right(operation):
    x = images(3, side=8, batch=3).requires_grad_()
    d = augment.draw([operation], 3, seeds.generator(0, operation))
    assert d.operation == operation
    assert torch.equal(augment.apply(x, d), augment.apply(x, d))
    assert torch.autograd.gradcheck(lambda t: augment.apply(t, d), (x,))


def test_no_operation_is_the_identity():
    x = images()
    assert augment.apply(x, augment.draw([], 4, seeds.generator(0, "none"))) is x
