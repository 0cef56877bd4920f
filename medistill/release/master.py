"""The master, distilled.safetensors, from elsewhere: every value is checked before anybody computes with it."""

import math
from itertools import pairwise

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from medistill.config.net import misfit
from medistill.data.imageset import normalise
from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError, UserError
from medistill.foreign import shown
from medistill.nets import NETWORKS
from medistill.release.manifest import AGAIN, IMAGES
from medistill.release.parse import DAMAGED, parse_object

LONGEST_HEADER = 1 << 20
MOST_CHANNELS = 4
LONGEST_NAME = 200


def parse_master(data: bytes) -> Distilled:
    """The distilled set in the bytes of its file; the header's claims are held against them before anything is made.

    Raises:
        ReleaseError: they are no set, or hold what no release holds.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        if not 0 < length <= min(LONGEST_HEADER, len(data)):
            raise ReleaseError(f"{IMAGES}: not a distilled set (a header of {length} bytes); {AGAIN}")
        header = parse_object(IMAGES, data[8 : 8 + length])
        if set(header["__metadata__"]) != {"medistill"}:
            raise ReleaseError(f"{IMAGES}: a header with more in it than a set's; {AGAIN}")
        metadata = parse_object(IMAGES, header["__metadata__"]["medistill"])
        distilled = Distilled.of(IMAGES, metadata, load_tensors(data))
        problem = _problem(distilled)
    except (SafetensorError, *DAMAGED) as error:
        why = shown(f"{type(error).__name__}: {error}")
        raise ReleaseError(f"{IMAGES}: not a distilled set ({why}); {AGAIN}") from error
    except UserError as error:
        raise ReleaseError(str(error)) from error
    if problem:
        raise ReleaseError(f"{IMAGES}: {shown(problem)}; {AGAIN}")
    return distilled


def _problem(distilled: Distilled) -> str | None:
    """What is wrong with the values of a distilled set, or None."""
    net = distilled.architecture
    sizes = (net.channels, net.classes, net.size, net.width, net.depth)
    if distilled.zca is not None:
        return "a whitening, which no release carries"
    if net.name not in NETWORKS:
        return f"network {net.name!r} is not one of {', '.join(NETWORKS)}"
    if any(type(size) is not int or size < 1 for size in sizes) or net.channels > MOST_CHANNELS:
        return f"no network can be built of the sizes {sizes}"
    if wrong := misfit(net.name, net.size, net.width, net.depth):
        return f"no network can be built: {wrong}"
    if not isinstance(distilled.provenance, dict):
        return "a provenance that is no JSON object"
    return (
        _tensor_problem(distilled)
        or _name_problem(distilled)
        or _sequence_problem(distilled)
        or _constants_problem(distilled)
        or _brightness_problem(distilled)
    )


def _tensor_problem(distilled: Distilled) -> str | None:
    """What is wrong with the images or labels, or None."""
    images, labels, net = distilled.images, distilled.labels, distilled.architecture
    if images.dtype != torch.float32 or labels.dtype != torch.float32:
        return f"images are {images.dtype} and labels {labels.dtype} where float32 belongs"
    if images.ndim != 4 or len(images) < 1 or tuple(images.shape[1:]) != (net.channels, net.size, net.size):
        return f"images of shape {tuple(images.shape)} do not fit (M, {net.channels}, {net.size}, {net.size})"
    if tuple(labels.shape) != (len(images), net.classes) or len(distilled.classes) != net.classes:
        return f"labels {tuple(labels.shape)} or {len(distilled.classes)} names: not {net.classes} classes"
    if not bool(images.isfinite().all()) or not bool(labels.isfinite().all()):
        return "images or labels hold values that are not finite"
    if bool((labels < 0).any()) or not torch.allclose(labels.sum(1), torch.ones(len(labels)), atol=1e-3):
        return "labels are no probabilities"
    return None


def _name_problem(distilled: Distilled) -> str | None:
    """What is wrong with the names of classes and augmentations, or None."""
    names = (*distilled.classes, *distilled.augment)
    if not all(isinstance(name, str) for name in names):
        return "a name that is no text"
    if not all(name.isprintable() and 0 < len(name) <= LONGEST_NAME for name in names):
        return f"a name that is empty, longer than {LONGEST_NAME} letters or not printable"
    if len(set(distilled.classes)) < len(distilled.classes):
        return "two classes of the same name"
    return None


def _sequence_problem(distilled: Distilled) -> str | None:
    """What is wrong with the order of an ordered set, or None."""
    if not distilled.sequence:
        return None
    counts, rates = zip(*distilled.sequence, strict=True)
    if counts[0] < 1 or counts[-1] != len(distilled.images) or any(n >= m for n, m in pairwise(counts)):
        return f"a sequence whose counts do not rise from 1 or more up to the {len(distilled.images)} images"
    if not all(math.isfinite(rate) and rate > 0 for rate in rates):
        return "a sequence with a learning rate that is not a finite number above zero"
    return None


def _constants_problem(distilled: Distilled) -> str | None:
    """What is wrong with the learning rate or the constants of the normalisation, or None."""
    channels = distilled.architecture.channels
    if len(distilled.mean) != channels or len(distilled.std) != channels:
        return f"{len(distilled.mean)} means and {len(distilled.std)} deviations for {channels} channels"
    numbers = (distilled.lr, *distilled.mean, *distilled.std)
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        return "a learning rate, mean or deviation that is not a finite number"
    if min(distilled.lr, *distilled.std) <= 0:
        return "a learning rate or deviation that is not above zero"
    return None


def _brightness_problem(distilled: Distilled) -> str | None:
    """What is wrong with the images as pixels, or with black and white as the networks see them, or None."""
    ends = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, distilled.architecture.channels, 1, 1)
    seen = (distilled.pictures(), normalise(ends, distilled.mean, distilled.std))
    return None if all(bool(x.isfinite().all()) for x in seen) else "images whose pixels are not finite"
