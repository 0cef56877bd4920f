"""Does a generator that was meta-trained on other pictures adapt to chest films in a few steps?

MGDD meta-trained on CIFAR-10 in grey at 28 px, adapted to PneumoniaMNIST on one and ten images a class, asked for one,
five (never seen) and ten; beside its start, the generator without adaptation or without meta-training, and MTT, with
the seconds that each takes in this process. Students' step size: the best on validation films for three sets together.

    python pipelines/mgdd.py [option of medistill ...]     -> docs/results/mgdd.json

MEDISTILL_DATA names the folder that holds cifar10/ and medmnist/.
"""

import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from torch.nn.functional import one_hot

from medistill.cli import configure
from medistill.config.mgdd import Mgdd
from medistill.distill.course import Course, Films, Given
from medistill.distill.initial import labels_of, noise, real
from medistill.distill.methods import METHODS
from medistill.evaluate.arm import measured_arm
from medistill.evaluate.predictions import predictions
from medistill.evaluate.student import Recipe
from medistill.files import write_json, write_tensors
from medistill.seeds import generator
from medistill.stages.experts import experts, trained
from medistill.stages.load import Splits, load
from medistill.stages.session import Session

SEEDS, IPCS, GRID = (0, 1), (1, 5, 10), (0.003, 0.01, 0.03)
META, FEW, MANY = 40, 20, 100
OWN = Mgdd(inner=5, ipcs=[1, 10], batch=256, width=8, maps=4)
STUDENTS, RECIPE = 5, Recipe(100, 64, augment=("color", "crop", "cutout", "scale", "rotate"))
CHOOSERS = ("start", f"fresh, {MANY} steps", f"meta, {MANY} steps")
WORDS = """--config configs/pneumoniamnist.yaml --run runs/mgdd --track false --experts.count 2 --experts.epochs 6
--distill.max_start_epoch 4 --distill.iterations 60"""
OTHER = "--config configs/cifar10.yaml --run runs/mgdd-cifar10 --track false --data.zca false --threads 1"
RESULT = Path("docs/results/mgdd.json")


def finished(course: Course, seconds: dict[str, float], name: str, last: int = -1) -> Course:
    """Run a course to iteration `last` and add its seconds on the clock and of the processor."""
    begun = time.perf_counter(), time.process_time()
    for _ in course.run():
        if course.iteration == last:
            break
    seconds[name] = seconds.get(name, 0) + time.perf_counter() - begun[0]
    seconds[f"{name}, processor"] = seconds.get(f"{name}, processor", 0) + time.process_time() - begun[1]
    return course


def starts(kind: str, films: Splits, ipc: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Start images and classes of a set."""
    train, draws = films.train, generator(seed, "study", kind, ipc)
    classes = labels_of(len(train.classes), ipc)
    if kind == "real":
        return train.pixels()[real(train.labels, train.groups, train.classes, ipc, draws)], classes
    return noise((len(classes), *train.images.shape[1:]), 1.0, 0.0, draws), classes


def measured(one: Session, films: Splits, name: str, made: tuple, lr: float, students: int = STUDENTS) -> dict:
    """Validation and test figures, means over students, of (images, labels)."""
    architecture = one.architecture(1, len(films.train.classes))
    found = predictions(*made, lr, architecture, RECIPE, films.val, films.test, range(students), 0, one.device)
    arm = measured_arm(name, len(made[0]), lr, RECIPE, found, films.val, films.test, one.config.data.positive, 0, 2)
    kept = ("balanced_accuracy", "auroc_positive")
    return {
        "lr": lr,
        "validation": {metric: arm.val_summary[metric][0] for metric in kept},
        "test": {metric: arm.test_summary[metric][0] for metric in kept},
        "sd": {metric: arm.test_summary[metric][1] for metric in kept},
    }


def sets(kind: str, one: Session, films: Splits, file: Path, seed: int, seconds: dict[str, float]) -> dict:
    """Of each arm the (images, labels) of each budget."""
    begun, found = starts(kind, films, 1, seed), {}
    train = Films(films.train.pixels(), films.train.labels)
    given = Given(begun[0], one_hot(begun[1]).float(), one.architecture(1, len(films.train.classes)), seed, films=train)
    for name, path in {"fresh": "", "meta": str(file)}.items():
        settings = replace(one.config.distill, method="mgdd", start=kind, mgdd=replace(OWN, adapt=MANY, generator=path))
        course = METHODS["mgdd"].begin(given, settings)
        for steps in (0, FEW, MANY):
            if steps:
                told = f"{len(SEEDS)} adaptations, {name}, steps {course.iteration + 1} to {steps}"
                finished(course, seconds, told, steps)
            before = time.perf_counter(), time.process_time()
            made = {ipc: course.generate(*starts(kind, films, ipc, seed)) for ipc in IPCS}
            seconds["three sets from a generator"] = time.perf_counter() - before[0]
            seconds["three sets from a generator, processor"] = time.process_time() - before[1]
            found[f"{name}, {steps} steps"] = {ipc: (*two, {"ridge_error": e}) for ipc, (*two, e) in made.items()}
    found["start"] = {ipc: (*starts(kind, films, ipc, seed), {}) for ipc in IPCS}
    return found


def meta_trained(kind: str, one: Session, seconds: dict[str, float]) -> Path:
    """The file of a generator that has seen CIFAR-10 alone."""
    train = load(Session(configure("run", [*OTHER.split()]))).train
    grey = train.pixels().mean(1, keepdim=True)[..., 2:30, 2:30].contiguous()
    given = Given(
        noise((10, 1, 28, 28), 1.0, 0.0, generator(0, "unused")),
        torch.eye(10),
        replace(one.architecture(1, 10), size=28),
        0,
        films=Films(grey, train.labels),
    )
    settings = replace(one.config.distill, method="mgdd", start=kind, mgdd=replace(OWN, meta=META, adapt=0))
    course = finished(METHODS["mgdd"].begin(given, settings), seconds, f"meta-training, {META} steps of Reptile")
    path = one.folder / f"generator_{kind}.safetensors"
    write_tensors(path, course.made().also, {})
    return path


def study(kind: str, one: Session, films: Splits, rows: dict, seconds: dict[str, float]) -> dict:
    """Fill in rows by arm and budget, one a seed, and the seconds; the choice of step sizes."""
    file = meta_trained(kind, one, seconds)
    each = [sets(kind, one, films, file, seed, seconds) for seed in SEEDS]
    tried: dict[int, dict[float, float]] = {}
    for ipc in IPCS:
        for lr in GRID:
            scores = [measured(one, films, arm, each[0][arm][ipc][:2], lr, 1)["validation"] for arm in CHOOSERS]
            tried.setdefault(ipc, {})[lr] = fmean(score["balanced_accuracy"] for score in scores)
        lr = max(GRID, key=tried[ipc].__getitem__)
        for arm in each[0]:
            rows[f"{arm}, ipc {ipc}"] = [
                measured(one, films, arm, found[arm][ipc][:2], lr) | found[arm][ipc][2] for found in each
            ]
    return tried


def matched(one: Session, films: Splits, rows: dict, seconds: dict[str, float]) -> None:
    """MTT from the same noise at one and ten images a class, seed 0, and its seconds."""
    before = time.perf_counter(), time.process_time()
    experts(one)
    seconds |= {"experts": time.perf_counter() - before[0], "experts, processor": time.process_time() - before[1]}
    for ipc in (1, 10):
        images, classes = starts("noise", films, ipc, SEEDS[0])
        trajectories = trained(one, films)
        given = Given(images, one_hot(classes).float(), trajectories.architecture, SEEDS[0], trajectories)
        course = METHODS["mtt"].begin(given, replace(one.config.distill, ipc=ipc))
        made = finished(course, seconds, f"MTT, ipc {ipc}, {course.total} iterations").made()
        rows[f"MTT, ipc {ipc}"] = [measured(one, films, "MTT", (made.images, made.labels), made.lr)]


def main() -> None:
    one = Session(configure("run", [*WORDS.split(), *sys.argv[1:]]))
    torch.set_num_threads(1)
    films, rows, seconds = load(one), {}, {}
    matched(one, films, rows, seconds)
    tried = study(one.config.distill.start, one, films, rows, seconds)
    found = {"command": "python pipelines/mgdd.py", "machine": f"{platform.machine()}, torch {torch.__version__}"}
    found |= {"start": one.config.distill.start, "students": STUDENTS, "validation by step size": tried}
    write_json(RESULT, found | {"rows": rows, "seconds": seconds})


if __name__ == "__main__":
    main()
