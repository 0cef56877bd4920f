"""Accuracy against leakage: a start from real films at several pixel steps and iterations, beside starts without.

Every arm is configs/covid19.yaml at one image a class with a few settings changed and the quick audit; the experts are
shared. A small pixel step leaves the start films as they were: checks 1 and 2 must see them.

    python pipelines/leakage.py                 everything, then docs/results/leakage.json and leakage.png
    python pipelines/leakage.py --only real-1   the arms whose name starts so, for one more core

Options behind a lone -- change the config for every arm, such as -- --device cuda.
"""

import argparse
import platform
from pathlib import Path

import torch

from medistill.cli import configure
from medistill.files import write_json
from medistill.report.leakage import leakage_figure
from medistill.stages.audit import audit, audited
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate, evaluated
from medistill.stages.experts import experts
from medistill.stages.load import load
from medistill.stages.session import Session

SEEDS = 2
ARMS = {
    f"real-{step}-{iterations}": ("real", step, iterations) for step in (1, 10, 100, 1000) for iterations in (50, 200)
} | {"noise-100-200": ("noise", 100, 200), "phantom-100-200": ("phantom", 100, 200)}


def row(one: Session) -> dict:
    """What networks reach on test films, and what the checks found."""
    distill(one)
    evaluate(one)
    audit(one)
    splits = load(one)
    report, arm = audited(one, splits)[1], evaluated(one, splits)[1]["arms"]["distilled"]
    near, start = (next(check for check in report["checks"] if check["number"] == number) for number in (1, 2))
    # without a start film there is none to find
    named = start["statistic"]["rank_1"]["share"] if start["statistic"] else 0.0
    leak = {"1": near["statistic"]["fired"] / near["statistic"]["synthetic"], "2": named}
    told = ("name", "verdict", "power", "interval", "explanation")
    checks = {str(check["number"]): {key: check[key] for key in told} for check in (near, start)}
    return {"mean": arm["mean"], "interval": arm["interval"], "leak": leak, "checks": checks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="arms whose name starts so; writes no table")
    parser.add_argument("more", nargs="*", help="options of medistill for every arm")
    chosen = parser.parse_args()
    rows: dict[str, list[dict]] = {}
    for name, (start, step, iterations) in ARMS.items():
        for seed in range(SEEDS) if name.startswith(chosen.only) else ():
            options = ["--distill.start", start, "--distill.lr_images", str(step), "--distill.seed", str(seed),
                       "--distill.iterations", str(iterations), "--evaluate.baselines", "false"]  # fmt: skip
            one = Session(configure("run", ["--config", "configs/covid19.yaml", *options, *chosen.more]))
            experts(one)
            rows.setdefault(name, []).append(row(one))
    if not chosen.only:
        machine = f"{platform.machine()}, torch {torch.__version__}, {one.device}"
        result = {"command": "python pipelines/leakage.py", "machine": machine, "rows": rows}
        write_json(Path("docs/results/leakage.json"), result)
        leakage_figure(rows, Path("docs/results/leakage.png"))


if __name__ == "__main__":
    main()
