"""The notebooks hold no outputs and run from top to bottom on a shrunken config."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


def test_there_are_notebooks():
    assert NAMES[:2] == ["01_quickstart.ipynb", "02_covid19.ipynb"]


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
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tiny, tmp_path):
    """Guards what a newcomer runs first: each cell of each notebook, on the tiny cohort (about 30 s each)."""
    copy = tmp_path / name
    copy.write_bytes((NOTEBOOKS / name).read_bytes())
    shrunk = tiny.options(tmp_path / "run", "--data.columns", "{}", "--track", "false")
    options = shlex.join(shrunk[2:])  # the notebook names its own run
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
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"MEDISTILL_OPTIONS": options}
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert list(tmp_path.glob("runs/*/audit-*/audit.json"))
