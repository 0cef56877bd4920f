"""Does weighting the network's parameters help on chest films, by how much, and where?

MTT (every weight 1) against IADD with its weights descending (guarded), descending as written (literal) and ascending
(capped), one a parameter, a channel or a tensor, from phantoms, at one budget; beside them real films drawn at random,
by k-means and by herding, and all of them. Every arm has the same experts, distillation seeds and training seeds.

    python pipelines/importance.py                             everything, then docs/results/importance.json and .png
    python pipelines/importance.py --only cxr/1                a data set's arms of one budget, for one more core
    python pipelines/importance.py --only cxr/1 --seed 0 --share 1/3     every third from the second, of one seed
    python pipelines/importance.py --table                     run nothing: the table of what is finished

The step size on the weights is the one of STEPS that was best on validation films at one image a class (seed 0).
MEDISTILL_DATA names the folder that holds cxr/ and medmnist/. Options behind a lone -- change every arm.
"""

import argparse
from itertools import product
from pathlib import Path

from importance_table import markdown, table

from medistill.cli import configure
from medistill.errors import UserError
from medistill.files import write_json
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate, evaluated
from medistill.stages.experts import experts
from medistill.stages.load import load
from medistill.stages.session import Session

CONFIGS = {"cxr": "configs/covid19.yaml", "pneumoniamnist": "configs/pneumoniamnist.yaml"}
ALL = [("off", "scalar"), *product(("descend", "literal", "ascend"), ("scalar", "channel", "tensor"))]
FEW = [("off", "scalar"), ("descend", "scalar"), ("descend", "tensor"), ("ascend", "scalar")]
LARGE = ["--distill.iterations", "60", "--distill.batch", "20"]
BUDGETS = {"1": (["--distill.iterations", "100"], ALL), "5": (LARGE, FEW), "10": (LARGE, FEW)}
SEEDS = (0, 1)
STEPS = (10.0, 100.0)


def session(data: str, ipc: str, importance: str, granularity: str, step: float, seed: int, more: list[str]) -> Session:
    words = ["--config", CONFIGS[data], "--distill.ipc", ipc, *BUDGETS[ipc][0], "--distill.start", "phantom"]
    words += ["--distill.importance", importance, "--distill.granularity", granularity, "--distill.seed", str(seed)]
    baselines = str(importance == "off").lower()
    return Session(
        configure("run", [*words, "--distill.lr_importance", str(step), "--evaluate.baselines", baselines, *more])
    )


def measured(one: Session, run: bool) -> dict:
    """The arms of an evaluation; a UserError when it is not made and not to be run."""
    for stage in (experts, distill, evaluate) if run else ():
        stage(one)
    return evaluated(one, load(one))[1]["arms"]


def step_of(data: str, importance: str, granularity: str, more: list[str], run: bool) -> float:
    """The step size on W, chosen on validation films at one image a class; `literal` takes that of `descend`."""
    if importance == "off":
        return STEPS[0]
    importance = "descend" if importance == "literal" else importance
    arms = {step: measured(session(data, "1", importance, granularity, step, SEEDS[0], more), run) for step in STEPS}
    return max(STEPS, key=lambda step: arms[step]["distilled"]["validation"]["balanced_accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="DATA or DATA/IPC; writes no table")
    parser.add_argument("--seed", type=int, help="one distillation seed; writes no table")
    parser.add_argument("--share", default="0/1", help="every n-th arm from the r-th: r/n; writes no table")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("more", nargs="*", help="options of medistill for every arm")
    chosen = parser.parse_args()
    rank, ranks = map(int, chosen.share.split("/"))
    rows: dict[str, list] = {}
    for data, seed, (ipc, (_, arms)) in product(CONFIGS, SEEDS, BUDGETS.items()):
        if chosen.only not in ("", data, f"{data}/{ipc}") or chosen.seed not in (None, seed):
            continue
        for importance, granularity in arms[rank::ranks]:
            try:
                step = step_of(data, importance, granularity, chosen.more, not chosen.table)
                found = measured(session(data, ipc, importance, granularity, step, seed, chosen.more), not chosen.table)
            except UserError:
                if not chosen.table:
                    raise
                continue
            name = "MTT" if importance == "off" else f"IADD {importance} {granularity}"
            for arm, row in found.items():
                where = f"{data}/{ipc}/{name if arm == 'distilled' else arm}"
                rows.setdefault(where, []).append(row | ({"lr_importance": step} if arm == "distilled" else {}))
    if not chosen.only and chosen.seed is None and ranks == 1:
        found = table(rows)
        write_json(Path("docs/results/importance.json"), found)
        print(markdown(found))


if __name__ == "__main__":
    main()
