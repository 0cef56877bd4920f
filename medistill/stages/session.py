"""What all stages of a run share: its folder, what is done already, progress, device and the MLflow record."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from medistill import parallel
from medistill.config import Config
from medistill.errors import UserError
from medistill.files import digest_of, read_json, sha256, write_json
from medistill.leftovers import alive, remove
from medistill.nets import Architecture
from medistill.release.redact import redact
from medistill.stages.progress import Progress

if TYPE_CHECKING:
    from medistill.track import StageRun, Tracker

DONE = "done.json"


class ChangedError(UserError):
    """A stage's file is not as the stage left it."""


@dataclass(frozen=True)
class Work:
    """One stage's place: a folder named after the stage and the key of everything that decides its result."""

    stage: str
    key: str
    folder: Path

    @property
    def done(self) -> bool:
        """Whether the stage has run to its end and its files are still as it left them in name."""
        try:
            record = json.loads((self.folder / DONE).read_text())
            return record["key"] == self.key and all((self.folder / name).exists() for name in record["files"])
        except (FileNotFoundError, ValueError, KeyError):
            return False

    def file(self, name: str) -> Path:
        """The path of a file, which must be as the stage left it.

        Raises:
            ChangedError: its SHA-256 is another now.
        """
        path = self.folder / name
        if sha256(path) != self.digest(name):
            raise ChangedError(
                f"{self.folder.name}/{name}: was changed after its stage wrote it; delete the folder "
                f"{self.folder.name} and run the same command again"
            )
        return path

    def digest(self, name: str) -> str:
        """The SHA-256 of a file as the stage left it."""
        return str(read_json(self.folder / DONE)["files"][name])

    def finish(self, inputs: Mapping[str, Any], files: Sequence[str]) -> None:
        """Write down that the stage is done: what went in and the SHA-256 of what came out."""
        record = {
            "stage": self.stage,
            "key": self.key,
            "inputs": dict(inputs),
            "files": {name: sha256(self.folder / name) for name in files},
        }
        write_json(self.folder / DONE, record)


@dataclass
class Session:
    """One run, in this process or shared with others.

    Attributes:
        config: all settings.
        say: where a line for the user goes; of several processes the first alone speaks.
        group: the processes of the run.
    """

    config: Config
    say: Callable[[str], None] = field(default=lambda line: print(line, flush=True))
    group: parallel.Group = field(default_factory=parallel.join)

    def __post_init__(self) -> None:
        threads = self.config.threads
        if self.group.size > 1:
            threads = threads or max(1, _cores() // self.group.local_size)
            if not self.group.leads:
                self.say = lambda line: None
            self.say(f"{self.group.size} processes, {threads} thread{'s' * (threads > 1)} each")
            self._require_one_kind_of_device()
        if threads:
            torch.set_num_threads(threads)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.config.run)

    @cached_property
    def device(self) -> torch.device:
        """Where the tensors live."""
        wanted = self.config.device
        if wanted == "cuda" and not torch.cuda.is_available():
            raise UserError("device is cuda, but torch finds no GPU here; set device to cpu or auto")
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted == "cpu" or self.group.size == 1:
            return torch.device(wanted)
        if self.group.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"{self.group.local_size} processes were started on a machine with {torch.cuda.device_count()} GPU; "
                "start at most one a GPU (--nproc-per-node), or set device to cpu"
            )
        torch.cuda.set_device(self.group.local_rank)
        return torch.device("cuda", self.group.local_rank)

    @property
    def compiled(self) -> bool | None:
        """Whether kernels are compiled, as configured; None: where it pays."""
        return {"auto": None, "always": True, "never": False}[self.config.compile]

    def compiles(self, earned: bool) -> bool:
        """Whether to compile kernels, given whether the work is long enough to earn it back."""
        return earned if self.compiled is None else self.compiled

    @cached_property
    def solo(self) -> "Session":
        """The same run for what this process does alone."""
        return self if self.group.size == 1 else replace(self, group=parallel.Group())

    def lead(self, do: Callable[["Session"], object]) -> None:
        """Let the first process alone do something; the others wait until it is done."""
        if self.group.leads:
            do(self.solo)
        self.group.wait()

    def done(self, work: Work) -> bool:
        """Whether the first process finds a stage's work done: all must go the same way."""
        return bool(self.group.numbers([work.done] if self.group.leads else [])[0])

    def require_shared(self, work: Work) -> None:
        """Raise a UserError when this process does not see what the first one wrote."""
        if not work.done:
            raise UserError(
                f"run: {work.folder} is not visible to every process of this run; name a folder that all machines share"
            )

    def architecture(self, channels: int, classes: int) -> Architecture:
        """The configured network for images of so many channels and classes."""
        net = self.config.net
        return Architecture(net.name, channels, classes, self.config.data.size, net.width, net.depth)

    def work(self, stage: str, decides: Mapping[str, Any]) -> Work:
        """The place of a stage whose result is decided by these JSON-able values."""
        key = digest_of({"stage": stage, **decides})
        return Work(stage, key, self.folder / f"{stage}-{key[:8]}")

    @contextmanager
    def stage(self, work: Work, params: Mapping[str, Any], tags: Mapping[str, Any]) -> Iterator["StageRun | None"]:
        """Run a stage: its MLflow record (None when another process keeps it), and memory errors as a sentence."""
        record: AbstractContextManager[StageRun | None] = nullcontext()
        if self.group.leads:
            self.clean()
        if self.tracker is not None:
            # the public process of a run in DP mode does not know the cohort
            cohort = "" if self.config.experts.private.on else self.config.data.cohort
            key = digest_of([self.config.run, cohort, self.config.data.name])
            parent = self.tracker.parent(self.config.data.name, key[:16], {})
            record = self.tracker.stage(parent, work.stage, work.key, redact(dict(params)), tags)
        # what the others are about to write must not be taken for what a killed process left
        self.group.wait()
        with record as run, self._memory():
            if run:
                # where a private key lies is nobody's business, however it is called
                told = replace(self.config, release=replace(self.config.release, key=""))
                run.text("config.yaml", yaml.safe_dump(redact(told.to_dict()), sort_keys=False))
            yield run

    def clean(self) -> None:
        """Delete what killed processes left half-written, here and in the stages' folders."""
        for left in list(self.folder.rglob(".*.tmp")):
            if not alive(left.name.split(".")[-2]):
                remove(left)

    @cached_property
    def tracker(self) -> "Tracker | None":
        """The MLflow store; it is opened before a stage works, so that an unreachable server costs nothing."""
        if not (self.config.track and self.group.leads):
            return None
        from medistill.track import open_tracker

        return open_tracker(self.config.data.name)

    def bar(self, total: int, name: str, unit: str, start: int = 0) -> Progress:
        """The progress of a stage, shown by the first process."""
        return Progress(total, name, unit, start, self.say, self.group.leads)

    def _require_one_kind_of_device(self) -> None:
        gpus = int(self.group.total(torch.tensor(int(self.device.type == "cuda"))))
        if gpus not in (0, self.group.size):
            raise UserError(f"{gpus} of {self.group.size} processes have a GPU; set device to cpu or use like machines")

    @contextmanager
    def _memory(self) -> Iterator[None]:
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            text = str(error).lower()
            out = isinstance(error, torch.OutOfMemoryError | MemoryError)
            if not (out or "out of memory" in text or "can't allocate memory" in text):
                raise
            raise UserError(
                f"{self.device}: out of memory; lower distill.batch, distill.ipc, experts.batch, evaluate.batch, "
                "net.width or data.size, whichever this stage uses, and run the same command again"
            ) from error


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
