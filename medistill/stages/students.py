"""Students of one arm: trained, asked about the films of validation and test, and measured."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from medistill.evaluate.arm import measured_arm
from medistill.evaluate.evaluation import Measured, rule_of
from medistill.evaluate.predictions import Predictions, predictions
from medistill.evaluate.student import Recipe
from medistill.stages.experts import architecture_of
from medistill.stages.load import Splits
from medistill.stages.session import Session


def measure(
    session: Session,
    splits: Splits,
    name: str,
    images: Tensor,
    targets: Tensor,
    lr: float,
    sequence: Sequence[tuple[int, float]] = (),
) -> Measured:
    """Train and measure the students of one arm."""
    config, recipe = session.config, recipe_of(session)
    found = ask(session, splits, name, images, targets, lr, recipe, sequence)
    arm = measured_arm(
        name,
        len(images),
        lr,
        recipe,
        found,
        splits.val,
        splits.test,
        config.data.positive,
        config.seed,
        config.evaluate.resamples,
        rule_of(config.evaluate)[0],
    )
    return Measured(arm, found)


def recipe_of(session: Session) -> Recipe:
    """How all students are trained."""
    settings = session.config.evaluate
    return Recipe(
        steps=settings.steps,
        batch=settings.batch,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        augment=tuple(settings.augment),
    )


def ask(
    session: Session,
    splits: Splits,
    name: str,
    images: Tensor,
    targets: Tensor,
    lr: float,
    recipe: Recipe,
    sequence: Sequence[tuple[int, float]] = (),
) -> Predictions:
    """What the students of one arm answer; kept in a file of its own, so that studies share baselines."""
    group = session.group
    decides: dict[str, Any] = {
        "images": _digest(images),
        "targets": _digest(targets),
        "lr": lr,
        "net": asdict(architecture_of(session, splits)),
        "recipe": asdict(recipe),
        "students": session.config.evaluate.seeds,
        "data": splits.digests,
        "seed": session.config.seed,
    }
    if sequence:
        decides["sequence"] = list(sequence)
    key = session.work("arm", decides).key
    file = session.folder / "arms" / f"{name.replace(' ', '_')}-{key[:8]}.safetensors"
    if not group.numbers([file.exists()] if group.leads else [])[0]:
        found = _predictions(session, splits, name, images, targets, lr, recipe, sequence)
        if group.leads:
            found.save(file)
        group.wait()
    return Predictions.load(file)


def _predictions(
    session: Session,
    splits: Splits,
    name: str,
    images: Tensor,
    targets: Tensor,
    lr: float,
    recipe: Recipe,
    sequence: Sequence[tuple[int, float]],
) -> Predictions:
    """Every student's answers; processes take turns at the seeds."""
    group, count, seed = session.group, session.config.evaluate.seeds, session.config.seed
    mine = range(group.rank, count, group.size)
    with session.bar(len(mine) * recipe.steps, f"students: {name}", "step") as bar:
        told = bar.estimate(f"students: {name}: {len(mine)} networks of {recipe.steps} steps each")
        found = predictions(
            images,
            targets,
            lr,
            architecture_of(session, splits),
            recipe,
            splits.val,
            splits.test,
            mine,
            seed,
            session.device,
            bar.update,
            session.compiled,
            count,
            told,
            sequence,
        )
    # a student of another process stays 0 here, so that the sum over the processes holds all of them
    val, test = (torch.zeros(count, *part.shape[1:]) for part in (found.val, found.test))
    val[list(mine)], test[list(mine)] = found.val, found.test
    return Predictions(group.total(val), group.total(test))


def _digest(tensor: Tensor) -> str:
    """The identity of a tensor's values."""
    values = tensor.detach().cpu().to(torch.float32).contiguous().numpy()
    return hashlib.sha256(values.data).hexdigest()
