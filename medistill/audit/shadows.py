"""Shadow distillations: the run again, many times, each with another half of the patients.

What a shadow's students and experts answer to films of patients they have and have not seen is what membership
inference is calibrated on (checks 5 and 6), and what it is tried on. Everything here is made from real patients and
stays in the house. It is kept shadow by shadow, so that a killed audit goes on where it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill import seeds, sgd
from medistill.audit.check import Private
from medistill.audit.shadow_pool import Pool
from medistill.audit.shadow_training import Distillation, Shadow, Trainer, side_by_side, train_on_parts
from medistill.config import Distill, Experts
from medistill.distill.iadd import rehearse
from medistill.distill.state import State
from medistill.evaluate.student import Recipe, fit_all, predict
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.files import digest_of, read_metadata, write_tensors
from medistill.kernels import ADJOINT_COST, SLOPE_COST, Kernels, earns_compiling
from medistill.nets import Architecture, Flat
from medistill.resources import Used

QUERIED = 4
"""Epochs at which experts are queried, evenly spread up to the last."""


@dataclass(frozen=True)
class Shadows:
    """What all shadows answer; K shadows, S students, E experts, R epochs, N films, G patients, C classes.

    Attributes:
        pool: the films asked about.
        inside: (K, G) True where the shadow was made from the patient; rows 2j and 2j + 1 are each other's complement.
        students: (K, S, N, C) class probabilities by networks trained on the shadow's distilled set.
        planted: (K, G) True where a film of the patient is in the shadow's planted set: real films in the place of the
            distilled ones.
        planted_students: (K, S, N, C) class probabilities by networks trained on that.
        experts: (K, E, R, N, C) class probabilities by the shadow's experts at R epochs, the last one included.
        slopes: (K, E, N) the norm of each film's gradient in the experts' last parameters.
        noisy: whether the experts were trained with the noise of the DP run.
    """

    pool: Pool
    inside: Tensor
    students: Tensor
    planted: Tensor
    planted_students: Tensor
    experts: Tensor
    slopes: Tensor
    noisy: bool = False


def run_shadows(private: Private, trainer: Trainer = train_on_parts) -> Shadows:
    """Make all shadows, or what is missing of them in `private.folder`.

    Experts in DP mode train many times more slowly than plain ones. Their shadows are plain unless a trainer is given
    that adds the noise: what plain shadows leak bounds from above what noisy ones would.

    Args:
        private: films and settings; without a folder nothing is kept.
        trainer: of the shadows' experts.
    """
    with _kept(private) as folder:
        return _Run(private, folder).all(trainer)


def recipe_of(private: Private) -> Recipe:
    """The run's recipe for students."""
    s = private.config.evaluate
    return Recipe(s.steps, s.batch, s.momentum, s.weight_decay, tuple(s.augment))


def students_on(
    private: Private, pool: Pool, images: Tensor, targets: Tensor, lr: float, place: Sequence[str | int], of: int
) -> Tensor:
    """(S, N, C) class probabilities that fresh students trained on a set of images give all films of the pool.

    Args:
        private: settings and device.
        pool: the films.
        images: (M, C, H, W), normalised.
        targets: (M,) classes or (M, C) probabilities.
        lr: the students' learning rate.
        place: of their random numbers.
        of: students of all such calls, which decides whether to compile.
    """
    count, recipe, architecture = (
        private.config.audit.shadows.students,
        recipe_of(private),
        _architecture(pool, private),
    )
    generators = [seeds.generator(private.config.seed, "audit", *place, number) for number in range(count)]
    seen = recipe.steps * min(recipe.batch, len(images)) * of
    compiled = _compiled(private, Flat(architecture), seen, SLOPE_COST)
    fitted = fit_all(images, targets, architecture, lr, recipe, generators, private.device, compiled=compiled)
    answers = {number: predict(student, pool.pixels, private.device) for number, student in fitted}
    return torch.stack([answers[number] for number in range(count)])


def _architecture(pool: Pool, private: Private) -> Architecture:
    net = private.config.net
    return Architecture(net.name, pool.pixels.shape[1], len(pool.classes), pool.pixels.shape[2], net.width, net.depth)


def _compiled(private: Private, net: Flat, images: float, cost: int) -> bool:
    """Whether to compile, as configured or where work on so many images earns it; on a GPU only as configured."""
    wanted = {"auto": None, "always": True, "never": False}[private.config.compile]
    return wanted if wanted is not None else private.device.type == "cpu" and earns_compiling(net, images, cost)


@contextmanager
def _kept(private: Private) -> Iterator[Path]:
    """The folder of the shadows."""
    if private.folder is None:
        with TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        yield private.folder / "shadows"


class _Run:
    """The shadows of one audit and where they are kept."""

    def __init__(self, private: Private, folder: Path):
        self.private, self.folder, self.config = private, folder, private.config
        self.pool = Pool.of(private)
        self.count = self.config.audit.shadows.count
        self.inside = self.pool.halves(self.count // 2, self.config.seed)
        self.architecture = _architecture(self.pool, private)
        self.experts, self.settings = _settings(private)
        self.parts = [torch.nonzero(row[self.pool.patient]).flatten() for row in self.inside]
        decides = {
            "settings": [asdict(part) for part in (self.experts, self.settings, self.config.net, self.config.evaluate)],
            "shadows": asdict(self.config.audit.shadows),
            "seed": self.config.seed,
            "films": [private.train.digest, private.holdout.digest],
        }
        self.key = digest_of(decides)

    def all(self, trainer: Trainer) -> Shadows:
        """Do what is missing and gather everything."""
        if missing := [k for k in range(self.count) if self._read(f"shadow_{k:03d}") is None]:
            starts = {k: self.pool.start(self.parts[k], self.private, self.settings, k) for k in missing}
            self._announce(missing, starts[missing[0]])
            self._train(missing, trainer)
            self._distil(missing, starts)
        shadows = [Shadow(**self._found(f"shadow_{k:03d}")) for k in range(self.count)]
        students, planted = [], []
        planted_films = [
            self.pool.planted(part, self.settings.ipc, self.config.seed, k) for k, part in enumerate(self.parts)
        ]
        lr = self.config.evaluate.lr
        for k, (shadow, films) in enumerate(zip(shadows, planted_films, strict=True)):
            own = (shadow.images, shadow.labels, shadow.lr.item())
            real = (self.pool.pixels[films.to(self.pool.pixels.device)], self.pool.labels[films], lr)
            students.append(self._students(f"students_{k:03d}", *own, ("shadow", k)))
            planted.append(self._students(f"planted_{k:03d}", *real, ("planted", k)))
        chosen = torch.zeros_like(self.inside)
        for row, films in zip(chosen, planted_films, strict=True):
            row[self.pool.patient[films]] = True
        answers, slopes = torch.stack([s.answers for s in shadows]), torch.stack([s.slopes for s in shadows])
        return Shadows(self.pool, self.inside, torch.stack(students), chosen, torch.stack(planted), answers, slopes)

    def _train(self, missing: Sequence[int], trainer: Trainer) -> None:
        """Train the experts that these shadows lack."""
        todo = [
            (k, expert)
            for k in missing
            for expert in range(self.experts.count)
            if not _has_key(self._expert(k, expert), self.key)
        ]
        if not todo:
            return
        seed = self.config.seed
        generators = [seeds.generator(seed, "audit", "shadows", "expert", *place) for place in todo]
        films = min(len(part) for part in self.parts)
        compiled = _compiled(
            self.private,
            Flat(self.architecture),
            self.experts.epochs * films * self.count * self.experts.count,
            SLOPE_COST,
        )
        for number, rows in trainer(
            self.pool.pixels,
            self.pool.labels,
            [self.parts[k] for k, _ in todo],
            self.architecture,
            self.experts,
            generators,
            films,
            compiled,
            lambda used: self.private.say(f"{len(todo)} experts of shadows, {_about(used)}"),
        ):
            save_trajectory(self._expert(*todo[number]), rows, self.architecture, key=self.key)

    def _distil(self, missing: Sequence[int], starts: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Query these shadows' experts and distil them, side by side; then their parameters may go."""
        epochs = sorted({round(self.experts.rows * (i + 1) / QUERIED) for i in range(QUERIED)} - {0})
        targets = sgd.probabilities(self.pool.labels, len(self.pool.classes), self.pool.pixels)
        work = [self._distillation(k, starts[k], epochs) for k in missing]
        jobs = [lambda stop, w=w: w.run(self.pool.pixels, targets, stop) for w in work]
        for done, (number, shadow) in enumerate(side_by_side(jobs, self._workers(len(jobs))), start=1):
            k = missing[number]
            write_tensors(self.folder / f"shadow_{k:03d}.safetensors", _tensors(shadow), {"key": self.key})
            for expert in range(self.experts.count):
                self._expert(k, expert).unlink()
            self.private.say(f"{done} of {len(missing)} shadows distilled")

    def _distillation(self, k: int, start: tuple[Tensor, Tensor], epochs: Sequence[int]) -> Distillation:
        trajectories = Trajectories.open([self._expert(k, expert) for expert in range(self.experts.count)])
        seed = seeds.derive(self.config.seed, "audit", "shadows", "distillation", k)
        return Distillation(trajectories, *start, self.settings, seed, epochs, self._compiles_distillation())

    def _compiles_distillation(self) -> bool:
        batch = self.settings.batch or self.settings.ipc * len(self.pool.classes)
        seen = self.count * self.settings.iterations * self.settings.segments * self.settings.inner_steps * batch
        return _compiled(self.private, Flat(self.architecture), seen, SLOPE_COST + ADJOINT_COST)

    def _workers(self, jobs: int) -> int:
        """Threads to work in: a GPU has one queue."""
        return min(torch.get_num_threads(), jobs) if self.private.device.type == "cpu" else 1

    def _announce(self, missing: Sequence[int], start: tuple[Tensor, Tensor]) -> None:
        """Say what distillations and students will take, from a few steps in one thread."""
        threads, workers = torch.get_num_threads(), self._workers(len(missing))
        net = Flat(self.architecture).to(self.private.device, start[0].dtype)
        state = State.begin(*start, net.size, self.settings, self._compiles_distillation())
        batch = min(self.settings.batch or len(start[0]), len(start[0]))
        torch.set_num_threads(max(1, threads // workers))
        try:
            segment = rehearse(Kernels(net, self.private.device, batch, bool(state.compiled)), state, self.settings)
        finally:
            torch.set_num_threads(threads)
        rounds = len(missing) / workers
        distilling = rounds * segment.seconds * self.settings.iterations * self.settings.segments
        step = segment.seconds / self.settings.inner_steps * SLOPE_COST / (SLOPE_COST + ADJOINT_COST)
        learning = rounds * 2 * self.config.audit.shadows.students * self.config.evaluate.steps * step
        plan = f"{len(missing)} shadow distillations, {_about(Used(distilling))}"
        self.private.say(f"{plan}; students on them and on planted films, {_about(Used(learning))}")

    def _students(self, name: str, images: Tensor, targets: Tensor, lr: float, place: tuple[str | int, ...]) -> Tensor:
        """Answers (S, N, C) of the students on one set."""
        found = self._read(name)
        if found is None:
            of = 2 * self.count * self.config.audit.shadows.students
            found = {"answers": students_on(self.private, self.pool, images, targets, lr, place, of)}
            write_tensors(self.folder / f"{name}.safetensors", found, {"key": self.key})
        return found["answers"]

    def _expert(self, k: int, expert: int) -> Path:
        return self.folder / f"expert_{k:03d}_{expert}.safetensors"

    def _read(self, name: str) -> dict[str, Tensor] | None:
        """Tensors that were kept under this name by an audit of the same settings and films."""
        path = self.folder / f"{name}.safetensors"
        return load_file(path) if _has_key(path, self.key) else None

    def _found(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")


def _settings(private: Private) -> tuple[Experts, Distill]:
    """The run's settings with the shadows' budget."""
    config, budget = private.config, private.config.audit.shadows
    epochs = max(budget.epochs or config.experts.epochs, config.distill.expert_epochs)
    experts = replace(config.experts, count=budget.experts, epochs=epochs)
    iterations = budget.iterations or config.distill.iterations
    first = min(config.distill.max_start_epoch, experts.rows - config.distill.expert_epochs + 1)
    return experts, replace(config.distill, iterations=iterations, max_start_epoch=first)


def _tensors(shadow: Shadow) -> dict[str, Tensor]:
    return {field.name: getattr(shadow, field.name) for field in fields(shadow)}


def _has_key(path: Path, key: str) -> bool:
    return path.exists() and read_metadata(path).get("key") == key


def _about(used: Used) -> str:
    """A duration in words."""
    return f"about {max(1, round(used.seconds / 60))} min"
