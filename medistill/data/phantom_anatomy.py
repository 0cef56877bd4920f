"""What varies between phantom patients, and between the films of one patient."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Anatomy:
    """What one patient's films share. Lengths in half film widths, before the pose of a film.

    Attributes:
        body: half width of the trunk.
        lung: half width of a lung (right, left), in image order: the patient's right lung stands left.
        apex: height of the lungs' tops (negative is up).
        dome: height of the diaphragm's domes (right, left).
        heart: half axes of the heart.
        tilt: angle of the heart's long axis, radians.
        spacing: distance between ribs.
        slope: how much ribs fall from the spine outwards.
        phase: where the first rib stands, in spacings.
        bone: density of bones.
        fat: density of soft tissue over the lungs.
        clavicle: rise of the clavicles.
        vessels: (8,) phases of the vessels' tree.
        texture: (32, 32) a grid of normal numbers, the lung's grain.
    """

    body: float
    lung: tuple[float, float]
    apex: float
    dome: tuple[float, float]
    heart: tuple[float, float]
    tilt: float
    spacing: float
    slope: float
    phase: float
    bone: float
    fat: float
    clavicle: float
    vessels: NDArray[np.float32]
    texture: NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """What belongs to one film alone: how the patient stood, and the exposure.

    Attributes:
        shift: (right, down) in half film widths.
        angle: rotation, radians.
        scale: magnification.
        ap: True where the film was taken from the front (AP), which enlarges the heart.
        breath: how far the diaphragm goes down.
        veil: uneven density over the lungs: (constant, rightwards, downwards).
        gradient: exposure rising over the film: (rightwards, downwards).
        gamma: bend of the tone curve.
        gain: contrast.
        offset: brightness.
        noise: standard deviation of the noise.
        marker: the letter's corner, (right, down).
    """

    shift: tuple[float, float]
    angle: float
    scale: float
    ap: bool
    breath: float
    veil: tuple[float, float, float]
    gradient: tuple[float, float]
    gamma: float
    gain: float
    offset: float
    noise: float
    marker: tuple[float, float]


def draw_anatomy(seed: int, patient: int) -> Anatomy:
    """The anatomy of a patient."""
    rng = stream(seed, patient, 0)
    lung, dome = rng.uniform(0.25, 0.31), rng.uniform(0.34, 0.52)
    return Anatomy(
        body=rng.uniform(0.84, 0.98),
        lung=(lung * rng.uniform(0.98, 1.06), lung * rng.uniform(0.92, 1.0)),
        apex=rng.uniform(-0.78, -0.66),
        dome=(dome, dome + rng.uniform(0.02, 0.09)),
        heart=(rng.uniform(0.31, 0.39), rng.uniform(0.25, 0.31)),
        tilt=rng.uniform(0.4, 0.8),
        spacing=rng.uniform(0.15, 0.18),
        slope=rng.uniform(0.25, 0.5),
        phase=rng.uniform(),
        bone=rng.uniform(0.7, 1.1),
        fat=rng.uniform(0.0, 0.06),
        clavicle=rng.uniform(0.05, 0.25),
        vessels=rng.uniform(0, 2 * np.pi, 8).astype(np.float32),
        texture=rng.standard_normal((32, 32), dtype=np.float32),
    )


def draw_pose(seed: int, patient: int, film: int) -> Pose:
    """Pose and exposure of one film."""
    rng = stream(seed, patient, 1, film)
    shift = rng.uniform(-0.09, 0.09, 2)
    veil = rng.uniform((-0.03, -0.12, -0.10), (0.09, 0.12, 0.10))
    gradient = rng.uniform(-0.08, 0.08, 2)
    return Pose(
        shift=(shift[0], shift[1]),
        angle=rng.uniform(-0.12, 0.12),
        scale=rng.uniform(0.88, 1.12),
        ap=bool(rng.uniform() < 0.5),
        breath=rng.uniform(-0.06, 0.06),
        veil=(veil[0], veil[1], veil[2]),
        gradient=(gradient[0], gradient[1]),
        gamma=rng.uniform(0.75, 1.35),
        gain=rng.uniform(0.85, 1.2),
        offset=rng.uniform(-0.06, 0.06),
        noise=rng.uniform(0.008, 0.02),
        marker=(float(rng.choice([-0.86, 0.86])), rng.uniform(-0.92, -0.75)),
    )


def stream(seed: int, patient: int, *place: int) -> np.random.Generator:
    """The random numbers of one place in one patient's films."""
    return np.random.default_rng([seed, patient, *place])
