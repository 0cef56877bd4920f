"""More than one process: those that torchrun starts find each other, add, tell and wait; the only importer of
torch.distributed, which a process that was started alone never loads.

What the processes share of a run is its folder; what passes between them here is numbers, never a pickle.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from medistill.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

TO_START = timedelta(minutes=10)
"""Within this time every process must have arrived."""

TO_TELL = timedelta(seconds=10)
"""So long a process lets another one say why the run ends."""

TO_WAIT = timedelta(days=7)
"""A process waits this long for one that is still at work; one that died is noticed at once."""

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_stores: list[Any] = []


class PeerLostError(BaseException):
    """Another process of the run has stopped. Like KeyboardInterrupt it may be raised anywhere, so that no
    `except Exception` must swallow it.
    """

    def __init__(self) -> None:
        super().__init__("another process of this run has stopped; run the same command again, finished work is kept")


@dataclass(frozen=True)
class Group:
    """The processes of a run; this class is the group of one, in which every operation returns what it is given.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its machine.
        local_size: number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process speaks, writes and records for all."""
        return self.rank == 0

    def total(self, tensor: "Tensor") -> "Tensor":
        """The sum of every process's tensor of this shape, in its place and the same everywhere."""
        return tensor

    def numbers(self, values: Sequence[int]) -> list[int]:
        """The whole numbers that rank 0 hands in, whatever the others hand in."""
        return list(values)

    def wait(self) -> None:
        """Return when every process has come this far."""


class Processes(Group):
    """Two processes or more. Every operation must be called by all of them, in the same order.

    Raises:
        PeerLostError: a process has stopped meanwhile.
    """

    def total(self, tensor: "Tensor") -> "Tensor":
        """The sum of every process's tensor of this shape, in its place and the same everywhere."""
        import torch.distributed as dist

        if tensor.is_cuda:
            # NCCL would wait for a process that has died; the gloo group of the CPU notices
            self.wait()
        with _noticing_loss():
            dist.all_reduce(tensor)
        return tensor

    def numbers(self, values: Sequence[int]) -> list[int]:
        """The whole numbers that rank 0 hands in, whatever the others hand in."""
        import torch
        import torch.distributed as dist

        with _noticing_loss():
            count = torch.tensor([len(values)])
            dist.broadcast(count, 0)
            told = torch.tensor(values, dtype=torch.int64) if self.leads else torch.empty(int(count), dtype=torch.int64)
            dist.broadcast(told, 0)
        return told.tolist()

    def wait(self) -> None:
        """Return when every process has come this far."""
        import torch
        import torch.distributed as dist

        with _noticing_loss():
            dist.all_reduce(torch.zeros(1))


@cache
def join() -> Group:
    """The group that this process was started in, which it joins at the first call.

    torchrun names rank, size and meeting place in the environment; without them it is a group of one. Tensors
    on the CPU travel by gloo, those on a GPU by NCCL.

    Raises:
        UserError: the environment names a part of this alone, or the others do not come within TO_START.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Group()
    absent = [name for name in VARIABLES if name not in os.environ]
    if absent:
        raise UserError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(absent)} is not set; start with "
            "`torchrun -m medistill ...`, or unset WORLD_SIZE for a single process"
        )
    import torch
    import torch.distributed as dist

    _listen()
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=TO_START))
    except RuntimeError as error:
        raise UserError(
            "the processes of this run do not find each other; check that MASTER_ADDR and MASTER_PORT name the first "
            "machine, that the port is free and that no firewall is in the way"
        ) from error
    _stores.append(store)
    _arrive(store, size)
    gpu = torch.cuda.is_available() and dist.is_nccl_available()
    with _noticing_loss():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo", store=store, rank=rank, world_size=size, timeout=TO_WAIT
        )
    return Processes(rank, size, int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))


def leave() -> None:
    """Part in good order once all have come this far; nothing to do for a process that never joined."""
    if _stores:
        import torch.distributed as dist

        join().wait()
        dist.destroy_process_group()


def tells() -> bool:
    """Whether this process is to print why the run ends: the first that asks, so that it is said once.

    Before the processes have joined, the first of every machine.
    """
    if not _stores:
        return os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        return _stores[0].add("medistill/told", 1) == 1
    except RuntimeError:  # the process or machine that held the store is gone
        return True


def let_tell() -> None:
    """Before the processes have joined, wait for the one that tells why: the launcher ends all as soon as one ends."""
    if not _stores:
        time.sleep(TO_TELL.total_seconds())


def _arrive(store: Any, size: int) -> None:
    """Wait until all processes are there; gloo itself would wait as long as for work."""
    end = time.monotonic() + TO_START.total_seconds()
    here = store.add("medistill/here", 1)
    while here < size:
        if time.monotonic() > end:
            raise UserError(
                f"{here} of {size} processes have started within {TO_START.seconds // 60} minutes; look at the "
                "output of the other machines, and start the same command on each of them"
            )
        time.sleep(0.02)
        here = store.add("medistill/here", 0)


def _listen() -> None:
    """Turn the first signal to stop into an exception, so that this process leaves in good order."""

    def stop(number: int, frame: Any) -> NoReturn:
        _ignore_signals()
        raise KeyboardInterrupt if number == signal.SIGINT else PeerLostError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _ignore_signals() -> None:
    """A process that is leaving must not be torn out of its last lines by torchrun's signal to leave."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _noticing_loss() -> Iterator[None]:
    """Gloo and NCCL raise a RuntimeError when a process they talk to has gone."""
    try:
        yield
    except RuntimeError as error:
        _ignore_signals()
        raise PeerLostError from error
