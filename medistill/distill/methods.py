"""The distillation methods by the name that `distill.method` gives them; a new one is a file here and a line below."""

from collections.abc import Callable
from dataclasses import dataclass

from medistill.config import Distill
from medistill.distill.course import Course, Given
from medistill.distill.matching import iadd, mtt


@dataclass(frozen=True)
class Method:
    """How a method is begun, and what it needs.

    Attributes:
        title: its name in papers.
        begin: a course before its first iteration.
        reads: what it takes from the patients' films, as the set's record tells.
        experts: whether it needs the experts' trajectories.
        films: whether it needs the training films themselves.
        shares: whether several processes can share an iteration; the first works alone otherwise.
    """

    title: str
    begin: Callable[[Given, Distill], Course]
    reads: str
    experts: bool = False
    films: bool = False
    shares: bool = False


_TRAJECTORIES = "parameters of networks trained on the films"

METHODS = {
    "iadd": Method("IADD", iadd, _TRAJECTORIES, experts=True, shares=True),
    "mtt": Method("MTT", mtt, _TRAJECTORIES, experts=True, shares=True),
}
