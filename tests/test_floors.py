"""Imports run down the floors of the house and never back; one room alone knows MLflow, one torch.distributed."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "medistill"
FLOORS = (
    {"errors", "files", "foreign", "leftovers", "seeds", "versions", "resources", "__init__"},
    {"config", "data", "nets", "augment", "report", "track", "parallel", "kernels", "layers", "sgd", "mistakes"},
    {"experts"},
    {"distill"},
    {"evaluate", "release"},
    {"audit"},
    {"stages"},
    {"cli", "__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules of this package and of others that a file imports anywhere, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_down(path: Path) -> None:
    level = LEVEL[room(path)]
    if path.name == "__init__.py" and path.parent == PACKAGE:
        return  # the package's own names are imported when they are asked for
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("medistill.")} - {"__version__"}
    assert {other for other in rooms if LEVEL[other] > level} == set()


@pytest.mark.parametrize(("library", "rooms"), [("mlflow", {"track"}), ("torch.distributed", {"parallel"})])
def test_one_room_alone_knows(library: str, rooms: set[str]) -> None:
    found = {room(path) for path in FILES for name in imported(path) if f"{name}.".startswith(f"{library}.")}
    assert found == rooms
