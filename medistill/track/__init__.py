"""The record of every run in MLflow, told without any person, host or path; the only importer of mlflow.

Runs are created through `MlflowClient` alone: the fluent API would tag them with the user's name and the
script's path. What is recorded is what the caller hands over, plus versions and the kind of machine.
"""

from medistill.track.reading import Record, open_record
from medistill.track.records import StageRun
from medistill.track.registry import Origin, Registered
from medistill.track.store import DEFAULT_URI
from medistill.track.tracker import Tracker, open_tracker

__all__ = ["DEFAULT_URI", "Origin", "Record", "Registered", "StageRun", "Tracker", "open_record", "open_tracker"]
