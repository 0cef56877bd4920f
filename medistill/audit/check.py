"""The one form of every audit check: what goes in, and a verdict with the numbers and controls behind it.

A check is a function `check(candidate, private) -> Outcome`, one file each.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from medistill.config import Config
from medistill.data.imageset import ImageSet
from medistill.distill.distilled import Distilled
from medistill.experts.trajectory import Trajectories

Verdict = Literal["pass", "fail", "inconclusive", "not applicable"]


@dataclass(frozen=True)
class Candidate:
    """What is about to be released.

    Attributes:
        distilled: the distilled set.
        ledger: the privacy ledger of a run in DP mode (see `medistill.experts.ledger`), else None.
    """

    distilled: Distilled
    ledger: dict[str, Any] | None = None


@dataclass(frozen=True)
class Private:
    """What stays in the house: the films and the run that made the candidate.

    Attributes:
        train: the films that the experts saw, or the start images came from.
        holdout: films of other patients, which nothing has seen.
        config: all settings of the run; `config.seed` is the base of every random number.
        trajectories: of the experts; None where they are gone.
        start: (M,) int64, the film in `train` that each synthetic image started from; None where it was no film.
        device: where tensors are worked on.
        folder: where a check may keep what it would cost much to make again; it stays in the house.
        say: told in a line what is being done, without a word on a patient.
    """

    train: ImageSet
    holdout: ImageSet
    config: Config
    trajectories: Trajectories | None = None
    start: Tensor | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    folder: Path | None = None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Check:
    """The outcome of one check. Nothing in it points at a patient: no index, path or pixel.

    Attributes:
        number: its row in the table of checks, 0 to 11.
        name: its name as the reports print it.
        verdict: pass, fail, inconclusive or not applicable.
        statistic: what was measured, JSON-able, with finite numbers.
        interval: the 95 % interval of the share or rate the rule judges, or None where there is none.
        power: the share of planted leaks that the check catches, or None where none can be planted.
        positive_control: what was planted and found, or "none: <reason>".
        negative_control: what fired where nothing can leak, or "none: <reason>".
        explanation: the outcome in one sentence.

    Raises:
        ValueError: for a verdict of another name, or a control left out without its reason.
    """

    number: int
    name: str
    verdict: Verdict
    statistic: dict[str, Any]
    interval: tuple[float, float] | None
    power: float | None
    positive_control: dict[str, Any] | str
    negative_control: dict[str, Any] | str
    explanation: str

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"check {self.name!r}: verdict {self.verdict!r} is not one of {get_args(Verdict)}")
        for control in (self.positive_control, self.negative_control):
            if isinstance(control, str) and not control.startswith("none: "):
                raise ValueError(f"check {self.name!r}: a missing control says 'none: <reason>', not {control!r}")

    @classmethod
    def from_json(cls, read: dict[str, Any]) -> "Check":
        """The check that `to_json` wrote."""
        low_high = read["interval"]
        return cls(**(read | {"interval": None if low_high is None else (low_high[0], low_high[1])}))

    def to_json(self) -> dict[str, Any]:
        """The check as a dict that `medistill.files.write_json` accepts."""
        return {
            "number": self.number,
            "name": self.name,
            "verdict": self.verdict,
            "statistic": self.statistic,
            "interval": None if self.interval is None else list(self.interval),
            "power": self.power,
            "positive_control": self.positive_control,
            "negative_control": self.negative_control,
            "explanation": self.explanation,
        }


@dataclass(frozen=True)
class Figure:
    """A picture of a check.

    Attributes:
        name: of its file, without folder: "roc_5.png".
        draw: writes it to a path.
        shows_patients: it shows films, so it stays in the house.
    """

    name: str
    draw: Callable[[Path], None]
    shows_patients: bool = False


@dataclass(frozen=True)
class Outcome:
    """A check and its pictures."""

    check: Check
    figures: tuple[Figure, ...] = ()


def not_applicable(number: int, name: str, reason: str) -> Outcome:
    """The outcome of a check that has nothing to look at; the reason is a sentence without its full stop."""
    absent = f"none: {reason}"
    sentence = f"{reason[0].upper()}{reason[1:]}."
    return Outcome(Check(number, name, "not applicable", {}, None, None, absent, absent, sentence))
