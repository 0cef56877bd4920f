"""The distillation methods by the name that `distill.method` gives them; a new one is a file here and a line below."""

from collections.abc import Callable
from dataclasses import dataclass

from medistill.config import Distill
from medistill.distill.course import Course, Given
from medistill.distill.dc import dc, dsa
from medistill.distill.dm import dm
from medistill.distill.dwa import dwa
from medistill.distill.matching import iadd, mtt
from medistill.distill.mgdd import digests, mgdd
from medistill.distill.seqmatch import seqmatch


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
        digests: of the files that its settings name, which decide the result as the settings do.
    """

    title: str
    begin: Callable[[Given, Distill], Course]
    reads: str
    experts: bool = False
    films: bool = False
    shares: bool = False
    digests: Callable[[Distill], dict[str, str]] = lambda settings: {}


_TRAJECTORIES = "parameters of networks trained on the films"

METHODS = {
    "iadd": Method("IADD", iadd, _TRAJECTORIES, experts=True, shares=True),
    "mtt": Method("MTT", mtt, _TRAJECTORIES, experts=True, shares=True),
    "seqmatch": Method(
        "SeqMatch", seqmatch, f"{_TRAJECTORIES}; those of later subsets it trains itself", experts=True, films=True
    ),
    "dm": Method("DM", dm, "mean features of the training films, in every iteration", films=True),
    "dc": Method("DC", dc, "gradients of networks on the training films, in every iteration", films=True),
    "dsa": Method("DSA", dsa, "gradients of networks on the training films, in every iteration", films=True),
    "dwa": Method(
        "DWA", dwa, "the training films, which teach the network that images and labels are drawn from", films=True
    ),
    "mgdd": Method(
        "MGDD",
        mgdd,
        "the training films, in every iteration; its generator is made of them",
        films=True,
        digests=digests,
    ),
}
