"""Fixtures shared by all tests."""

import os
import pickle
from dataclasses import dataclass
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


@pytest.fixture
def little_cifar10(real_data: Path, tmp_path: Path) -> Path:
    """A data folder that holds cifar10/cifar-10-batches-py: sixty rows of each real batch, as Python 3 writes them."""
    whole = real_data / "cifar10" / "cifar-10-batches-py"
    little = tmp_path / "data" / "cifar10" / whole.name
    little.mkdir(parents=True)
    for path in sorted(whole.iterdir()):
        if path.suffix == ".html":
            continue
        with path.open("rb") as file:
            content = pickle.load(file, encoding="bytes")
        content = {key: value[:60] if key in (b"data", b"labels") else value for key, value in content.items()}
        (little / path.name).write_bytes(pickle.dumps(content, protocol=2))
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Equal rounding on every machine that runs the tests, and no threads waiting for each other."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Tiny:
    """A tiny cohort whose every name, id, date and path is marked, and the options that run on it."""

    cohort: Path
    marks: tuple[str, ...]

    def options(self, run: Path, *more: str) -> list[str]:
        """Options of a run of a few seconds."""
        settings = {
            "run": run,
            "threads": 1,
            "data.cohort": self.cohort,
            "data.name": "tiny",
            "data.classes": "[Normal, Pneumonia, COVID]",
            "data.size": 16,
            "data.workers": 2,
            "net.width": 8,
            "net.depth": 2,
            "experts.count": 2,
            "experts.epochs": 4,
            "experts.lr": 0.05,
            "experts.batch": 16,
            "distill.iterations": 40,
            "distill.inner_steps": 5,
            "distill.max_start_epoch": 2,
            "distill.checkpoint_minutes": 0,
            "evaluate.seeds": 2,
            "evaluate.steps": 60,
            "evaluate.lr": 0.05,
            "evaluate.resamples": 100,
            "audit.quick": "true",
            "audit.planted": 20,
            "release.accept": "tester: phantoms",
        }
        return [*(word for key, value in settings.items() for word in (f"--{key}", str(value))), *more]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Phantom films as a hospital's files, with marks of a patient wherever a patient could stand."""
    import pandas as pd
    import pydicom

    from medistill.data.phantom_files import write_cohort

    folder = tmp_path_factory.mktemp("MARKEDFOLDER") / "cohort"
    table_file = write_cohort(folder, patients=48, films=2, size=32, seed=3)
    table = pd.read_csv(table_file, dtype=str, keep_default_na=False)
    for row, name in enumerate(table["path"]):
        old = folder / name
        new = old.with_name(f"MARKEDFILE_{row}{old.suffix}")
        if old.suffix == ".dcm":
            film = pydicom.dcmread(old)
            film.PatientName, film.PatientID = "MARKEDNAME^X", f"MARKEDID{row}"
            film.StudyDate = film.PatientBirthDate = "19010203"
            film.InstitutionName = "MARKEDCLINIC"
            film.save_as(old)
        old.rename(new)
        table.loc[row, "path"] = str(new.relative_to(folder))
    table["patient_id"] = "MARKEDPATIENT-" + table["patient_id"]
    table["site"] = "MARKEDSITE"
    table.to_csv(table_file, index=False)
    return Tiny(table_file, ("MARKED", "19010203"))
