"""Start images of a distillation, from films or without any."""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from medistill import seeds
from medistill.distill import initial
from medistill.errors import UserError
from medistill.stages.experts import MEANS, place, trained
from medistill.stages.load import Splits
from medistill.stages.public import Constants
from medistill.stages.session import Session

MEANS_NORM = 2.0
"""The norm to which private class means are scaled around the public image: that of one patient's clipped film."""


def distillation_seed(session: Session) -> int:
    """The seed of this distillation."""
    return seeds.derive(session.config.seed, "distillation", session.config.distill.seed)


def start_images(session: Session, known: Constants, splits: Splits | None) -> tuple[Tensor, Tensor]:
    """Start images (M, C, H, W) and one-hot labels (M, K) on the device."""
    settings, classes = session.config.distill, len(known.classes)
    if splits is not None and settings.start == "class_mean":
        images = initial.class_means(splits.train.pixels(), splits.train.labels, classes, settings.ipc)
    elif splits is not None and settings.start == "real":
        images = splits.train.pixels()[start_films(session, splits)]
    else:
        images = _public_start(session, known)
    labels = F.one_hot(initial.labels_of(classes, settings.ipc), classes).to(images.dtype)
    return images.to(session.device), labels.to(session.device)


def _public_start(session: Session, known: Constants) -> Tensor:
    """Start images (M, C, H, W) that need no film."""
    settings = session.config.distill
    if settings.start == "phantom":
        return known.as_seen(_phantoms(session, known.classes))
    if settings.start == "private_means":
        means = load_file(place(session, None)[0].folder / MEANS)
        return known.as_seen(
            initial.private_means(means["sums"], means["public"], MEANS_NORM, known.shape[-1], settings.ipc)
        )
    shape = (len(known.classes) * settings.ipc, *known.shape)
    generator = seeds.generator(distillation_seed(session), "start")
    return initial.noise(shape, settings.start_scale, settings.start_smooth, generator)


def start_films(session: Session, splits: Splits) -> Tensor:
    """(M,) int64: the training film that each synthetic image of a real start begins as."""
    settings, train = session.config.distill, splits.train
    generator = seeds.generator(distillation_seed(session), "start")
    if not settings.difficulty.correct:
        return initial.real(train.labels, train.groups, train.classes, settings.ipc, generator)
    right = torch.nonzero(trained(session, splits).answers(train.pixels()).argmax(1) == train.labels).flatten()
    for name, count in zip(train.classes, train.labels[right].bincount(minlength=len(train.classes)), strict=True):
        if count < settings.ipc:
            raise UserError(
                f"distill.difficulty.correct is true, but the first expert is right about fewer films of class {name} "
                f"than distill.ipc {settings.ipc}; set it to false or train the experts for longer"
            )
    return right[initial.real(train.labels[right], train.groups[right], train.classes, settings.ipc, generator)]


def _phantoms(session: Session, classes: tuple[str, ...]) -> Tensor:
    """Phantom films (M, 1, S, S) in [0, 1], by the likeness of the class names.

    A class named like COVID starts from diffuse opacities, one named like normal from clear lungs, any
    other from lobar opacities.
    """
    from medistill.data import phantom

    ipc = session.config.distill.ipc
    films, labels = phantom.films(ipc * len(classes), session.config.data.size, distillation_seed(session))
    parts, used = [], [0] * len(phantom.CLASSES)
    for name in classes:
        kind = 2 if "covid" in name.lower() else 0 if "normal" in name.lower() else 1
        pool = films[labels == kind]
        parts.append(pool[used[kind] : used[kind] + ipc])
        used[kind] += ipc
    return torch.cat(parts)
