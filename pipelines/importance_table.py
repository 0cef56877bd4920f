"""The table of pipelines/importance.py: means, and differences to MTT over the same seeds."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch

from medistill.evaluate.compare import holm, paired
from medistill.evaluate.evaluation import FULL
from medistill.files import plain

HEAD = (
    "trained on", "sets", "step on W", "balanced accuracy", "AUROC, positive class", "share of full",
    "minus MTT, balanced accuracy [95 %], p (Holm)", "minus MTT, AUROC",
)  # fmt: skip
SHOWN = ("balanced_accuracy", "auroc_macro", "auroc_positive")


def table(rows: Mapping[str, Sequence[dict]]) -> dict:
    """What docs/results/importance.json holds, of rows by DATA/IPC/ARM, an entry of each distillation seed.

    Every arm has the first seeds; of two arms the seeds are compared that both have.
    """
    lines: dict[str, dict] = {}
    for place, seeds in rows.items():
        where, arm = place.rsplit("/", 1)
        runs = {metric: matrix(seeds, metric) for metric in SHOWN}
        lines[place] = {
            "images": seeds[0]["images"],
            "distillation_seeds": len(seeds),
            "training_seeds": len(seeds[0]["runs"]),
            "lr_importance": seeds[0].get("lr_importance"),
            "mean": {metric: float(values.mean()) for metric, values in runs.items()},
            "sd_over_sets": {metric: spread(values.mean(1)) for metric, values in runs.items()},
            "sd_over_networks": {metric: float(values.std(1, ddof=1).mean()) for metric, values in runs.items()},
            "validation": float(np.mean([seed["validation"]["balanced_accuracy"] for seed in seeds])),
            "share_of_full": float(runs["balanced_accuracy"].mean() / full_data(rows, where.split("/")[0])),
        }
        if arm != "MTT" and f"{where}/MTT" in rows:
            lines[place]["against_mtt"] = {
                metric: asdict(paired(*same(values, matrix(rows[f"{where}/MTT"], metric))))
                for metric, values in runs.items()
            }
    weighted = [
        line["against_mtt"]["balanced_accuracy"]
        for place, line in lines.items()
        if "IADD" in place and "against_mtt" in line
    ]
    for one, p in zip(weighted, holm([one["p"] for one in weighted]), strict=True):
        one["p_adjusted"] = p
    machine = f"{platform.machine()}, torch {torch.__version__}, one thread a process"
    return plain({"command": "python pipelines/importance.py", "machine": machine, "rows": lines})


def full_data(rows: Mapping[str, Sequence[dict]], data: str) -> float:
    """The balanced accuracy of networks trained on all films, the same at every budget; NaN where there is none."""
    found = [seeds for place, seeds in rows.items() if place.startswith(f"{data}/") and place.endswith(FULL)]
    return float(matrix(found[0], "balanced_accuracy").mean()) if found else float("nan")


def matrix(seeds: Sequence[dict], metric: str) -> np.ndarray:
    """(D, S) a metric of every network, by distillation seed."""
    return np.array([[run[metric] for run in seed["runs"]] for seed in seeds])


def same(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of (D, S) and (E, S) the seeds that both have."""
    count = min(len(first), len(second))
    return first[:count], second[:count]


def spread(values: np.ndarray) -> float | None:
    """Standard deviation of more than one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def markdown(found: dict) -> str:
    """The tables of docs/importance.md."""
    parts = []
    for where in dict.fromkeys(place.rsplit("/", 1)[0] for place in found["rows"]):
        lines = {
            place.rsplit("/", 1)[1]: line for place, line in found["rows"].items() if place.startswith(f"{where}/")
        }
        data, ipc = where.split("/")
        images = next(line["images"] for name, line in lines.items() if name != FULL)
        parts.append(f"{data}, {ipc} image{'s' * (ipc != '1')} a class ({images}):\n")
        parts.append(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        order = [FULL, "herding", "k-means", "random real", "MTT"]
        parts += [_line(name, lines[name]) for name in [*order, *(n for n in lines if n not in order)] if name in lines]
        parts.append("")
    return "\n".join(parts)


def _line(name: str, line: dict) -> str:
    mean, sets, gaps = line["mean"], line["sd_over_sets"]["balanced_accuracy"], line.get("against_mtt", {})
    shown = {
        metric: f"{gap['difference']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]"
        for metric, gap in gaps.items()
        if gap["low"] is not None and "IADD" in name
    }
    p = gaps.get("balanced_accuracy", {})
    tested = f", {p['p']:.2f} ({p['p_adjusted']:.2f})" if "p_adjusted" in p else ""
    cells = (
        name,
        str(line["distillation_seeds"]),
        "" if line["lr_importance"] is None or name == "MTT" else f"{line['lr_importance']:g}",
        f"{mean['balanced_accuracy']:.3f} ± {line['sd_over_networks']['balanced_accuracy']:.3f}"
        + ("" if sets is None else f" ({sets:.3f})"),
        f"{mean['auroc_positive']:.3f}",
        f"{line['share_of_full']:.2f}",
        shown.get("balanced_accuracy", "") + (tested if shown else ""),
        shown.get("auroc_positive", ""),
    )
    return f"| {' | '.join(cells)} |"
