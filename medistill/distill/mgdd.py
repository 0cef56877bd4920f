"""MGDD: a generator makes the synthetic images, least squares their labels; a few steps adapt it to the films.

Liu and Wang, "MGDD: A Meta Generator for Fast Dataset Distillation", NeurIPS 2023. No code is public and only the
summary was read, so the network, the regression and the tasks are this project's choices.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from medistill import augment, seeds
from medistill.config import Distill
from medistill.distill import generator as network
from medistill.distill import initial
from medistill.distill.course import Course, Given, Made, empty_history, require_finite
from medistill.distill.ridge import centred, feature_map, probabilities, solve
from medistill.errors import UserError
from medistill.files import sha256

META, ADAPT, LABELS = 0.0, 1.0, 2.0
"""The column `phase`."""

FEW = 4
"""From so many classes on a task is of half of them, drawn anew; of fewer there are too few subsets."""

FILMS, TIMES, PIECE = 1024, 4, 512
"""Films on which a random network solves the labels of a set, or that many times the images if these are more; and
those whose features are computed at once."""


@dataclass(frozen=True)
class Task:
    """What a few steps of the generator are about.

    Attributes:
        pools: for each of its classes the films (n,) int64 they may draw.
        names: the number of each of these classes among all.
        seen: how the task shows images (B, C, H, W).
    """

    pools: list[Tensor]
    names: list[int]
    seen: Callable[[Tensor], Tensor]


class Mgdd(Course):
    """Reptile on tasks of the films, adaptation to all of them, labels.

    A task of Reptile (Nichol et al., arXiv 1803.02999) is a random half of each class's films, all shown through one
    operation of distill.augment with the same numbers; of FEW classes and more, of half of the classes. Class subsets
    alone would be no variety for the two to four classes of chest films. The order of a task's classes is random, so
    that what a code means is left to the adaptation.

    What leaks: the pixels are gradients of errors on patients' films, as in DM; a real start is moreover added to what
    the generator makes, and can be seen in it. The generator's own file was made of the same films: it stays in the
    house unless the films may be shared.

    Args:
        given: with films.
        settings: of the distillation.

    Raises:
        UserError: sizes that do not go together, a class without films, or a generator's file that does not fit.
    """

    columns = ("loss", "phase")

    def __init__(self, given: Given, settings: Distill):
        self.given, self.settings, own = given, settings, settings.mgdd
        films, classes = given.real(), given.labels.shape[1]
        self.own, self.classes = own, classes
        self.total = own.meta + own.adapt + 1
        self.history = empty_history(self.columns)
        self.pools = [torch.nonzero(films.labels.cpu() == k).flatten() for k in range(classes)]
        self._check()
        made = network.fresh(given.start.shape[1], own.width, seeds.generator(given.seed, "mgdd generator"))
        if own.generator:
            network.load(Path(own.generator), made)
        self.generator = made.to(given.start.device)
        self.adam = self._optimiser()
        self.labels = torch.zeros_like(given.labels)
        self.features = replace(given.architecture, width=own.features or given.architecture.width)

    def _check(self) -> None:
        settings, films, start = self.settings, len(self.given.real().labels), len(self.given.start)
        for k, pool in enumerate(self.pools):
            if not len(pool):
                raise UserError(f"distill: class number {k} has no training film; leave it out of data.classes")
        most = max(self.own.ipcs or [settings.ipc]) * self.classes
        if self.own.adapt + self.own.meta and self.own.batch <= most:
            raise UserError(
                f"distill.mgdd.batch is {self.own.batch}, but a step makes {most} images, whose labels could answer so "
                "few films without an error; give more, or smaller distill.mgdd.ipcs"
            )
        if start >= films:
            raise UserError(
                f"distill.ipc is {settings.ipc}: {start} images, whose labels are solved on {films} films; lower it"
            )
        if settings.start == "class_mean" and settings.ipc > 1:
            raise UserError(
                "distill.start is class_mean, which gives one start image a class, and distill.mgdd makes the same "
                f"image of each of {settings.ipc}; choose noise, phantom or real"
            )

    def run(self) -> Iterator[None]:
        """Steps of Reptile, then of the adaptation; the last iteration solves the labels."""
        while self.iteration < self.total:
            number, own = self.iteration, self.own
            random = seeds.generator(self.given.seed, "mgdd", number)
            if number < own.meta:
                loss, phase = self._reptile(random), META
            elif number < own.meta + own.adapt:
                loss, phase = self._step(self._everything(), self.adam, random), ADAPT
            else:
                _, self.labels, loss = self.generate(self.given.start, self.given.labels.argmax(1))
                phase = LABELS
            require_finite(loss, f"the loss of iteration {number + 1}", "lower distill.mgdd.lr")
            self.record(loss, phase)
            yield

    @torch.no_grad()
    def generate(self, start: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, float]:
        """A distilled set of any size in one pass.

        Args:
            start: (M, C, H, W) start images, as many as are wanted.
            classes: (M,) int64 their classes.

        Returns:
            Images (M, C, H, W), labels (M, K) averaged over `maps` random networks, as probabilities, and the mean
            error of the regressions a film.
        """
        films = self.given.real()
        images = self.generator(start, classes)
        solved = []
        for number in range(self.own.maps):
            random = seeds.generator(self.given.seed, "mgdd labels", number)
            count = min(max(FILMS, TIMES * len(images)), len(films.labels))
            index = self._balanced(self.pools, count, random)
            seen = feature_map(self.features, random, start.device)
            real = torch.cat([seen(films.images[part]) for part in index.to(start.device).split(PIECE)])  # (B, F)
            targets = centred(films.labels[index.to(start.device)], self.classes)
            solved.append(solve(seen(images), real, targets, self.own.ridge))
        labels = torch.stack([labels for labels, _ in solved]).mean(0)
        error = float(torch.stack([error for _, error in solved]).mean())
        return images, probabilities(labels).to(images.dtype), error

    def _reptile(self, random: torch.Generator) -> float:
        """Go a share of the way to the generator that a few steps on a task end with; the mean of their losses."""
        before = [parameter.detach().clone() for parameter in self.generator.parameters()]
        task, adam = self._task(random), self._optimiser()
        losses = [self._step(task, adam, random) for _ in range(self.own.inner)]
        with torch.no_grad():
            for parameter, old in zip(self.generator.parameters(), before, strict=True):
                parameter.copy_(old + self.own.meta_lr * (parameter - old))
        return sum(losses) / len(losses)

    def _step(self, task: Task, adam: torch.optim.Adam, random: torch.Generator) -> float:
        """One step on the error of ridge regression with the best labels, on a batch of films of a task."""
        device, ipcs = self.given.start.device, self.own.ipcs or [self.settings.ipc]
        ipc = ipcs[int(torch.randint(len(ipcs), (), generator=random))]
        start, classes = self._starts(task, ipc, random)
        index = self._balanced(task.pools, self.own.batch, random)
        places = torch.arange(len(task.pools)).repeat_interleave(len(index) // len(task.pools))
        films = task.seen(self.given.real().images[index.to(device)])  # (B, C, H, W)
        seen = feature_map(self.features, random, device)
        made = self.generator(start, classes.to(device))  # (M, C, H, W)
        targets = centred(places, len(task.pools)).to(device)
        _, loss = solve(seen(made), seen(films), targets, self.own.ridge)
        adam.zero_grad()
        loss.backward()
        # two start images that are nearly the same make a gradient from which Adam's second moment would not recover
        torch.nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        adam.step()
        return float(loss.detach())

    def _starts(self, task: Task, ipc: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Start images (M, C, H, W) of the kind of distill.start and classes (M,), up to `ipc` of each class."""
        settings, given, parts = self.settings, self.given, []
        for name, pool in zip(task.names, task.pools, strict=True):
            if settings.start == "noise":
                shape = (ipc, *given.start.shape[1:])
                images = initial.noise(shape, settings.start_scale, settings.start_smooth, random).to(given.start)
            else:
                source = given.real().images if settings.start == "real" else given.start
                every = pool if settings.start == "real" else torch.nonzero(given.labels.argmax(1).cpu() == name)[:, 0]
                chosen = every[torch.randperm(len(every), generator=random)[:ipc]]
                images = task.seen(source[chosen.to(source.device)])
            parts.append(images)
        return torch.cat(parts), torch.arange(len(parts)).repeat_interleave(torch.tensor([len(p) for p in parts]))

    def _balanced(self, pools: list[Tensor], count: int, random: torch.Generator) -> Tensor:
        """(B,) films, equally many of each pool, the pools one after another; drawn with replacement."""
        each = count // len(pools)
        return torch.cat([pool[torch.randint(len(pool), (each,), generator=random)] for pool in pools])

    def _everything(self) -> Task:
        """All films of all classes, as they are."""
        return Task(self.pools, list(range(self.classes)), lambda images: images)

    def _task(self, random: torch.Generator) -> Task:
        """A task of Reptile."""
        count = self.classes // 2 if self.classes >= FEW else self.classes
        names = torch.randperm(self.classes, generator=random)[:count].tolist()
        halves = [
            self.pools[k][torch.randperm(len(self.pools[k]), generator=random)[: (len(self.pools[k]) + 1) // 2]]
            for k in names
        ]
        drawn = augment.draw(self.settings.augment, 1, random)

        def seen(images: Tensor) -> Tensor:
            return augment.apply(images, replace(drawn, numbers=drawn.numbers.expand(len(images), -1)))

        return Task(halves, names, seen)

    def _optimiser(self) -> torch.optim.Adam:
        """Without a past."""
        return torch.optim.Adam(self.generator.parameters(), self.own.lr)

    def state(self) -> dict[str, Tensor]:
        """History, labels, the generator and Adam's moments of the adaptation."""
        parts = {f"generator.{name}": part for name, part in self.generator.state_dict().items()}
        moments = self.adam.state_dict()["state"]
        parts |= {f"adam.{number}.{name}": part for number, kept in moments.items() for name, part in kept.items()}
        return {
            "history": self.history.clone(),
            "labels": self.labels.clone(),
            **{name: part.clone() for name, part in parts.items()},
        }

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from them."""
        self.history, self.labels = state["history"].clone(), state["labels"].to(self.given.start.device)
        self.generator.load_state_dict(
            {name.removeprefix("generator."): part for name, part in state.items() if name.startswith("generator.")}
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for name, part in state.items():
            if name.startswith("adam."):
                _, number, kind = name.split(".")
                moments.setdefault(int(number), {})[kind] = part.clone()
        self.adam = self._optimiser()
        self.adam.load_state_dict({**self.adam.state_dict(), "state": moments})

    @torch.no_grad()
    def made(self) -> Made:
        """The start images, as the generator makes them; and the generator."""
        images = self.generator(self.given.start, self.given.labels.argmax(1))
        own = self.own
        return Made(
            images,
            self.labels,
            own.lr_student,
            provenance={
                "meta": own.meta,
                "adapt": own.adapt,
                "ipcs": own.ipcs or [self.settings.ipc],
                **digests(self.settings),
                "ridge_error": self.history[-1, 0].item(),
            },
            also={name: part.clone() for name, part in self.generator.state_dict().items()},
        )


def mgdd(given: Given, settings: Distill) -> Mgdd:
    """MGDD before its first iteration."""
    return Mgdd(given, settings)


def digests(settings: Distill) -> dict[str, str]:
    """The SHA-256 of the generator that is started from, if any.

    Raises:
        UserError: there is no such file.
    """
    if not settings.mgdd.generator:
        return {}
    path = Path(settings.mgdd.generator)
    if not path.is_file():
        raise UserError(
            f"distill.mgdd.generator: {path.name}: no such file; name learned.safetensors of a run, or leave it "
            "empty for a fresh generator"
        )
    return {"generator": sha256(path)}
