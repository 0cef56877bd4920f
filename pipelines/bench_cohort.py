"""How fast, and in how much memory, does a cohort of 100,000 films become image sets, and do experts read them?

Draws a few thousand phantoms of 256 pixels, DICOM and PNG, gives each many names (hard links, all of one patient), and
runs `check`, `run`'s LOAD and a few steps of experts in fresh processes whose anonymous memory (RssAnon of
/proc/PID/status, and Pss_Anon, which counts a page shared by n processes as 1/n) is sampled while they work. Beside it
stand the decoder alone, one process without pool, store or pipe, and a plain read of the same files; and a run that is
killed (SIGKILL) in the middle and started again.

    python pipelines/bench_cohort.py --rows 100000 --distinct 3000 --workers 4

writes docs/results/bench_cohort.json; docs/scale.md tells what it means.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean

import torch

from medistill.data import near
from medistill.data.decode import CHUNK
from medistill.data.phantom_files import COLUMNS, write_cohort
from medistill.files import read_json, write_json

SEED, SIZE = 11, 256
ROUNDS = 3  # of pool and decoders side by side
PIECE = 150  # patients drawn by one call
EXPERTS = ["--experts.count", "1", "--experts.epochs", "2", "--experts.batch", "256"]
NET = [
    "--compile",
    "never",
    "--net.width",
    "8",
    "--net.depth",
    "2",
    "--distill.expert_epochs",
    "1",
    "--distill.max_start_epoch",
    "1",
]


def draw(folder: Path, patients: int, number: int) -> Path:
    """One piece of the phantoms."""
    return write_cohort(folder / f"piece{number}", patients=patients, films=1, size=SIZE, seed=SEED + number)


def make(folder: Path, rows: int, distinct: int, processes: int) -> Path:
    """The cohort's table: every row a path of its own, every phantom one patient's."""
    sizes = [min(PIECE, distinct - start) for start in range(0, distinct, PIECE)]
    with ProcessPoolExecutor(processes) as pool:
        tables = list(pool.map(partial(draw, folder), sizes, range(len(sizes))))
    phantoms = []
    for number, table in enumerate(tables):
        with table.open() as file:
            for row in csv.DictReader(file):
                row["patient_id"] += f"-{number}"
                phantoms.append((table.parent / row["path"], row))
    cohort = folder / "cohort"
    shutil.rmtree(cohort, ignore_errors=True)
    cohort.mkdir()
    with (cohort / "cohort.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for number in range(rows):
            path, row = phantoms[number % len(phantoms)]
            name = f"part{number // 1000:03d}/{number:06d}{path.suffix}"
            (cohort / name).parent.mkdir(exist_ok=True)
            os.link(path, cohort / name)
            table.writerow(row | {"path": name})
    return cohort / "cohort.csv"


class Memory(threading.Thread):
    """The anonymous memory of a process and all its children, in bytes, ten times a second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.stop = pid, threading.Event()
        self.parent = self.all = self.shared = 0

    def run(self) -> None:
        while not self.stop.wait(0.1):
            found = [(pid, anonymous(pid, "status", "RssAnon")) for pid in family(self.pid)]
            self.parent = max(self.parent, dict(found).get(self.pid, 0))
            if sum(size for _, size in found) > self.all:
                self.all = sum(size for _, size in found)
            self.shared = max(self.shared, sum(anonymous(pid, "smaps_rollup", "Pss_Anon") for pid, _ in found))

    def told(self) -> dict[str, int]:
        return {"parent_bytes": self.parent, "all_bytes": self.all, "all_shared_once_bytes": self.shared}


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for each in found:
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def anonymous(pid: int, file: str, name: str) -> int:
    """A line of a file in /proc, in bytes; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def watched(words: list[str], until=lambda: False) -> dict:
    """Run a process, sample its memory, kill it when `until` says so."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    memory = Memory(process.pid)
    memory.start()
    while process.poll() is None and not until():
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    killed = process.poll() is None
    if killed:
        process.send_signal(signal.SIGKILL)
    output = process.communicate()[0]
    memory.stop.set()
    memory.join()
    if not killed and process.returncode:
        raise SystemExit(output)
    found = {"seconds": time.perf_counter() - started, "killed": killed, **memory.told()}
    print(words[3:5], json.dumps(found), flush=True)
    return found | {"output": output.splitlines()}


def verb(name: str, run: Path, table: Path, chosen: argparse.Namespace, *more: str) -> list[str]:
    classes = "[COVID, Normal, Pneumonia]"
    words = [
        sys.executable,
        "-m",
        "medistill",
        name,
        "--run",
        str(run),
        "--track",
        "false",
        "--data.cohort",
        str(table),
    ]
    words += ["--data.name", "bench", "--data.classes", classes, "--data.size", str(chosen.size)]
    return [*words, "--data.workers", str(chosen.workers), *more]


def journalled(run: Path) -> int:
    """Films that a run's store holds."""
    return sum(len(json.loads(line)["stamps"]) for file in run.glob("films-*/journal") for line in file.open())


def decoders(paths: list[Path], size: int, processes: int) -> float:
    """Films a second, together, of so many processes that decode these films and do nothing else."""
    code = (
        "import sys, time, torch; from pathlib import Path; from medistill.data.transforms import film_transform\n"
        "torch.set_num_threads(1); t = film_transform(int(sys.argv[1])); paths = sys.argv[2:]; t(Path(paths[0]))\n"
        "s = time.perf_counter(); [t(Path(p)) for p in paths]; print(len(paths) / (time.perf_counter() - s))"
    )
    words = [sys.executable, "-c", code, str(size), *map(str, paths)]
    every = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(float(process.communicate()[0]) for process in every)


def pooled(paths: list[Path], size: int, workers: int, run: Path) -> float:
    """Films a second of a process that reads these films into a store, from the first chunk to the last."""
    code = (
        "import sys, time; from pathlib import Path; from medistill.data.decode import stream\n"
        "from medistill.data.store import FilmStore\n"
        "if __name__ == '__main__':\n"
        "    size, workers, paths, seen = int(sys.argv[1]), int(sys.argv[2]), [Path(p) for p in sys.argv[4:]], []\n"
        "    decode = lambda absent: stream(absent, size, workers=workers)\n"
        "    with FilmStore.open(Path(sys.argv[3]), size, {}) as store:\n"
        "        store.read(paths, decode, lambda done: seen.append((done, time.perf_counter())))\n"
        "    (first, began), (last, ended) = seen[0], seen[-1]\n"
        "    print((last - first) / (ended - began))"
    )
    words = [sys.executable, "-c", code, str(size), str(workers), str(run), *map(str, paths)]
    return float(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)


def side_by_side(paths: list[Path], chosen: argparse.Namespace) -> list[dict[str, float]]:
    """The pool and as many processes without one, in turn: whatever else the machine does falls on both."""
    rounds = []
    for number in range(ROUNDS):
        ours = pooled(paths, chosen.size, chosen.workers, chosen.folder / f"side{number}")
        limit = decoders(paths, chosen.size, chosen.workers)
        rounds.append({"pool": ours, "decoders": limit, "share": ours / limit})
        print(rounds[-1], flush=True)
    return rounds


def plain_read(paths: list[Path]) -> float:
    """Films a second of a process that reads the files, which the system may hold already, and does nothing else."""
    started = time.perf_counter()
    for path in paths:
        path.read_bytes()
    return len(paths) / (time.perf_counter() - started)


def films(table: Path, count: int) -> list[Path]:
    with table.open() as file:
        return [table.parent / row["path"] for _, row in zip(range(count), csv.DictReader(file), strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--distinct", type=int, default=3000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_cohort"), help="deleted at the end")
    parser.add_argument("--out", type=Path, default=Path("docs/results/bench_cohort.json"))
    chosen = parser.parse_args()
    shutil.rmtree(chosen.folder, ignore_errors=True)
    chosen.folder.mkdir(parents=True)
    try:
        measure(chosen)
    finally:
        shutil.rmtree(chosen.folder, ignore_errors=True)


def measure(chosen: argparse.Namespace) -> None:
    result = read_json(chosen.out) if chosen.out.exists() else {"cohorts": {}}
    table = make(chosen.folder.resolve(), chosen.rows, chosen.distinct, chosen.workers)
    run, few = chosen.folder / "run", films(table, 600)
    found: dict = {name: getattr(chosen, name) for name in ("rows", "distinct", "size", "workers")}

    def tell(**more: object) -> None:
        found.update(more)
        result["cohorts"][str(chosen.rows)] = found
        result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
        result["command"] = "python pipelines/bench_cohort.py --rows N --distinct D"
        write_json(chosen.out, result)

    started, load_before = time.perf_counter(), os.getloadavg()[0]
    one, limit = [decoders(few, chosen.size, 1)], [decoders(few, chosen.size, chosen.workers)]
    quiet = ["--data.near_duplicate", "1"]
    half = watched(verb("check", run, table, chosen, *quiet), lambda: journalled(run) >= chosen.rows // 2)
    middle = journalled(run)
    rest = watched(verb("check", run, table, chosen, *quiet))
    one.append(decoders(few, chosen.size, 1))
    limit.append(decoders(few, chosen.size, chosen.workers))
    written = sum(file.stat().st_size for file in run.glob("films-*/rows")) // (4 * chosen.size**2)
    lines = [json.loads(line) for file in run.glob("films-*/journal") for line in file.open()]
    speed = chosen.rows / (half["seconds"] + rest["seconds"])
    tell(
        killed={key: half[key] for key in half if key != "output"} | {"films": middle},
        resumed={key: rest[key] for key in rest if key != "output"} | {"films": chosen.rows - middle},
        films_per_second=speed,
        decoder_per_second={"one process": one, "as many processes as workers": limit},
        share_of_decoder={"one process": speed / chosen.workers / mean(one), "as many processes": speed / mean(limit)},
        plain_read_per_second=plain_read(few),
        side_by_side=side_by_side(few, chosen),
        rows_in_store=written,
        journalled=sum(len(line["stamps"]) for line in lines),
        at_most_twice=chosen.workers * 2 * CHUNK,
        load_average=[load_before, os.getloadavg()[0]],
    )
    steps = {
        "check again, with near duplicates": verb("check", run, table, chosen),
        "load and experts": verb("experts", run, table, chosen, *NET, *EXPERTS),
        "experts again": verb("experts", run, table, chosen, *NET, *EXPERTS, "--experts.lr", "0.02"),
    }
    for name, words in steps.items():
        told = watched(words)
        last = [line for line in told.pop("output") if not line.startswith("note: ")]
        tell(**{name: told | {"last": last[-1].split(" -> ")[0]}})
    tell(seconds_in_all=time.perf_counter() - started, near_threads=torch.get_num_threads(), near_rows=near.ROWS)


if __name__ == "__main__":
    main()
