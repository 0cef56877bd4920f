"""SeqMatch: Sequential Subset Matching (Du et al., NeurIPS 2023): later subsets carry what is learned late.

The images are shared out among subsets S_1 ... S_K, each with images of every class, that are distilled one after
another by trajectory matching. S_1 matches the given experts. For k > 1

    theta_0 <- fresh networks trained on S_1, then S_1 u S_2, ... S_1 u ... u S_{k-1}, each at its own learned alpha
    trajectories <- theta_0 trained on the films (`later_experts`)
    S_k, alpha_k <- trajectory matching on them whose student learns from S_1 u ... u S_k, all but S_k frozen

A student follows the same order with every alpha, so order and step sizes are part of the result. The weights W of
IADD work as configured and begin at 1 again for each subset; the paper's matching is MTT's, `distill.importance` off.

What leaks: the parameters of networks trained on the films, those of the experts and, for each later subset, of
networks that SeqMatch trains itself on all training films. Nothing bounds what these tell of a patient; a real start
also begins at films. The later networks are kept in memory and trained again when a run is resumed.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from medistill import seeds
from medistill.config import Distill
from medistill.distill.course import Given, Made, empty_history
from medistill.distill.iadd import distill, kernels_for, result
from medistill.distill.later_experts import later_experts
from medistill.distill.matching import Stateful
from medistill.distill.state import HISTORY, State
from medistill.errors import UserError
from medistill.experts.trajectory import Trajectories
from medistill.kernels import earns_compiling
from medistill.nets import Flat


class SeqMatching(Stateful):
    """Trajectory matching, subset by subset.

    Args:
        given: with trajectories and films.
        settings: of the distillation; iterations are those of each subset.

    Attributes:
        order: of each subset the start images (n,) it begins from, class after class.
        begun: state of the subset under way, its images behind those of the earlier ones.
        alphas: step sizes of the earlier subsets.

    Raises:
        UserError: when a class has fewer images than there are subsets, or a start is too late for its trajectories.
    """

    def __init__(self, given: Given, settings: Distill):
        own, images = settings.seqmatch, len(given.start)
        self.given, self.settings, self.total = given, settings, own.subsets * settings.iterations
        self.order = subsets(images // given.labels.shape[1], given.labels.shape[1], own.subsets)
        self.count = own.experts or len(given.experts())
        for number in range(own.subsets):
            self._require_epochs(number)
        self.alphas: list[float] = []
        self._earlier = empty_history(HISTORY)
        seen = self.total * settings.segments * settings.inner_steps * (settings.batch or images)
        compiled = given.compiles(earns_compiling(Flat(given.architecture), seen))
        self.begun = self._before(given.start[:0], given.labels[:0], compiled)

    @property
    def history(self) -> Tensor:  # type: ignore[override]
        """Of all subsets, one after another."""
        return torch.cat([self._earlier, self.begun.history])

    def run(self) -> Iterator[None]:
        """The iterations of one subset after another."""
        while self.iteration < self.total:
            if self.begun.iteration == self.settings.iterations:
                self._advance()
            trajectories, settings = self._trajectories(), self._settings()
            kernels = kernels_for(trajectories, self.begun, settings)
            seed, frozen = self._seed(), self._frozen()
            for _ in distill(kernels, trajectories, self.begun, settings, seed, frozen=frozen):
                yield

    def state(self) -> dict[str, Tensor]:
        """The state of the subset under way, and what the earlier ones left."""
        alphas = torch.tensor(self.alphas, dtype=torch.float64)
        return self.begun.tensors() | {"history": self.history, "alphas": alphas}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from it; the networks of a later subset are trained again."""
        tensors = dict(state)
        self.alphas = tensors.pop("alphas").tolist()
        done = len(self.alphas) * self.settings.iterations
        self._earlier, tensors["history"] = tensors["history"].tensor_split([done])
        self.begun = State.of(tensors, self.given.start.device)

    def made(self) -> Made:
        """All images, subset after subset, with every step size."""
        own, settings = self.settings.seqmatch, self.settings
        images, labels, alpha = self._result()
        sizes = torch.tensor([len(part) for part in self.order]).cumsum(0).tolist()
        sequence = tuple(zip(sizes, [*self.alphas, alpha], strict=True))
        return Made(
            images,
            labels,
            alpha,
            sequence if own.subsets > 1 else (),
            provenance={
                "importance": settings.importance,
                "subsets": own.subsets,
                "experts": len(self.given.experts()),
                "later_experts": self.count,
            },
        )

    def _settings(self, number: int | None = None) -> Distill:
        """Of a subset, by default the one under way."""
        number = len(self.alphas) if number is None else number
        own, settings = self.settings.seqmatch, self.settings
        if own.alphas:
            settings = replace(settings, alpha=own.alphas[number])
        if own.starts:
            first, last = own.starts[number]
            fixed = replace(settings.difficulty, min_start_epoch=first, first_max=0, widened_at=0)
            settings = replace(settings, max_start_epoch=last, difficulty=fixed)
        return settings

    def _require_epochs(self, number: int) -> None:
        """The trajectories of a subset must reach as far as the epochs that are matched."""
        settings, own = self._settings(number), self.settings.seqmatch
        last = settings.max_start_epoch - 1 + settings.expert_epochs
        rows = own.epochs if number else self.given.experts().epochs
        if last > rows:
            starts = "distill.seqmatch.starts" if own.starts else "distill.max_start_epoch"
            option = "distill.seqmatch.epochs" if number else "experts.epochs"
            raise UserError(
                f"{starts} {settings.max_start_epoch} with distill.expert_epochs {settings.expert_epochs} reaches "
                f"epoch {last} of subset {number + 1}, beyond the last, {option} {rows}; lower one of the first two or "
                "raise that"
            )

    def _seed(self) -> int:
        """Of the subset under way; the first one's is that of plain matching."""
        number = len(self.alphas)
        return seeds.derive(self.given.seed, "subset", number) if number else self.given.seed

    def _frozen(self) -> int:
        """Images of the earlier subsets."""
        return sum(len(part) for part in self.order[: len(self.alphas)])

    def _trajectories(self) -> Trajectories:
        """What the subset under way has to match."""
        if not self.alphas:
            return self.given.experts()
        own, given, frozen = self.settings.seqmatch, self.given, self._frozen()
        labels = self.begun.logits.softmax(1) if self.settings.soft_labels else self.begun.labels
        sizes = torch.tensor([len(part) for part in self.order[: len(self.alphas)]]).cumsum(0).tolist()
        return later_experts(
            self.begun.images[:frozen],
            labels[:frozen],
            list(zip(sizes, self.alphas, strict=True)),
            given.real(),
            given.experts().architecture,
            own,
            self.settings.augment,
            self.count,
            self._seed(),
            None if self.compiled else False,
        )

    def _result(self) -> tuple[Tensor, Tensor, float]:
        """Images and labels of all subsets so far, and alpha of the last one."""
        images, labels, alpha = result(self.begun, self._settings())
        return torch.cat([self.begun.images[: self._frozen()], images[self._frozen() :]]), labels, alpha

    def _advance(self) -> None:
        """From the last iteration of a subset to the state before the first of the next."""
        images, _, alpha = self._result()
        self._earlier, logits = self.history, self.begun.logits
        self.alphas.append(alpha)
        self.begun = self._before(images, logits, self.compiled)

    def _before(self, images: Tensor, logits: Tensor, compiled: bool) -> State:
        """The state before the first iteration of a subset, given the images and logits of the earlier ones."""
        given, number = self.given, len(self.alphas)
        index = torch.cat(self.order[: number + 1]).to(given.start.device)
        start = torch.cat([images, given.start[self.order[number].to(given.start.device)]])
        state = State.begin(start, given.labels[index], given.experts().size, self._settings(), compiled)
        if self.settings.difficulty.labels == "expert":
            state.logits = given.experts().answers(given.start[index])
        state.logits[: len(images)] = logits
        return state


def subsets(ipc: int, classes: int, count: int) -> list[Tensor]:
    """Images (n,) int64 of each subset, of ipc images class after class; the first subsets get one more a class.

    Raises:
        UserError: when there are fewer images a class than subsets.
    """
    if ipc < count:
        raise UserError(
            f"distill.ipc is {ipc}, but each of distill.seqmatch.subsets {count} needs an image of every class; raise "
            "the first or lower the second"
        )
    parts = torch.arange(ipc * classes).view(classes, ipc).tensor_split(count, 1)
    return [part.reshape(-1) for part in parts]


def seqmatch(given: Given, settings: Distill) -> SeqMatching:
    """SeqMatch (Du et al., NeurIPS 2023)."""
    return SeqMatching(given, settings)
