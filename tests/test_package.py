"""The wheel, installed in an environment of its own, works from any folder."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def run(*words, cwd):
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The interpreter of an empty environment that holds the built wheel.

    The dependencies (gigabytes) are lent by the environment that runs the tests; medistill itself is not: an
    editable install works through a .pth file, and a lent folder's .pth files are not read.
    """
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT, cwd=folder)
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    home = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python = home / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *folder.glob("*.whl"), cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert str(site) in run(python, "-c", "import medistill; print(medistill.__file__)", cwd=folder)
    return home, folder


def test_help_and_the_demo_check_run_from_elsewhere(installed):
    home, folder = installed
    assert "usage: medistill VERB" in run(home / "medistill", "--help", cwd=folder)
    printed = run(home / "medistill", "check", "--config", "configs/phantom.yaml", cwd=folder)
    assert "train: 384 films of 192 patients (Normal 128, Pneumonia 128, COVID 128)" in printed
    assert "check: the cohort is ready" in printed


def test_the_engine_stands_alone():
    """Experts, distillation and evaluation import neither MONAI, MLflow nor pydicom."""
    code = (
        "import sys\n"
        "for name in ('monai', 'mlflow', 'pydicom'): sys.modules[name] = None\n"
        "import medistill.experts.train, medistill.experts.trajectory\n"
        "import medistill.distill.iadd, medistill.distill.distilled, medistill.distill.initial\n"
        "import medistill.evaluate.arm, medistill.evaluate.baselines, medistill.audit.nearest\n"
        "import medistill.release.load, medistill.report.plots"
    )
    run(sys.executable, "-c", code, cwd=PROJECT)
