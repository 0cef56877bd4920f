"""What a report is made of: the JSON files it quotes and the pictures it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ARMS = ("distilled", "random real", "k-means", "herding", "full data")


@dataclass(frozen=True)
class Content:
    """Everything on the page.

    Attributes:
        name: of the data set.
        unit: what one image of the source is called, in the plural: films, or images for a benchmark.
        evaluation: evaluation.json.
        audit: audit.json.
        history: history.json of the distillation, a list each iteration's values.
        record: what neither holds: seeds, digests, versions, settings of the method. Its keys are shown as words.
        questions: number of each check of the audit -> its question in plain words.
        answers: verdict -> how it is said.
        shows_patients: the synthetic images themselves show patients, so they are not in the report.
        gallery: class -> PNG of each image that is shown; empty where they show patients.
        figures: name -> PNG: curves, weights, roc, calibration, decision_curve, forest; what is missing is left out.
        check_figures: number of a check -> its PNGs; none that shows patients.
        commands: what makes the run again.
        config: its settings as YAML, without paths.
        private: made in DP mode, so that what is measured on patients is outside epsilon.
        citation: of the data.
        licence: of the data.
        few: classes of few test patients, with those that would give them away; no test film of theirs is counted.
    """

    name: str
    unit: str
    evaluation: Mapping[str, Any]
    audit: Mapping[str, Any]
    history: Mapping[str, Sequence[float | None]]
    record: Mapping[str, Any]
    questions: Mapping[int, str]
    answers: Mapping[str, str]
    shows_patients: bool
    gallery: Mapping[str, Sequence[bytes]]
    figures: Mapping[str, bytes]
    commands: Sequence[str]
    config: str
    private: bool = False
    citation: str = ""
    licence: str = ""
    few: Sequence[str] = ()
    check_figures: Mapping[int, Sequence[bytes]] = field(default_factory=dict)

    @property
    def arms(self) -> dict[str, Any]:
        """The arms of the evaluation in the order in which they are told; JSON keeps none."""
        arms = self.evaluation["arms"]
        return {name: arms[name] for name in [*ARMS, *arms] if name in arms}

    @property
    def sources(self) -> dict[str, Any]:
        """The values that a number on the page may come from, by the first word of its path."""
        return {"evaluation": self.evaluation, "audit": self.audit, "history": self.history, "record": self.record}
