"""Settings of DISTILL."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from medistill.config.difficulty import Difficulty
from medistill.config.dwa import Dwa
from medistill.config.mgdd import Mgdd
from medistill.config.rules import check_augment, require
from medistill.config.seqmatch import SeqMatch
from medistill.config.surrogate import Dc, Dm

TRAJECTORY = ("iadd", "mtt", "seqmatch")
"""Methods that match the experts' trajectories: all plain settings here are theirs, other methods use few of them."""

LOOKS_AT_FILMS = ("seqmatch", "dwa", "mgdd", "dm", "dc", "dsa")
"""Methods that read the training films themselves, and so nothing for the DP mode."""

SHARED = ("seed", "ipc", "start", "start_scale", "start_smooth", "augment")
"""Plain settings that every method uses."""

OWN = {"seqmatch": "seqmatch", "dwa": "dwa", "mgdd": "mgdd", "dm": "dm", "dc": "dc", "dsa": "dc"}
"""A method's own settings."""


@dataclass(frozen=True)
class Distill:
    """DISTILL: by default IADD (Li et al. 2024), trajectory matching with importance weights.

    Attributes:
        method: `iadd`, `mtt` (IADD with every weight 1), `seqmatch`, `dwa`, `mgdd`, `dm`, `dc` or `dsa` (dc with
            augmentation); docs/methods.md says when to choose which. Settings from `iterations` on that no other
            method's own settings repeat belong to the trajectory family: iadd, mtt and seqmatch.
        seed: another number gives another distillation from the same films and experts.
        ipc: images per class.
        iterations: distillation iterations; the last one is the result.
        inner_steps: J, steps of the student on the synthetic images.
        expert_epochs: K, epochs of the expert that those steps have to match.
        max_start_epoch: the start is drawn from the expert's epochs 0 to this, exclusive.
        batch: synthetic images an inner step; 0: all.
        start: `noise`, `phantom` (films of the generator, public by construction), `class_mean` or `real`; the last
            two show patients. In DP mode also `private_means`: noisy class means, paid for by experts.private.means.
        start_scale: standard deviation of the noise start, in normalised units.
        start_smooth: Gaussian blur of the noise start, standard deviation in pixels; 0: none.
        lr_images: step size on the pixels.
        lr_decay: `constant`, or `cosine` down to 0 after the last iteration (pixels only).
        momentum: SGD momentum on pixels, step size and labels.
        alpha: start of the inner step size.
        alpha_space: learn it as its logarithm (`log`) or as published (`linear`, kept above 1e-6).
        lr_alpha: step size on it (on log alpha in the log space).
        importance: `descend` (guarded), `literal` (as written, no guard), `ascend` (guarded, towards what is hard to
            match, as self-adaptive networks do: McClenny and Braga-Neto 2023) or `off` (MTT). In DP mode also `wiener`:
            W stays what the known noise of the experts makes it, a layer's signal over signal and noise.
        granularity: a weight of its own for each parameter (`scalar`), for each first index of a tensor, an output
            channel (`channel`), or for each tensor (`tensor`).
        lr_importance: step size on the weights W.
        soft_labels: learn the labels too, as softmax of logits.
        lr_labels: step size on the label logits.
        ema: decay of the moving average of the pixels that becomes the result; 0: the last pixels.
        augment: augmentation of the student; keep it equal to the experts'.
        loss_limit: an iteration whose unweighted loss (mean over its segments) is above this is skipped and counted.
        segments: segments of trajectories matched in each iteration, their gradients averaged; several processes
            share them, so give a multiple of their number.
        difficulty: difficulty-aligned matching (DATM), off by default.
        seqmatch: of `seqmatch`.
        dwa: of `dwa`.
        mgdd: of `mgdd`.
        dm: of `dm`.
        dc: of `dc` and `dsa`.
        checkpoint_minutes: minutes between checkpoints, which is what a kill can cost; 0: one after every iteration.
    """

    method: Literal["iadd", "mtt", "seqmatch", "dwa", "mgdd", "dm", "dc", "dsa"] = "iadd"
    seed: int = 0
    ipc: int = 1
    iterations: int = 300
    inner_steps: int = 20
    expert_epochs: int = 2
    max_start_epoch: int = 15
    batch: int = 0
    start: Literal["noise", "phantom", "class_mean", "real", "private_means"] = "noise"
    start_scale: float = 1.0
    start_smooth: float = 0.0
    lr_images: float = 100.0
    lr_decay: Literal["constant", "cosine"] = "constant"
    momentum: float = 0.5
    alpha: float = 0.01
    alpha_space: Literal["log", "linear"] = "log"
    lr_alpha: float = 0.01
    importance: Literal["descend", "literal", "ascend", "off", "wiener"] = "descend"
    granularity: Literal["scalar", "channel", "tensor"] = "scalar"
    lr_importance: float = 10.0
    soft_labels: bool = False
    lr_labels: float = 1.0
    ema: float = 0.0
    augment: list[str] = field(default_factory=lambda: ["color", "crop", "cutout", "scale", "rotate"])
    loss_limit: float = 5.0
    segments: int = 1
    difficulty: Difficulty = field(default_factory=Difficulty)
    seqmatch: SeqMatch = field(default_factory=SeqMatch)
    dwa: Dwa = field(default_factory=Dwa)
    mgdd: Mgdd = field(default_factory=Mgdd)
    dm: Dm = field(default_factory=Dm)
    dc: Dc = field(default_factory=Dc)
    checkpoint_minutes: float = 5.0

    def decides(self) -> dict[str, Any]:
        """The settings that decide the result: those of other methods do not, nor what is off.

        `mtt` is `iadd` without weights, and shares its folders.
        """
        every = asdict(self)
        nested = {"difficulty", *OWN.values()}
        plain = {name: every[name] for name in every if name not in nested | {"method", "checkpoint_minutes"}}
        if self.method not in TRAJECTORY:
            plain = {name: plain[name] for name in SHARED}
        if self.method == "mtt":
            plain["importance"] = "off"
        if self.method in TRAJECTORY and self.difficulty.on:
            plain["difficulty"] = every["difficulty"]
        if self.method in OWN:
            plain |= {"method": self.method, "own": every[OWN[self.method]]}
        return plain

    @property
    def learns_weights(self) -> bool:
        """Whether W is learned."""
        return self.importance in ("descend", "literal", "ascend")

    def __post_init__(self) -> None:
        for name in (
            "ipc",
            "iterations",
            "inner_steps",
            "expert_epochs",
            "max_start_epoch",
            "segments",
        ):
            require(getattr(self, name) >= 1, f"distill.{name} is {getattr(self, name)}; give at least 1")
        for name in ("lr_images", "alpha", "loss_limit"):
            require(getattr(self, name) > 0, f"distill.{name} is {getattr(self, name)}; give a positive number")
        for name in (
            "batch",
            "start_scale",
            "start_smooth",
            "lr_alpha",
            "lr_importance",
            "lr_labels",
            "checkpoint_minutes",
        ):
            require(getattr(self, name) >= 0, f"distill.{name} is {getattr(self, name)}; give 0 or more")
        for name in ("momentum", "ema"):
            require(0 <= getattr(self, name) < 1, f"distill.{name} is {getattr(self, name)}; give 0 up to below 1")
        check_augment("distill.augment", self.augment)
        self._require_match()

    def _require_match(self) -> None:
        """No setting may be silently without effect, or come to nothing hours later."""
        chosen = self.difficulty
        require(
            not chosen.on or self.method in TRAJECTORY,
            f"distill.difficulty is set, but distill.method {self.method} matches no trajectories; leave it out or "
            f"choose one of {', '.join(TRAJECTORY)}",
        )
        require(
            chosen.labels == "class" or self.soft_labels,
            "distill.difficulty.labels is expert, but labels are not learned; set distill.soft_labels to true",
        )
        require(
            not chosen.correct or self.start == "real",
            f"distill.difficulty.correct is true, but distill.start is {self.start}, which takes no film; set it to "
            "false, or start from real",
        )
        require(
            self.method != "seqmatch" or self.ipc >= self.seqmatch.subsets,
            f"distill.ipc is {self.ipc}, but each of distill.seqmatch.subsets {self.seqmatch.subsets} needs an image "
            "of every class; raise the first or lower the second",
        )
