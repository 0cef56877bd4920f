"""IADD and MTT as a course of the stage: their algorithm box is in `iadd`."""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from medistill.config import Distill
from medistill.distill.course import Course, Given, Made
from medistill.distill.iadd import distill, kernels_for, rehearse, result
from medistill.distill.state import HISTORY, State
from medistill.kernels import earns_compiling
from medistill.nets import Flat
from medistill.resources import Used


class Stateful(Course):
    """A course whose progress is the `State` of one run of trajectory matching.

    Attributes:
        begun: that state.
    """

    columns = HISTORY
    begun: State

    @property
    def history(self) -> Tensor:  # type: ignore[override]
        """As the state holds it."""
        return self.begun.history

    @property
    def compiled(self) -> bool:
        """As the state remembers it."""
        return bool(self.begun.compiled)

    @compiled.setter
    def compiled(self, value: bool) -> None:
        self.begun.compiled.fill_(value)


class Matching(Stateful):
    """Trajectory matching, with importance weights (IADD) or without (MTT).

    It needs trajectories and start images only, never the films.

    Args:
        given: with trajectories.
        settings: of the distillation.
    """

    def __init__(self, given: Given, settings: Distill):
        self.given, self.settings, self.total = given, settings, settings.iterations
        seen = settings.iterations * settings.segments * settings.inner_steps * (settings.batch or len(given.start))
        compiled = given.compiles(earns_compiling(Flat(given.architecture), seen))
        self.begun = State.begin(given.start, given.labels, given.experts().size, settings, compiled)
        if settings.difficulty.labels == "expert":
            self.begun.logits = given.experts().answers(given.start)
        if given.weight is not None:
            self.begun.weight = given.weight.to(self.begun.weight)

    def run(self) -> Iterator[None]:
        """IADD's iterations."""
        trajectories, given = self.given.experts(), self.given
        kernels = kernels_for(trajectories, self.begun, self.settings)
        for _ in distill(kernels, trajectories, self.begun, self.settings, given.seed, given.share):
            yield

    def state(self) -> dict[str, Tensor]:
        """The tensors of the state."""
        return self.begun.tensors()

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from them."""
        self.begun = State.of(state, self.begun.images.device)

    def made(self) -> Made:
        """Images, labels and alpha of the last iteration, fixed beforehand."""
        settings, state = self.settings, self.begun
        images, labels, alpha = result(state, settings)
        told = {"granularity": settings.granularity} if settings.learns_weights else {}
        return Made(
            images,
            labels,
            alpha,
            provenance={
                "importance": settings.importance,
                **told,
                "experts": len(self.given.experts()),
                "weight_share": state.history[-1, HISTORY.index("weight_share")].item(),
            },
            weights=self._layers() if settings.learns_weights else {},
        )

    def rehearse(self) -> Used:
        """One inner step, times all that are left; other processes work at the same time."""
        kernels = kernels_for(self.given.experts(), self.begun, self.settings)
        segment = rehearse(kernels, self.begun, self.settings)
        rounds = -(-self.settings.segments // self.given.share.every) * (self.total - self.iteration)
        return replace(segment, seconds=rounds * segment.seconds)

    def _layers(self) -> dict[str, Tensor]:
        """W (P,) by parameter tensor, without those that cannot matter."""
        net = Flat(self.given.architecture)
        dead = net.unflatten(net.dead())
        parts = net.unflatten(self.begun.weight.cpu())
        return {name: part for name, part in parts.items() if not dead[name].all()}


def iadd(given: Given, settings: Distill) -> Matching:
    """IADD (Li et al., Neural Networks 172, 2024): W is learned as `settings.importance` says."""
    return Matching(given, settings)


def mtt(given: Given, settings: Distill) -> Matching:
    """MTT (Cazenavette et al., CVPR 2022): every weight is 1."""
    return Matching(given, replace(settings, importance="off"))
