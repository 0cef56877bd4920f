"""Settings of `medistill predict`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from medistill.config.rules import require


@dataclass(frozen=True)
class Predict:
    """PREDICT: what a trained classifier says of films; not for diagnosis.

    Attributes:
        model: the folder that `medistill train` wrote.
        films: a folder, searched with all folders in it, or one file: DICOM, PNG, JPEG or WebP.
        out: the CSV to write; it speaks of patients and stays in the house.
        modalities: DICOM modalities that are accepted; empty: those the network's release was made of.
        views: view positions that are accepted, "" for a file that names none; empty: likewise.
        workers: processes that decode films; 0: one a core.
        device: `auto` takes a GPU when there is one.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model", "films")

    model: str
    films: str
    out: str = "predictions.csv"
    modalities: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    workers: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        require(bool(self.out), "--out is empty; name the CSV to write")
        require(self.workers >= 0, f"--workers is {self.workers}; give 0 (one a core) or more")
