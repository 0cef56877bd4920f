"""Weak scaling: n experts on n processes of one thread each, n = 1, 2 and 4, on phantom films.

    python pipelines/bench_scaling.py        writes docs/results/scaling_experts_cpu.json

The rounds are interleaved, so that a machine that grows slower spoils all n alike. Each time is that of the whole
command, from start to exit, with the image sets made beforehand; efficiency is the time at n = 1 over that at n.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from medistill.files import write_json

CONFIG = Path(__file__).parents[1] / "configs" / "phantom.yaml"
SETTINGS = ["--threads", "1", "--device", "cpu", "--track", "false", "--data.workers", "1"]


def seconds(run: Path, processes: int, epochs: int) -> float:
    for experts in run.glob("experts-*"):
        shutil.rmtree(experts)
    agent = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    counts = ["--experts.count", str(processes), "--experts.epochs", str(epochs)]
    words = ["experts", "--config", str(CONFIG), "--run", str(run), *SETTINGS, *counts]
    began = time.perf_counter()
    subprocess.run([*agent, "-m", "--", "medistill", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=400, help="long enough that the start counts for little")
    chosen = parser.parse_args()
    times: dict[int, list[float]] = {1: [], 2: [], 4: []}
    with tempfile.TemporaryDirectory() as folder:
        seconds(Path(folder), 1, 20)  # makes the image sets
        for n in [*times] * chosen.rounds:
            times[n].append(seconds(Path(folder), n, chosen.epochs))
    medians = {n: statistics.median(taken) for n, taken in times.items()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread a process"
    rows = {n: {"seconds": times[n], "median": m, "efficiency": medians[1] / m} for n, m in medians.items()}
    for n, row in rows.items():
        print(f"{n} experts on {n} processes: {row['median']:.1f} s, efficiency {row['efficiency']:.2f}")
    found = {"machine": machine, "epochs": chosen.epochs, "processes": {str(n): row for n, row in rows.items()}}
    write_json(Path("docs/results/scaling_experts_cpu.json"), found)


if __name__ == "__main__":
    main()
