"""What a piece of work takes: seconds, and the memory it needs beyond what was held before it began."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


@dataclass
class Used:
    """Seconds and bytes of a finished block; no bytes where the system does not tell them."""

    seconds: float = 0.0
    bytes: int | None = None


@contextmanager
def watch(device: torch.device, memory: bool = True) -> Iterator[Used]:
    """Measure a block: its time and, unless told not to, its highest memory above that at its start.

    On a GPU the memory that torch allocated there; on Linux the resident memory of the process (proc(5), VmRSS and
    VmHWM, the latter reset by writing 5 to clear_refs); elsewhere unknown.
    """
    used = Used()
    before = _begin(device) if memory else None
    started = time.perf_counter()
    yield used
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    used.seconds = time.perf_counter() - started
    if before is not None:
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")
        used.bytes = None if peak is None else max(0, peak - before)


def _begin(device: torch.device) -> int | None:
    """Reset the peak and return what is held now."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        (PROCESS / "clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(name: str) -> int | None:
    """A line of the process's status, in bytes; None where the system has no such line."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
