"""Shadow distillations: the run again, many times, each with another half of the patients.

What a shadow's students and experts answer to films of patients they have and have not seen is what membership
inference is calibrated on (checks 5 and 6), and what it is tried on. Everything here is made from real patients and
stays in the house. It is kept shadow by shadow, so that a killed audit goes on where it was.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from medistill import seeds, sgd
from medistill.audit.check import Private
from medistill.audit.shadow_noise import noisy_trainer
from medistill.audit.shadow_pool import Pool
from medistill.audit.shadow_training import (
    Shadow,
    Trainer,
    architecture_of,
    query_and_distil,
    recipe_of,
    side_by_side,
    students_on,
    train_on_parts,
)
from medistill.config import Distill, Experts
from medistill.distill.course import Course, Films, Given
from medistill.distill.methods import METHODS
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.files import digest_of, read_metadata, write_tensors
from medistill.kernels import ADJOINT_COST, SLOPE_COST, earns_compiling
from medistill.nets import Flat
from medistill.resources import Used

LENIENT = 10
"""Times the run's distill.loss_limit: a shadow, of half the patients, may start farther off than the run did."""
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
    noisy: bool


def run_shadows(private: Private, ledger: Mapping[str, Any] | None = None) -> Shadows:
    """Make all shadows, or what is missing of them in `private.folder`.

    Args:
        private: films and settings; without a folder nothing is kept.
        ledger: the privacy ledger of a run in DP mode, whose noise the shadows' experts get too.
    """
    with _kept(private) as folder:
        return _Run(private, folder, ledger).all()


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

    def __init__(self, private: Private, folder: Path, ledger: Mapping[str, Any] | None):
        self.private, self.folder, self.config = private, folder, private.config
        self.pool = Pool.of(private)
        self.count = self.config.audit.shadows.count
        self.inside = self.pool.halves(self.count // 2, self.config.seed)
        self.architecture = architecture_of(self.pool, private)
        self.net = Flat(self.architecture).to(private.device, self.pool.pixels.dtype)
        self.experts, self.settings = _settings(private)
        self.parts = [torch.nonzero(row[self.pool.patient]).flatten() for row in self.inside]
        self.trainer: Trainer = train_on_parts if ledger is None else noisy_trainer(ledger, self.pool.patient)
        self.noisy = ledger is not None
        decides = {
            "settings": [asdict(part) for part in (self.experts, self.settings, self.config.net, self.config.evaluate)],
            "shadows": asdict(self.config.audit.shadows),
            "seed": self.config.seed,
            "films": [private.train.digest, private.holdout.digest],
            "noise": ledger and [ledger["terms"], ledger["noise"]],
        }
        self.key = digest_of(decides)

    def all(self) -> Shadows:
        """Do what is missing and gather everything."""
        if missing := [k for k in range(self.count) if self._read(f"shadow_{k:03d}") is None]:
            starts = {k: self.pool.start(self.parts[k], self.private, self.settings, k) for k in missing}
            self._train(missing)
            self._announce(missing, starts[missing[0]])
            self._distil(missing, starts)
        shadows = [Shadow(**self._found(f"shadow_{k:03d}")) for k in range(self.count)]
        students, planted = [], []
        chosen, lr = torch.zeros_like(self.inside), self.config.evaluate.lr
        for k, shadow in enumerate(shadows):
            films = self.pool.planted(self.parts[k], self.settings.ipc, self.config.seed, k)
            chosen[k, self.pool.patient[films]] = True
            own = (shadow.images, shadow.labels, shadow.lr.item())
            real = (self.pool.pixels[films.to(self.pool.pixels.device)], self.pool.labels[films], lr)
            order = [(int(n), rate) for n, rate in shadow.sequence.tolist()]
            students.append(self._students(f"students_{k:03d}", *own, ("shadow", k), order))
            planted.append(self._students(f"planted_{k:03d}", *real, ("planted", k), []))
        return Shadows(
            pool=self.pool,
            inside=self.inside,
            students=torch.stack(students),
            planted=chosen,
            planted_students=torch.stack(planted),
            experts=torch.stack([shadow.answers for shadow in shadows]),
            slopes=torch.stack([shadow.slopes for shadow in shadows]),
            noisy=self.noisy,
        )

    def _train(self, missing: Sequence[int]) -> None:
        """Train the experts that these shadows lack."""
        todo = [
            (k, expert)
            for k in missing
            for expert in range(self.experts.count)
            if not _has_key(self._expert(k, expert), self.key)
        ]
        if not todo:
            return
        generators = [seeds.generator(self.config.seed, "audit", "shadows", "expert", *place) for place in todo]
        films = min(len(part) for part in self.parts)
        seen = self.experts.epochs * films * self.count * self.experts.count
        for number, rows in self.trainer(
            self.pool.pixels,
            self.pool.labels,
            [self.parts[k] for k, _ in todo],
            self.architecture,
            self.experts,
            generators,
            films,
            self._compiles(seen, SLOPE_COST),
            lambda used: self.private.say(f"{len(todo)} experts of shadows, {_about(used)}"),
        ):
            save_trajectory(self._expert(*todo[number]), rows, self.architecture, key=self.key)

    def _distil(self, missing: Sequence[int], starts: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Query these shadows' experts and distil them, side by side; then their parameters may go."""
        epochs = sorted({round(self.experts.rows * (i + 1) / QUERIED) for i in range(QUERIED)} - {0})
        targets = sgd.probabilities(self.pool.labels, len(self.pool.classes), self.pool.pixels)
        jobs = [
            partial(
                query_and_distil,
                copy.deepcopy(self.net),
                self._trajectories(k),
                partial(self._course, k, starts[k]),
                epochs,
                self.pool.pixels,
                targets,
            )
            for k in missing
        ]
        for done, (number, shadow) in enumerate(side_by_side(jobs, self._workers(len(jobs))), start=1):
            k = missing[number]
            write_tensors(self.folder / f"shadow_{k:03d}.safetensors", _tensors(shadow), {"key": self.key})
            for expert in range(self.experts.count):
                self._expert(k, expert).unlink()
            self.private.say(f"{done} of {len(missing)} shadows distilled")

    def _trajectories(self, k: int) -> Trajectories:
        return Trajectories.open([self._expert(k, expert) for expert in range(self.experts.count)])

    def _course(self, k: int, start: tuple[Tensor, Tensor]) -> Course:
        """The distillation of a shadow by the run's method, before its first iteration."""
        method, part = METHODS[self.settings.method], self.parts[k].to(self.pool.pixels.device)
        films = Films(self.pool.pixels[part], self.pool.labels.to(part.device)[part]) if method.films else None
        given = Given(
            *start,
            self.architecture,
            seeds.derive(self.config.seed, "audit", "shadows", "distillation", k),
            self._trajectories(k) if method.experts else None,
            films,
            # the compiling is shared by all
            compiles=lambda earned: self._compiles_distillation(),
        )
        return method.begin(given, replace(self.settings, loss_limit=LENIENT * self.settings.loss_limit))

    def _compiles_distillation(self) -> bool:
        """Whether to compile what all shadow distillations run."""
        images = self.settings.ipc * len(self.pool.classes)
        batch = min(self.settings.batch or images, images)
        seen = self.count * self.settings.iterations * self.settings.segments * self.settings.inner_steps * batch
        return self._compiles(seen, SLOPE_COST + ADJOINT_COST)

    def _compiles(self, images: float, cost: int) -> bool:
        """Whether to compile, as configured or where work on so many images earns it; on a GPU only as configured."""
        if self.config.compile != "auto":
            return self.config.compile == "always"
        return self.private.device.type == "cpu" and earns_compiling(self.net, images, cost)

    def _workers(self, jobs: int) -> int:
        """Threads to work in: a GPU has one queue."""
        return min(torch.get_num_threads(), jobs) if self.private.device.type == "cpu" else 1

    def _announce(self, missing: Sequence[int], start: tuple[Tensor, Tensor]) -> None:
        """Say what these distillations will take, from a few steps in one thread, where the method can tell."""
        threads, workers = torch.get_num_threads(), self._workers(len(missing))
        torch.set_num_threads(max(1, threads // workers))
        try:
            each = self._course(missing[0], start).rehearse()
        finally:
            torch.set_num_threads(threads)
        about = f", {_about(Used(len(missing) / workers * each.seconds))}" if each else ""
        self.private.say(f"{len(missing)} shadow distillations{about}")

    def _students(
        self,
        name: str,
        images: Tensor,
        targets: Tensor,
        lr: float,
        place: tuple[str | int, ...],
        sequence: Sequence[tuple[int, float]],
    ) -> Tensor:
        """Answers (S, N, C) of the students on one set."""
        found = self._read(name)
        if found is None:
            recipe, students = recipe_of(self.private), 2 * self.count * self.config.audit.shadows.students
            compiled = self._compiles(recipe.steps * min(recipe.batch, len(images)) * students, SLOPE_COST)
            answers = students_on(self.private, self.pool, images, targets, lr, place, compiled, sequence)
            found = {"answers": answers}
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
