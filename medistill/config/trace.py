"""Settings of `medistill trace`."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Trace:
    """TRACE: how did a release come about?

    Attributes:
        folder: the release.
        tracking: URI of the MLflow store in which its stages were recorded, such as sqlite:///mlflow.db; empty: the one
            that MLFLOW_TRACKING_URI names, else mlflow.db in the working folder.
        json: file to which the walk is written as JSON too; empty: none.
    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str
    tracking: str = ""
    json: str = ""
