"""What do three sites gain by sharing distilled sets? Each alone, the sets merged, all films in one place.

Sites are sources of the cohort: A and B lack classes, C has few films of three of them. As a control the same patients
are dealt to three sites at random. Every arm is measured on the test films of all sites by networks over all classes;
thresholds, and a step size where it says so, are chosen on validation patients of all sites, and nothing else.

    python pipelines/multisite.py                   every arm, then docs/results/multisite.json and multisite.png
    python pipelines/multisite.py --only merged     the arms whose name starts so, for one more core; no table

Options behind a lone -- change the config for every arm, such as -- --threads 4.
"""

import argparse
import platform
from pathlib import Path

import torch
from multisite_figure import multisite_figure, told
from multisite_parts import SITES, by_source, dealt, distilled, films_of, row, session, tuned

from medistill.distill.distilled import Distilled
from medistill.files import write_json
from medistill.release.merge import combine
from medistill.stages.load import load

SEEDS = 3
MERGED = {"merged": tuple(SITES), "dealt merged": tuple(f"dealt {name}" for name in SITES)}
TOGETHER = {"all films at 1 a class": "1", "all films at 2 a class": "2"}


def one_set(arm: str, number: int, more: list[str]) -> Distilled:
    """The distilled set of an arm; no two sites draw the same random numbers."""
    if arm in MERGED:
        names = MERGED[arm]
        return combine([one_set(name, number, more) for name in names], names, "union")
    base = session(*more)
    splits = load(base)
    if arm in TOGETHER:
        return distilled(session("--distill.seed", str(number), "--distill.ipc", TOGETHER[arm], *more), splits.train)
    films = by_source(base, splits) | dealt(base, splits)
    seed = len(films) * (number + 1) + list(films).index(arm)
    return distilled(session("--distill.seed", str(seed), *more), films[arm])


def rows(more: list[str], only: str) -> dict[str, list[dict]]:
    """What networks reach by arm: real films once, sets once for each distillation seed."""
    one = session(*more)
    splits = load(one)
    real = by_source(one, splits) | {"all films": splits.train}
    found = {}
    for arm, films in real.items():
        if arm.startswith(only):
            found[f"{arm}, real"] = [row(one, splits, films.pixels(), films.labels, one.config.evaluate.lr, films)]
    for arm in (*SITES, "merged", *TOGETHER, *MERGED["dealt merged"], "dealt merged"):
        if arm.startswith(only):
            made = [one_set(arm, number, more) for number in range(SEEDS)]
            found[f"{arm}, distilled"] = [row(one, splits, each.images, each.labels, each.lr, each) for each in made]
            if arm in MERGED:
                found[f"{arm}, distilled, step size by validation"] = [tuned(one, splits, each) for each in made]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="arms whose name starts so; writes no table")
    parser.add_argument("more", nargs="*", help="options of medistill for every arm")
    chosen = parser.parse_args()
    found = rows(chosen.more, chosen.only)
    if not chosen.only:
        base = session(*chosen.more)
        machine = f"{platform.machine()}, torch {torch.__version__}, {base.device}, {torch.get_num_threads()} thread"
        result = {"command": "python pipelines/multisite.py", "machine": machine, "films": films_of(base)}
        write_json(Path("docs/results/multisite.json"), result | {"rows": found})
        multisite_figure(found, Path("docs/results/multisite.png"))
    print(told(found))


if __name__ == "__main__":
    main()
