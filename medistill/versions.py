"""What ran: versions of the code and its packages, and the kind of machine without its name."""

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import medistill

PACKAGES = (
    "torch",
    "torchvision",
    "monai",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pydicom",
    "pillow",
    "safetensors",
    "matplotlib",
    "mlflow",
    "opacus",
)


def environment() -> dict[str, Any]:
    """Versions of Python and the packages, and the kind of machine without its name."""
    return {
        "medistill": medistill.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def code() -> dict[str, str]:
    """Tags for the code that ran; where MLflow expects a user or a script it finds the package's name."""
    tags = {
        "medistill.version": medistill.__version__,
        "mlflow.user": "medistill",
        "mlflow.source.name": "medistill",
        "mlflow.source.type": "LOCAL",
    }
    checkout = Path(medistill.__file__).parents[1]
    if not (checkout / ".git").exists():
        return tags
    with suppress(OSError, subprocess.SubprocessError):
        commit, changes = _git(checkout, "rev-parse", "HEAD"), _git(checkout, "status", "--porcelain", "-uno")
        tags |= {"mlflow.source.git.commit": commit, "medistill.modified": str(bool(changes)).lower()}
    return tags


def _git(checkout: Path, *arguments: str) -> str:
    """What git prints."""
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
