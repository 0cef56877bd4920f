"""What pipelines/multisite.py is made of: sites, a set distilled by one of them, and what networks learn of sets."""

from dataclasses import replace

import torch
from external_parts import SMALL
from torch import Tensor

from medistill.cli import configure
from medistill.config import Distill
from medistill.data.imageset import ImageSet
from medistill.distill.course import Course, Given
from medistill.distill.distilled import Distilled
from medistill.distill.methods import METHODS
from medistill.experts.train import train_experts
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.release.merge import under
from medistill.seeds import generator
from medistill.stages.load import Splits, cohort_table, load
from medistill.stages.public import Constants
from medistill.stages.session import Session
from medistill.stages.start import distillation_seed, start_images
from medistill.stages.students import measure

SITES = {
    "A": ("COVID-19 Radiography Database (Kaggle)",),
    "B": ("Kermany 2018 chest_xray (train)",),
    "C": (
        "ieee8023/covid-chestxray-dataset",
        "Hannover MHH COVID-19 Image Repository",
        "Figure 1 COVID-19 CXR",
        "Actualmed COVID-19 CXR",
    ),
}

# The reduced budget of external.py; a start that shows nobody, and as many networks a set as covid19.py trains.
SETTINGS = SMALL | {"run": "runs/multisite", "distill.start": "phantom", "evaluate.seeds": 5}

ALPHAS = (0.01, 0.003, 0.001, 0.0003)
REHEARSAL = 10  # iterations
FACTORS = (0.3, 1, 3, 10)


def session(*options: str) -> Session:
    settings = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    return Session(configure("run", ["--config", "configs/covid19.yaml", *settings, *options]))


def by_source(one: Session, splits: Splits) -> dict[str, ImageSet]:
    """The training films of each site, which knows the classes that it has films of."""
    table = cohort_table(one)
    source = table["site"][table["split"] == "train"]
    return {name: _some(splits.train, name, torch.tensor(source.isin(of).to_numpy())) for name, of in SITES.items()}


def dealt(one: Session, splits: Splits) -> dict[str, ImageSet]:
    """The same patients dealt to as many sites at random, in equal numbers."""
    people, patient = splits.train.groups.unique(return_inverse=True)
    order = torch.randperm(len(people), generator=generator(one.config.seed, "deal"))
    site = torch.empty_like(order)
    site[order] = torch.arange(len(people)) % len(SITES)
    return {f"dealt {name}": _some(splits.train, f"dealt {name}", site[patient] == k) for k, name in enumerate(SITES)}


def _some(films: ImageSet, name: str, rows: Tensor) -> ImageSet:
    """Some films (N,) bool of a set, under the classes that occur among them."""
    present, labels = films.labels[rows].unique(return_inverse=True)
    return replace(
        films,
        images=films.images[rows],
        labels=labels,
        groups=films.groups[rows],
        classes=tuple(films.classes[k] for k in present.tolist()),
        name=name,
    )


def distilled(one: Session, films: ImageSet) -> Distilled:
    """The set that a site distils from its own films, as `medistill distill` would; kept in the run's folder."""
    folder, settings = one.folder / f"site-{films.digest[:8]}", one.config.distill
    net = one.architecture(films.images.shape[1], len(films.classes))
    files = [folder / f"expert_{number:04d}.safetensors" for number in range(one.config.experts.count)]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    plain = films.pixels(), films.labels, net, one.config.experts, one.config.seed
    for number, rows in train_experts(*plain, missing, compiled=one.compiled):
        save_trajectory(files[number], rows, net, data=films.digest, index=number)
    file = folder / f"ipc{settings.ipc}-{settings.seed}.safetensors"
    if not file.exists():
        known = Constants.of(films)
        given = Given(*start_images(one, known, None), net, distillation_seed(one), Trajectories.open(files))
        course = begun(given, settings)
        for _ in course.run():
            pass
        made, method = course.made(), METHODS[settings.method]
        story = {"method": method.title, "start": settings.start, "iterations": course.total, **made.provenance}
        constants = {"classes": known.classes, "mean": known.mean, "std": known.std, "augment": tuple(settings.augment)}
        Distilled(made.images, made.labels, made.lr, architecture=net, provenance=story, **constants).save(file)
    return Distilled.load(file)


def begun(given: Given, settings: Distill) -> Course:
    """A course from the largest step size at which none of the first iterations is skipped for its loss.

    A site with few films wants a small one, as `medistill distill` says when it stops. Only the site's own experts are
    asked, so it is what the site itself would do.
    """
    method = METHODS[settings.method]
    for alpha in ALPHAS:
        course = method.begin(given, replace(settings, alpha=alpha))
        for _ in zip(range(REHEARSAL), course.run(), strict=False):
            pass
        if not course.history[:, course.columns.index("skipped")].any():
            break
    return method.begin(given, replace(settings, alpha=alpha))


def tuned(one: Session, splits: Splits, made: Distilled) -> dict:
    """What networks learn of a set at the multiple of its step size that is best on validation patients."""
    rows = [row(one, splits, made.images, made.labels, made.lr * factor, made) for factor in FACTORS]
    return max(rows, key=lambda found: found["validation"]["balanced_accuracy"])


def row(one: Session, splits: Splits, images: Tensor, labels: Tensor, lr: float, by: ImageSet | Distilled) -> dict:
    """What networks over all classes learn from images with labels (M,) or (M, K) under the classes of `by`."""
    classes, names = splits.train.classes, by.classes
    if labels.ndim == 1:
        targets = torch.tensor([classes.index(name) for name in names])[labels]
    else:
        targets = under(labels, names, classes)
    arm = measure(one, splits, "multisite", images, targets, lr).arm
    mean, sd = ({key: value[place] for key, value in arm.test_summary.items()} for place in (0, 1))
    found = torch.tensor(arm.confusion).double()
    return {
        "images": len(images),
        "lr": lr,
        "classes": list(names),
        "validation": {key: value[0] for key, value in arm.val_summary.items()},
        "mean": mean,
        "sd": sd,
        "interval": arm.bootstrap.intervals,
        "recall": dict(zip(classes, (found.diag() / found.sum(1)).tolist(), strict=True)),
    }


def films_of(one: Session) -> dict[str, dict[str, int]]:
    """Training films of each class at each site."""
    splits = load(one)
    sites = by_source(one, splits) | dealt(one, splits)
    return {name: dict(zip(films.classes, films.counts, strict=True)) for name, films in sites.items()}
