"""Seconds and bytes of a block."""

import subprocess
import sys

import pytest
import torch

from medistill import resources
from medistill.resources import watch

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told on Linux alone")
@pytest.mark.parametrize("mebibytes", [200, 50])
def test_the_peak_of_a_block_is_what_it_held_at_most(mebibytes):
    """In a fresh process: one that ran other tests may hold as much already, and a block that uses it takes nothing."""
    code = (
        "import torch\nfrom medistill.resources import watch\n"
        f"with watch(torch.device('cpu')) as used:\n    held = torch.ones({mebibytes} * 2**18)\n    del held\n"
        "print(used.bytes, used.seconds)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken, seconds = map(float, done.stdout.split())
    assert taken == pytest.approx(mebibytes * 2**20, rel=0.2)
    assert seconds > 0


def test_where_the_system_tells_nothing_the_memory_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "PROCESS", tmp_path / "absent")
    with watch(CPU) as used:
        pass
    assert used.bytes is None


def test_a_system_that_tells_no_peak_stops_nothing(monkeypatch, tmp_path):
    (tmp_path / "clear_refs").touch()
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t100 kB\n")
    monkeypatch.setattr(resources, "PROCESS", tmp_path)
    with watch(CPU) as used:
        pass
    assert used.bytes is None and used.seconds > 0
