"""DISTILL in a process of its own, which is told of no patient's file: the public side of a run in DP mode."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from medistill import parallel
from medistill.errors import UserError
from medistill.stages.session import Session

WITHHELD = "withheld"
"""Stands where the cohort's path stood; without it neither the films nor the image sets made of them can be found."""


def distill_apart(session: Session) -> None:
    """Run `medistill distill` in a new process; this one may have opened films."""
    session.lead(_distill_apart)


def _distill_apart(session: Session) -> None:
    config = session.config
    public = replace(config, data=replace(config.data, cohort=WITHHELD))
    secret = {"MEDISTILL_DATA", *parallel.VARIABLES}
    environment = {name: value for name, value in os.environ.items() if name not in secret}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "public.yaml"
        file.write_text(yaml.safe_dump(public.to_dict(), sort_keys=False))
        command = [sys.executable, "-m", "medistill", "distill", "--config", str(file)]
        done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise UserError(f"distill: the process apart ended with code {done.returncode}; its own message stands above")
