"""Synthetic chest films: public by construction, drawn from geometry and random numbers, never from people.

A film is a projection: path lengths through soft tissue, lung, heart and bone add up, as the logarithm of an
X-ray's attenuation does; then pose, exposure and noise of the film follow. One anatomy belongs to one
patient, one pose and exposure to one film, and every film can be drawn again alone from its indices.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor

from medistill.data.phantom_anatomy import Anatomy, Pose, draw_anatomy, draw_pose, stream

Array = NDArray[np.floating[Any]]  # (size, size) float32 in all that follows

CLASSES = ("Normal", "Pneumonia", "COVID")
START = 2**32  # patients of `films` count from here, so a public start shares no patient with a cohort


def film(seed: int, patient: int, film: int, label: int, size: int) -> NDArray[np.float32]:
    """One film, (size, size) float32 in [0, 1], air dark and bone bright as in MONOCHROME2.

    Anatomy, pose and exposure do not depend on the label: the same indices under another label give the
    same film with another finding.

    Args:
        seed: the cohort's seed.
        patient: the patient's index; fixes the anatomy and the place of the disease.
        film: the film's index within the patient; fixes pose, exposure, noise and extent of the disease.
        label: an index into `CLASSES`.
        size: side in pixels.
    """
    anatomy, pose = draw_anatomy(seed, patient), draw_pose(seed, patient, film)
    x, y = _grid(size)
    u, v = _to_patient(x, y, pose)
    soft = 1.0 / size + 0.008  # edges blur over about one pixel, so that coarse films do not alias
    lungs = _lungs(u, v, anatomy, pose, soft)
    air = lungs[0] + lungs[1]
    heart = 0.9 * _heart(u, v, anatomy, pose, soft)
    image = _trunk(u, v, anatomy, soft) - air * (0.40 - anatomy.fat)
    image += air * _veil(u, v, pose) + heart
    image += _bones(u, v, anatomy, soft, air) + air * _grain(u, v, anatomy)
    image += (1 - 1.4 * heart) * _finding(seed, patient, film, label, u, v, lungs)
    noise = stream(seed, patient, 3, film).standard_normal((size, size), dtype=np.float32)
    return _expose(image, x, y, soft, pose, noise)


def films(count_per_class: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Films of as many patients, class after class: a public start for distillation.

    Returns:
        images (n, 1, size, size) float32 in [0, 1] and labels (n,) int64, n = 3 count_per_class.
        No patient is shared with a cohort of the same seed.
    """
    labels = np.repeat(np.arange(len(CLASSES)), count_per_class)
    images = [film(seed, START + index, 0, int(label), size) for index, label in enumerate(labels)]
    stack = np.stack(images)[:, None] if images else np.zeros((0, 1, size, size), np.float32)
    return torch.from_numpy(stack), torch.from_numpy(labels)


def _grid(size: int) -> tuple[Array, Array]:
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def _to_patient(x: Array, y: Array, pose: Pose) -> tuple[Array, Array]:
    """Film coordinates to the patient's: undo shift, magnification and rotation."""
    cos, sin = np.float32(np.cos(pose.angle) / pose.scale), np.float32(np.sin(pose.angle) / pose.scale)
    x, y = x - np.float32(pose.shift[0]), y - np.float32(pose.shift[1])
    return cos * x + sin * y, cos * y - sin * x


def _step(distance: Array, soft: float) -> Array:
    """0 outside, 1 inside, smooth over `soft`."""
    return 0.5 + 0.5 * np.tanh(distance * np.float32(0.5 / soft))


def _bump(distance: Array, width: float) -> Array:
    return np.exp(-((distance * np.float32(1 / width)) ** 2))


def _trunk(u: Array, v: Array, anatomy: Anatomy, soft: float) -> Array:
    """Soft tissue: a neck widening into shoulders and trunk, thicker in the middle and in the abdomen."""
    half = 0.22 + (anatomy.body + 0.1 - 0.22) * _step(v + 0.80, 0.045) - 0.1 * _step(v + 0.45, 0.1)
    inside = _step(half - np.abs(u), 2 * soft)
    thick = np.sqrt(np.clip(1 - (u / 1.25) ** 2, 0.05, 1))
    return inside * (0.30 + 0.28 * thick + 0.06 * _step(v - 0.45, 0.1))


def _lungs(u: Array, v: Array, anatomy: Anatomy, pose: Pose, soft: float) -> tuple[Array, Array]:
    """The two lungs' masks: narrow at the apex, cut below by the diaphragm's dome."""
    down = np.clip((v - anatomy.apex) / 1.1, 0, 1)
    profile = np.minimum(down / 0.5, 1) * (2 - np.minimum(down / 0.5, 1))
    masks = []
    for side, width, dome in zip((-1, 1), anatomy.lung, anatomy.dome, strict=True):
        centre = side * (0.10 + width * (0.85 + 0.12 * down))
        half = width * (0.25 + 0.75 * np.sqrt(profile))
        base = dome + pose.breath + 1.4 * (u - centre + side * 0.05) ** 2
        wall = _step(half - np.abs(u - centre), 1.5 * soft)
        masks.append(wall * _step(v - anatomy.apex - 0.3 * np.abs(u - centre), 2 * soft) * _step(base - v, soft))
    return masks[0], masks[1]


def _heart(u: Array, v: Array, anatomy: Anatomy, pose: Pose, soft: float) -> Array:
    """Heart, great vessels and the aortic knob."""
    grow = 1.12 if pose.ap else 1.0
    du, dv = u - np.float32(0.10), v - np.float32(0.16 + pose.breath)
    cos, sin = np.float32(np.cos(anatomy.tilt)), np.float32(np.sin(anatomy.tilt))
    along, across = (
        (cos * du + sin * dv) / (anatomy.heart[0] * grow),
        (cos * dv - sin * du) / (anatomy.heart[1] * grow),
    )
    heart = 0.28 * _step((1 - np.hypot(along, across)) * 0.25, 1.5 * soft)
    vessels = 0.16 * _step(0.13 - np.abs(u) + 0.05 * v, 2 * soft) * _step(0.3 - v, 0.08)
    knob = 0.10 * _step(0.09 - np.hypot(u - 0.10, v + 0.30), 1.5 * soft)
    return np.maximum(heart, vessels) + knob * (1 - 4 * heart)


def _bones(u: Array, v: Array, anatomy: Anatomy, soft: float, air: Array) -> Array:
    """Spine with its discs, rear and front ribs, clavicles."""
    side = np.abs(u)
    spine = 0.09 * _bump(u, 0.10) * (1 + 0.25 * np.cos(v * np.float32(2 * np.pi / 0.13)))
    cage = _step(anatomy.body - 0.12 - side, 0.03) * _step(0.62 - v, 0.05) * _step(v + 0.82, 0.05)
    sharp = 1.6 if soft < 0.03 else 1.0
    turn = np.float32(2 * np.pi / anatomy.spacing)
    rear = v + anatomy.spacing * anatomy.phase - 0.5 * anatomy.slope * np.sin(np.pi * (side + 0.15))
    front = v + anatomy.spacing * anatomy.phase + 1.1 * anatomy.slope * (1 - side) ** 2
    ribs = 0.09 * (0.5 + 0.5 * np.cos(rear * turn)) ** (2 * sharp) * _step(side - 0.08, 0.03)
    ribs += 0.05 * (0.5 + 0.5 * np.cos(front * turn)) ** (2 * sharp) * _step(side - 0.30, 0.05)
    bow = v + 0.60 - anatomy.clavicle * (0.5 - side) * 0.8 + 0.05 * np.sin(6 * side)
    clavicles = 0.15 * _bump(bow, 0.035) * _step(side - 0.07, 0.02) * _step(0.78 - side, 0.05)
    return np.float32(anatomy.bone) * (spine + ribs * cage * (0.4 + 0.6 * air) + clavicles)


def _veil(u: Array, v: Array, pose: Pose) -> Array:
    constant, right, down = pose.veil
    return np.float32(constant) + np.float32(right) * u + np.float32(down) * v


def _grain(u: Array, v: Array, anatomy: Anatomy) -> Array:
    """Vessels fanning out from the two hila, and the lung's fine grain."""
    side = np.abs(u)
    du, dv = side - np.float32(0.16), v + np.float32(0.04)
    angle, radius = np.arctan2(dv, du), np.hypot(du, dv)
    a, b = np.where(u < 0, anatomy.vessels[0], anatomy.vessels[1]), np.float32(3.0)
    fan = (0.5 + 0.5 * np.cos(9 * angle + a + b * np.sin(5 * radius + a))) ** 3
    hila = 0.08 * _bump(radius, 0.10)
    return hila + 0.07 * fan * (_bump(radius, 0.32) - _bump(radius, 0.06)) + 0.008 * _noise(u, v, anatomy.texture, 14)


def _noise(u: Array, v: Array, grid: Array, cells: float) -> Array:
    """A grid of numbers as a smooth field, `cells` to half a film, repeating beyond its edge."""
    return map_coordinates(grid, [v * cells + 16, u * cells + 16], order=1, mode="grid-wrap")


def _finding(seed: int, patient: int, film: int, label: int, u: Array, v: Array, lungs: tuple[Array, Array]) -> Array:
    """The opacity of the class: its place is the patient's, its extent and strength are the film's."""
    place, extent = stream(seed, patient, 2), stream(seed, patient, 4, film)
    grid = place.standard_normal((32, 32), dtype=np.float32)
    if label == 1:
        return _lobar(place, extent, u, v, lungs, grid)
    if label == 2:
        return _ground_glass(place, extent, u, v, lungs, grid)
    return np.zeros_like(u)


def _lobar(
    place: np.random.Generator,
    extent: np.random.Generator,
    u: Array,
    v: Array,
    lungs: tuple[Array, Array],
    grid: Array,
) -> Array:
    """One dense region with a ragged border in one lobe."""
    side = int(place.integers(2))
    cu, cv = (
        (2 * side - 1) * place.uniform(0.36, 0.44),
        place.choice([-0.36, -0.08, 0.18]) + place.uniform(-0.05, 0.05),
    )
    radius = place.uniform(0.23, 0.29) * extent.uniform(0.85, 1.15)
    distance = radius - np.hypot(u - np.float32(cu), (v - np.float32(cv)) * 0.95) + 0.03 * _noise(u, v, grid, 9)
    opacity = np.float32(extent.uniform(0.32, 0.39)) * _step(distance, 0.02) * lungs[side]
    return opacity * (1 + 0.12 * _noise(v, u, grid, 12))


def _ground_glass(
    place: np.random.Generator,
    extent: np.random.Generator,
    u: Array,
    v: Array,
    lungs: tuple[Array, Array],
    grid: Array,
) -> Array:
    """Many faint patches along the outer edges of both lungs."""
    patches = np.zeros_like(u)
    for side, lung in zip((-1, 1), lungs, strict=True):
        for _ in range(6):
            cu, cv = side * place.uniform(0.36, 0.60), place.uniform(-0.40, 0.36)
            radius = place.uniform(0.07, 0.10) * extent.uniform(0.8, 1.2)
            strength = extent.uniform(0.18, 0.30)
            patches += np.float32(strength) * _bump(np.hypot(u - np.float32(cu), v - np.float32(cv)), radius) * lung
    return 0.32 * (1 - np.exp(patches * np.float32(-1 / 0.32))) * (1 + 0.35 * _noise(u, v, grid, 12))


def _expose(image: Array, x: Array, y: Array, soft: float, pose: Pose, noise: Array) -> NDArray[np.float32]:
    """Exposure gradient, tone curve and noise; then the lead letter, which saturates."""
    ramp = 1 + np.float32(pose.gradient[0]) * x + np.float32(pose.gradient[1]) * y
    tone = np.clip(image * ramp, 0, None) ** np.float32(pose.gamma) * np.float32(1.05 * pose.gain)
    tone = tone + np.float32(pose.offset) * _step(image - 0.1, 0.03) + 0.02 + np.float32(pose.noise) * noise
    return np.clip(np.maximum(tone, 0.95 * _letter(x, y, soft, pose)), 0, 1).astype(np.float32)


def _letter(x: Array, y: Array, soft: float, pose: Pose) -> Array:
    """An R on the patient's right (the film's left), an L on the other side."""
    dx, dy = (x - np.float32(pose.marker[0])) / 0.05, (y - np.float32(pose.marker[1])) / 0.07
    blur = max(soft / 0.05, 0.15)
    stem = np.minimum(0.22 - np.abs(dx + 0.7), 1 - np.abs(dy))
    if pose.marker[0] > 0:
        shape = np.maximum(stem, np.minimum(0.18 - np.abs(dy - 0.85), 0.85 - np.abs(dx + 0.0)))
    else:
        bowl = np.where(dx > -0.6, 0.2 - np.abs(np.hypot((dx + 0.5) * 0.7, dy + 0.45) - 0.5), -1.0)
        leg = np.minimum(0.22 - np.abs(dx - 0.65 * dy + 0.2) * 0.8, np.minimum(dy, 1 - dy) + 0.1)
        shape = np.maximum(np.maximum(stem, bowl), leg)
    return _step(shape.astype(np.float32), 0.5 * blur)
