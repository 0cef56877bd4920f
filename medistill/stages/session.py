"""What all stages of a run share: its folder, what is done already, progress, device and the MLflow record."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from tqdm import tqdm

from medistill.config import Config
from medistill.errors import UserError
from medistill.files import digest_of, read_json, sha256, write_json
from medistill.nets import Architecture
from medistill.release.bundle import redact

if TYPE_CHECKING:
    from medistill.track import StageRun, Tracker

DONE = "done.json"


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
            UserError: its SHA-256 is another now.
        """
        path = self.folder / name
        if sha256(path) != read_json(self.folder / DONE)["files"][name]:
            raise UserError(
                f"{self.folder.name}/{name}: was changed after its stage wrote it; delete the folder "
                f"{self.folder.name} and run the same command again"
            )
        return path

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
    """One run on one machine.

    Attributes:
        config: all settings.
        say: where a line for the user goes.
    """

    config: Config
    say: Callable[[str], None] = field(default=lambda line: print(line, flush=True))

    def __post_init__(self) -> None:
        if self.config.threads:
            torch.set_num_threads(self.config.threads)

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
        return torch.device(wanted)

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
        """Run a stage: its MLflow record (None when tracking is off), and memory errors as a sentence."""
        self.clean()
        record: AbstractContextManager[StageRun | None] = nullcontext()
        if self.tracker is not None:
            key = digest_of([self.config.run, self.config.data.cohort, self.config.data.name])
            parent = self.tracker.parent(self.config.data.name, key[:16], {})
            record = self.tracker.stage(parent, work.stage, work.key, redact(dict(params)), tags)
        with record as run, self._memory():
            if run:
                run.text("config.yaml", yaml.safe_dump(redact(self.config.to_dict()), sort_keys=False))
            yield run

    def clean(self) -> None:
        """Delete what killed processes left half-written, here and one folder down."""
        for left in [*self.folder.glob(".*.tmp"), *self.folder.glob("*/.*.tmp")]:
            if not _alive(left.name.split(".")[-2]):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    @cached_property
    def tracker(self) -> "Tracker | None":
        """The MLflow store; it is opened before a stage works, so that an unreachable server costs nothing."""
        if not self.config.track:
            return None
        from medistill.track import open_tracker

        return open_tracker(self.config.data.name)

    def bar(self, total: int, name: str, unit: str, start: int = 0) -> "tqdm[None]":
        """A progress bar on a terminal, nothing in a log."""
        return tqdm(total=total, initial=start, desc=name, unit=unit, disable=None, file=sys.stderr)

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


def _alive(pid: str) -> bool:
    """Whether the process that a temporary file is named after still runs (asked on POSIX alone)."""
    if os.name != "posix" or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
