"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def data_folder() -> Path:
    """Where the real data are: MEDISTILL_DATA, else beside the project."""
    return Path(os.environ.get("MEDISTILL_DATA", BESIDE))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if data_folder().is_dir():
        return
    absent = pytest.mark.skip(reason="real data absent: set MEDISTILL_DATA to their folder to run this test")
    for item in items:
        if item.get_closest_marker("realdata"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test that asks for it carries the marker `realdata`."""
    return data_folder()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Equal rounding on every machine that runs the tests, and no threads waiting for each other."""
    torch.set_num_threads(1)
