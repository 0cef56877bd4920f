"""What closes the gap of a start that is no patient's film? Read on validation patients, never on test.

One distillation seed, one image per class, MTT (W off), the budget of pipelines/covid19.py; each row changes
the start, the pixel step, its decay or the averaging.

    python pipelines/covid19_starts.py                    everything, then docs/results/covid19_starts.json
    python pipelines/covid19_starts.py --only noise       the rows whose name starts so, for one more core
"""

import argparse
from pathlib import Path

from covid19 import BUDGETS, session

from medistill.files import write_json
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate, evaluated
from medistill.stages.experts import experts
from medistill.stages.load import load

ROWS = {
    "noise, sd 1": {"start": "noise"},
    "noise, sd 0.3": {"start": "noise", "start_scale": 0.3},
    "noise, sd 1, blurred by 3 px": {"start": "noise", "start_smooth": 3},
    "noise, pixel step 30": {"start": "noise", "lr_images": 30},
    "noise, pixel step 300 with cosine decay": {"start": "noise", "lr_images": 300, "lr_decay": "cosine"},
    "noise, average .98": {"start": "noise", "ema": 0.98},
    "phantom": {"start": "phantom"},
    "phantom, pixel step 30": {"start": "phantom", "lr_images": 30},
    "phantom, pixel step 300 with cosine decay": {"start": "phantom", "lr_images": 300, "lr_decay": "cosine"},
    "phantom, average .98": {"start": "phantom", "ema": 0.98},
    "class mean": {"start": "class_mean"},
    "real": {"start": "real"},
}


def _silent(line: str) -> None:
    """The stages print test figures; this study must not see them."""


def validated(changes: dict, more: list[str]) -> dict[str, float]:
    """Validation metrics, a mean over evaluate.seeds networks."""
    options = [word for name, value in changes.items() for word in (f"--distill.{name}", str(value))]
    common = [*BUDGETS["ipc1"][0], "--distill.seed", "0", "--distill.importance", "off"]
    one = session(*common, *more, *options, "--evaluate.baselines", "false", say=_silent)
    experts(one)
    distill(one)
    evaluate(one)
    arm = evaluated(one, load(one))[1]["arms"]["distilled"]
    return arm["validation"] | {"alpha": arm["lr"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name starts so; writes no table")
    parser.add_argument("more", nargs="*", help="options of medistill for every row")
    chosen = parser.parse_args()
    rows = {name: validated(row, chosen.more) for name, row in ROWS.items() if name.startswith(chosen.only)}
    if not chosen.only:
        write_json(Path("docs/results/covid19_starts.json"), {"validation": rows, "distillation_seeds": 1})
    for name, values in rows.items():
        print(f"{name:44} {values['balanced_accuracy']:.3f} {values['auroc_macro']:.3f}")


if __name__ == "__main__":
    main()
