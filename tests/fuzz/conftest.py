"""How many cases a door gets, from which seed; what they came to is told at the end.

MEDISTILL_FUZZ_CASES is the number of cases a door, MEDISTILL_FUZZ_SEED the seed all of them descend from, and
MEDISTILL_FUZZ_AGAIN the folder of one case that is tried alone.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]  # the watchdog reads memory from /proc
AGAIN = os.environ.get("MEDISTILL_FUZZ_AGAIN", "")


@pytest.fixture(scope="session")
def cases() -> int:
    """The number of cases a door."""
    return int(os.environ.get("MEDISTILL_FUZZ_CASES", "200"))


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed from which every case descends."""
    return int(os.environ.get("MEDISTILL_FUZZ_SEED", "0"))


@pytest.fixture
def again() -> Iterator[dict[str, bytes]]:
    """The files of the one case to try again."""
    folder = Path(AGAIN)
    yield {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With a case to try again nothing else is tried; without one, `again` has nothing to do."""
    for item in items:
        if Path(__file__).parent in item.path.parents and ("again" in item.fixturenames) != bool(AGAIN):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.skip(reason="MEDISTILL_FUZZ_AGAIN chooses the one or the other"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what the cases came to."""
    watchdog = sys.modules.get("fuzz.watchdog")
    tallies = watchdog.TALLIES if watchdog else []
    if tallies:
        terminalreporter.section("fuzzing")
    for tally in tallies:
        terminalreporter.write_line(str(tally))
