"""Seconds and bytes of a block."""

import sys

import pytest
import torch

from medistill import resources
from medistill.resources import watch

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told on Linux alone")
@pytest.mark.parametrize("mebibytes", [200, 50])
def test_the_peak_of_a_block_is_what_it_held_at_most(mebibytes):
    with watch(CPU) as used:
        held = torch.ones(mebibytes * 2**18)
        del held
    assert used.bytes == pytest.approx(mebibytes * 2**20, rel=0.2)
    assert used.seconds > 0


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
