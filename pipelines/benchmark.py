"""Every method on every data set, at one stated budget, in one table: medistill's own and the published figures.

A plan (benchmark_cpu.yaml, benchmark_gpu.yaml) names data sets, budgets, methods, seeds and, of each method, the one
step size that is chosen on validation images at the first seed. Methods start from the same real images and are
followed by the same students; beside them those start images themselves, k-means, herding and all images.

    python pipelines/benchmark.py                          what is missing of it, then docs/results/benchmark_cpu.*
    python pipelines/benchmark.py --only cifar10/10        these cells alone, for one more core; writes no table
    python pipelines/benchmark.py --table                  run nothing: the table of what is finished
    python pipelines/benchmark.py --plan pipelines/benchmark_gpu.yaml -- --device cuda

MEDISTILL_DATA names the folder of the data. Options behind a lone -- change every cell.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import yaml
from benchmark_table import START, write_tables

from medistill.cli import configure
from medistill.errors import UserError
from medistill.stages.baselines import baselines
from medistill.stages.distill import distill, distilled
from medistill.stages.experts import experts
from medistill.stages.load import load
from medistill.stages.public import Constants
from medistill.stages.session import Session
from medistill.stages.start import start_images
from medistill.stages.students import measure

METRICS = ("accuracy", "balanced_accuracy")


def session(plan: dict, data: str, ipc: int, seed: int, method: dict, more: list[str]) -> Session:
    place = plan["data"][data]
    settings = {
        **plan["common"], **place["settings"], **place["ipc"][ipc], **method["settings"],
        **method.get("at", {}).get(f"{data}/{ipc}", {}), "distill.ipc": ipc, "distill.seed": seed,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in settings.items()]
    return Session(configure("run", ["--config", place["config"], *words, *more]))


def seeds_of(plan: dict, data: str) -> list[int]:
    return plan["data"][data].get("seeds", plan["seeds"])


def row(measured) -> dict:
    arm = measured.arm
    return {
        "images": arm.images,
        "lr": arm.lr,
        "validation": arm.val_summary["balanced_accuracy"][0],
        "runs": [{name: float(run[name]) for name in METRICS} for run in arm.test_runs],
    }


def cell(one: Session, run: bool) -> dict:
    """Distil, and train the students; nothing of it is done twice."""
    for stage in (experts, distill) if run else ():
        stage(one)
    splits = load(one)
    final = distilled(one, splits)[1]
    return row(measure(one, splits, "distilled", final.images, final.labels, final.lr, final.sequence))


def tuned(plan: dict, data: str, ipc: int, method: dict, more: list[str], run: bool) -> tuple[float, dict]:
    """The step size with the best validation images at the first seed, and every step size's figure there."""
    steps = {}
    for step in method["grid"]:
        try:
            one = session(plan, data, ipc, seeds_of(plan, data)[0], at_step(method, step), more)
            steps[step] = cell(one, run)["validation"]
        except UserError as error:
            if "diverge" not in str(error) and "finite" not in str(error) and run:
                raise
    if not steps:
        raise UserError(f"benchmark: no step size of {method['tune']} gave a set that students learn from")
    return max(steps, key=lambda step: steps[step]), steps


def at_step(method: dict, step: float) -> dict:
    return method | {"settings": method["settings"] | {method["tune"]: step}}


def references(one: Session, run: bool) -> dict[str, dict]:
    """What needs no distillation, by name."""
    if run:
        experts(one)
    splits = load(one)
    images, labels = start_images(one, Constants.of(splits.train), splits)
    start = measure(one, splits, START, images, labels, one.config.evaluate.lr)
    return {START: row(start)} | {measured.arm.name: row(measured) for measured in baselines(one, splits)}


def rows(plan: dict, only: str, more: list[str], run: bool) -> Iterator[tuple[str, str, dict]]:
    """Place (DATA/IPC), arm and figures of every cell that is wanted and there."""
    for data, place in plan["data"].items():
        for ipc, (name, method) in product(place["ipc"], plan["methods"].items()):
            where = f"{data}/{ipc}"
            if ipc < method.get("least_ipc", 1) or not f"{where}/{name}".startswith(only):
                continue
            try:
                step, steps = tuned(plan, data, ipc, method, more, run)
                for seed in seeds_of(plan, data):
                    found = cell(session(plan, data, ipc, seed, at_step(method, step), more), run)
                    yield where, name, found | {"seed": seed, method["tune"]: step, "validation_by_step": steps}
            except UserError as error:
                if run:
                    print(f"benchmark: {where}/{name}: {error}", flush=True)
        for ipc, seed in product(place["ipc"], seeds_of(plan, data)):
            if f"{data}/{ipc}/references".startswith(only):
                base = next(iter(plan["methods"].values()))
                try:
                    found = references(session(plan, data, ipc, seed, base, more), run)
                except UserError:
                    continue
                yield from ((f"{data}/{ipc}", name, one | {"seed": seed}) for name, one in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=Path(__file__).with_name("benchmark_cpu.yaml"))
    parser.add_argument("--only", default="", help="DATA/IPC/METHOD or its beginning; writes no table")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("more", nargs="*", help="options of medistill for every cell")
    chosen = parser.parse_args()
    plan = yaml.safe_load(chosen.plan.read_text())
    found = list(rows(plan, chosen.only, chosen.more, not chosen.table))
    if not chosen.only:
        write_tables(Path("docs/results") / chosen.plan.stem, plan, found)


if __name__ == "__main__":
    main()
