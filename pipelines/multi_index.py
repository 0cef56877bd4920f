"""What does distillation store of data that depend on few directions, and in how many floats?

Multi-index data of r directions in d dimensions, a two-layer network of width L, M distilled samples: the share of the
inputs' energy in row(B), and the test error of students from fresh starts over the floats M (d + 1) that are stored.
Theory (Kinoshita, Nishikawa, Toyoizumi, arXiv 2603.14830) names r^2 d + L; this is a testbed, not their algorithm.

    python pipelines/multi_index.py            every cell, then docs/results/multi_index.json and figures
    python pipelines/multi_index.py --table    run nothing: the table of the cells that are finished
    python pipelines/multi_index.py --quick    a small one in seconds, to runs/multi_index/quick
"""

import argparse
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

import torch
from multi_index_distil import Settings, descend, distil, error, errors
from multi_index_figure import draw
from multi_index_model import NOISE, Problem, Samples, TwoLayer, energy
from multi_index_table import table

from medistill.files import digest_of, read_json, write_json
from medistill.seeds import generator

RUNS, RESULTS = Path("runs/multi_index"), Path("docs/results")


@dataclass(frozen=True)
class Study:
    """Problems (d, r, L), sizes M and seeds; the first problem is also distilled by matching trajectories."""

    problems: Sequence[tuple[int, int, int]]
    sizes: Sequence[int]
    seeds: int
    settings: Settings = field(default_factory=Settings)

    def cells(self) -> Iterator[dict]:
        arms = [("loss", self.problems), ("trajectory", self.problems[:1])]
        for algorithm, problems in arms:
            for size, seed, (d, r, width) in product(self.sizes, range(self.seeds), problems):
                yield {"d": d, "r": r, "L": width, "M": size, "seed": seed, "algorithm": algorithm}


FULL = Study(
    [(16, 2, 64), (8, 2, 64), (32, 2, 64), (16, 1, 64), (16, 3, 64), (16, 2, 32), (16, 2, 128)], (2, 4, 8, 16), 3
)
QUICK = Study([(8, 1, 16)], (1, 4), 2, Settings(iterations=20, inner_steps=10, experts=3, expert_steps=30, students=2))
GRID = tuple(product((0.05, 0.1, 0.2), (20, 100)))
"""Step sizes and numbers of steps, of which real samples get the best on validation samples."""


@cache
def problem(d: int, r: int, seed: int) -> Problem:
    return Problem.draw(d, r, seed)


def on_real(net: TwoLayer, samples: Samples, one: Problem, settings: Settings, seed: int) -> list[float]:
    """Test errors of students trained on real samples, by the recipe that did best on validation samples."""
    recipes = [replace(settings, alpha=alpha, inner_steps=steps) for alpha, steps in GRID]
    best = min(recipes, key=lambda recipe: sum(errors(net, samples, one, "validation", recipe, seed)))
    return errors(net, samples, one, "test", best, seed)


@cache
def on_all(d: int, r: int, width: int, seed: int) -> float:
    """The test error of a network trained on all real samples, of five moments the best on validation samples."""
    one, net = problem(d, r, seed), TwoLayer(d, width)
    ends = [net.start(generator(seed, "all"))]
    for _ in range(5):
        ends.append(descend(net, ends[-1], one.splits["train"], 0.1, 100))
    return error(net, min(ends, key=lambda end: error(net, end, one.splits["validation"])), one.splits["test"])


def measured(cell: dict, settings: Settings) -> dict:
    """A cell with what was found: energy in row(B), and errors by what students were trained on."""
    d, r, width, size, seed = (cell[name] for name in ("d", "r", "L", "M", "seed"))
    one, net = problem(d, r, seed), TwoLayer(d, width)
    small = distil(net, one, size, cell["algorithm"], settings, seed)
    x, y = one.splits["train"]
    chosen = torch.randperm(len(x), generator=generator(seed, "random real"))[:size]
    return cell | {
        "floats": size * (d + 1),
        "energy": energy(small[0], one.directions),
        "distilled": errors(net, small, one, "test", settings, seed),
        "random real": on_real(net, (x[chosen], y[chosen]), one, settings, seed),
        "all real": on_all(d, r, width, seed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--quick", action="store_true", help="small problems, to runs/multi_index/quick")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    study, results = (QUICK, RUNS / "quick") if chosen.quick else (FULL, RESULTS)
    rows = []
    for cell in study.cells():
        name = "-".join(str(value) for value in cell.values())
        file = RUNS / f"{name}-{digest_of(asdict(study.settings))[:8]}.json"
        if not file.exists() and not chosen.table:
            write_json(file, measured(cell, study.settings))
        if file.exists():
            rows.append(read_json(file))
            print(f"{name}: {rows[-1]['energy']:.2f} of the energy", flush=True)
    machine = f"{platform.machine()}, torch {torch.__version__}, one thread"
    found = {"machine": machine, "settings": asdict(study.settings), "noise": NOISE**2, "rows": table(rows)}
    write_json(results / "multi_index.json", {"command": "python pipelines/multi_index.py", **found})
    draw(found["rows"], NOISE**2, results)


if __name__ == "__main__":
    main()
