"""The notebooks hold no outputs and run from top to bottom on a shrunken config."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import medistill

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
STAGES = ["01_quickstart.ipynb", "02_covid19.ipynb"]
STUDY = "03_what_distillation_stores.ipynb"
SHARE = "04_share_and_verify.ipynb"
HOSPITALS = "05_many_hospitals.ipynb"


def test_there_are_notebooks():
    assert [*STAGES, STUDY, SHARE, HOSPITALS] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_what_it_printed(name):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_points_to_is_there(name):
    words = "\n".join(
        c.source for c in nbformat.read(NOTEBOOKS / name, as_version=4).cells if c.cell_type == "markdown"
    )
    files = re.findall(r"[\w/]+\.(?:md|yaml|py)\b", words)
    assert files and [file for file in files if not (NOTEBOOKS.parent / file).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_notebook_runs(name, tiny, tmp_path):
    """Guards what a newcomer runs first: each cell of each notebook, on the tiny cohort (about 30 s each)."""
    shrunk = tiny.options(tmp_path / "run", "--data.columns", "{}", "--track", "false")
    run(name, tmp_path, shlex.join(shrunk[2:]))  # the notebook names its own run
    assert list(tmp_path.glob("runs/*/audit-*/audit.json"))


@pytest.mark.slow
def test_the_notebook_on_sharing_runs(tiny, tmp_path):
    """Guards what the two sides of a release do: signed, verified, altered, trained on and traced (about 40 s)."""
    run(SHARE, tmp_path, shlex.join(tiny.options(tmp_path / "run", "--data.columns", "{}")[2:]))
    (released,) = tmp_path.glob("runs/share/release-*")
    assert (released / "signature.json").exists() and (tmp_path / "model" / "model.safetensors").exists()
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 7


@pytest.mark.slow
def test_the_notebook_on_many_hospitals_runs(tiny, tmp_path):
    """Guards what several sites and a fourth party do: three signed releases, verified and merged (about 30 s)."""
    shrunk = tiny.options(tmp_path / "run", "--data.columns", "{}", "--track", "false", "--evaluate.baselines", "false")
    run(HOSPITALS, tmp_path, shlex.join(shrunk[2:]))
    merged = medistill.load(tmp_path / "merged")
    assert len(merged) == 18 and [part["verdict"] for part in merged.provenance["parts"]] == ["inconclusive"] * 3


def test_the_notebook_on_what_is_stored_runs(tmp_path):
    """Its study's modules lie in pipelines/."""
    (tmp_path / "pipelines").symlink_to(NOTEBOOKS.parent / "pipelines")
    run(STUDY, tmp_path, "--quick")


def run(name: str, folder: Path, options: str) -> None:
    """Run a copy of a notebook in a folder."""
    copy = folder / name
    copy.write_bytes((NOTEBOOKS / name).read_bytes())
    words = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "--nbmake-timeout=300",
        "-p",
        "no:cacheprovider",
        "-q",
        str(copy),
    ]
    environment = os.environ | {"MEDISTILL_OPTIONS": options}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
