"""The one form in which every audit check reports: a verdict, the numbers behind it, and its controls."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

Verdict = Literal["pass", "fail", "inconclusive", "not applicable"]


@dataclass(frozen=True)
class Check:
    """The outcome of one check. Nothing in it points at a patient: no index, path or pixel.

    Attributes:
        name: the check's name as the reports print it.
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

    def to_json(self) -> dict[str, Any]:
        """The check as a dict that `medistill.files.write_json` accepts."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "statistic": self.statistic,
            "interval": None if self.interval is None else list(self.interval),
            "power": self.power,
            "positive_control": self.positive_control,
            "negative_control": self.negative_control,
            "explanation": self.explanation,
        }
