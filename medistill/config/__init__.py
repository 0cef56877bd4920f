"""The settings of every stage: one frozen dataclass each, units in the field docs.

The command line's help is made from these docs; nothing here imports torch, so that help is quick.
"""

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from medistill.config.audit import Audit
from medistill.config.data import Data, Phantom
from medistill.config.distill import LOOKS_AT_FILMS, TRAJECTORY, Distill
from medistill.config.evaluate import Evaluate
from medistill.config.experts import Experts, Private
from medistill.config.net import DEPTH, PUBLISHED_WIDTH, Net, misfit, parse_network
from medistill.config.release import Release
from medistill.config.rules import require, require_plain

__all__ = [
    "Audit",
    "Config",
    "Data",
    "Distill",
    "Evaluate",
    "Experts",
    "Net",
    "Phantom",
    "Private",
    "Release",
    "require",
]


@dataclass(frozen=True)
class Config:
    """One run.

    Attributes:
        run: folder of the run; every stage writes into it.
        seed: the base seed from which every random number descends.
        device: `auto` takes a GPU when there is one; of several processes each takes its own.
        threads: CPU threads of each process; 0: as torch decides, or an equal share of the machine's cores for
            each of several processes.
        compile: torch.compile for the kernels of experts, distillation and evaluation: `auto` where the work is long
            enough to earn the compiling back (it needs a C++ compiler; results differ in rounding), `always`, `never`.
        track: log to MLflow (SQLite here, or the server that MLFLOW_TRACKING_URI names).
        data: LOAD.
        net: the network.
        experts: EXPERTS.
        distill: DISTILL.
        evaluate: EVALUATE.
        audit: AUDIT.
        release: RELEASE.
    """

    run: str = "runs/phantom"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    compile: Literal["auto", "always", "never"] = "auto"
    track: bool = True
    data: Data = field(default_factory=Data)
    net: Net = field(default_factory=Net)
    experts: Experts = field(default_factory=Experts)
    distill: Distill = field(default_factory=Distill)
    evaluate: Evaluate = field(default_factory=Evaluate)
    audit: Audit = field(default_factory=Audit)
    release: Release = field(default_factory=Release)

    def __post_init__(self) -> None:
        self._require_epochs()
        self._require_public()
        wrong = misfit(self.net.name, self.data.size, self.net.width, self.net.depth)
        require(wrong is None, str(wrong))
        for text in self.evaluate.architectures:
            name, width = parse_network("evaluate.architectures", text)
            wrong = misfit(name, self.data.size, width or self._width(name), DEPTH) if name != "convnet" else None
            require(wrong is None, f"evaluate.architectures: {text!r}: {wrong}")
        most = 4 * (os.cpu_count() or 1)
        require(0 <= self.threads <= most, f"threads is {self.threads}; give 0 to {most} on this machine")
        require(bool(self.run), "run is empty; name the folder of the run")
        require_plain(asdict(self))

    def _require_epochs(self) -> None:
        """The trajectories must reach as far as the epochs that are matched."""
        if self.distill.method not in TRAJECTORY:
            return
        if self.distill.method == "seqmatch" and self.distill.seqmatch.starts:
            return  # which take the place of these; the method checks them before its first iteration
        last = self.distill.max_start_epoch - 1 + self.distill.expert_epochs
        rows = "experts.private.rows" if self.experts.private.on else "experts.epochs"
        require(
            last <= self.experts.rows,
            f"distill.max_start_epoch {self.distill.max_start_epoch} with distill.expert_epochs "
            f"{self.distill.expert_epochs} reaches epoch {last}, beyond the trajectory's last, {rows} "
            f"{self.experts.rows}; lower one of the first two or train the experts for longer",
        )
        earliest = self.distill.difficulty.min_start_epoch
        require(
            earliest < self.distill.max_start_epoch,
            f"distill.difficulty.min_start_epoch is {earliest}, not below distill.max_start_epoch "
            f"{self.distill.max_start_epoch}; lower the first or raise the second",
        )

    def _width(self, name: str) -> int:
        """Of a network that is named without one."""
        return self.net.width if name == self.net.name else PUBLISHED_WIDTH[name]

    def _require_public(self) -> None:
        """In DP mode nothing but the noisy steps may carry a patient into the distilled set."""
        private, start = self.experts.private, self.distill.start
        require(
            start != "private_means" or (private.on and private.means > 0),
            "distill.start is private_means, but nothing pays for them; give experts.private.means a share of "
            "the budget and experts.private.epsilon that budget, or choose another start",
        )
        require(
            self.distill.importance != "wiener" or (private.on and self.distill.method == "iadd"),
            "distill.importance is wiener, which belongs to distill.method iadd on private experts, whose noise is "
            "known; choose descend, or give experts.private.epsilon",
        )
        if not private.on:
            return
        why = f"experts.private.epsilon {private.epsilon:g} covers"
        require(
            self.distill.method not in LOOKS_AT_FILMS,
            f"distill.method is {self.distill.method}, but it reads the patients' films themselves, more than {why}; "
            "choose iadd or mtt",
        )
        require(
            not self.data.zca,
            f"data.zca is true, but whitening is a statistic of the patients' films, more than {why}; set it to false",
        )
        require(
            start not in ("real", "class_mean"),
            f"distill.start is {start}, but such images are made of patients' films, more than {why}; choose noise or "
            "phantom",
        )
        require(
            bool(self.data.classes),
            f"data.classes is empty, but reading the names off the patients' films is more than {why}; name them",
        )
        classes, weights = len(self.data.classes), len(private.class_weights)
        require(
            weights in (0, classes),
            f"experts.private.class_weights holds {weights} numbers for {classes} classes; give one each, or none",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts and lists, as they stand in a YAML file."""
        return asdict(self)
