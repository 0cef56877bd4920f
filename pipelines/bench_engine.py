"""How fast and how hungry is the engine beside the field's own loop?

The reference is trajectory matching as the papers' code writes it: autograd through the whole unroll with
`create_graph`, experts from a DataLoader, one student after another. Speeds are interleaved in one process
(median of repeats), memory is that of a fresh process each: the peak less what data and model took. Images are
noise: nothing here depends on their content.

    make bench                                         every part in a process of its own
    python pipelines/bench_engine.py --parts experts   one; replaces its rows in docs/results/bench_engine_<device>.json

A process that once held gigabytes keeps them: the reference's loops then run without page faults, up to half as fast
again. A training alone has no such past, so each part has its own process.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from reference import mtt_step, tesla_step, train_expert, train_student

from medistill import augment, seeds
from medistill.config import Distill, Experts
from medistill.data import phantom
from medistill.distill.iadd import rehearse
from medistill.distill.state import State
from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.evaluate.student import Recipe, fit_all, predict
from medistill.experts.train import train_experts
from medistill.files import read_json, write_json
from medistill.kernels import Kernels
from medistill.nets import Architecture, Flat, flatten
from medistill.resources import watch

CIFAR = Architecture("convnet", 3, 10, 32, 128, 3)
FILM = Architecture("convnet", 1, 4, 112, 128, 5)


@dataclass(frozen=True)
class Cell:
    """A distillation: network, images M, inner steps J, images an inner step (0: all), step size.

    `fits` tells whether J graphs of the reference fit into the memory of a machine.
    """

    architecture: Architecture
    images: int
    inner_steps: int
    batch: int
    alpha: float
    fits: bool = True

    @property
    def short(self) -> int:
        """Inner steps whose graphs fit; where J do not, the speed of a step is that of a short unroll."""
        return self.inner_steps if self.fits else 2


CELLS = {
    "CIFAR-10 ipc 1": Cell(CIFAR, 10, 50, 0, 0.01),
    "CIFAR-10 ipc 10": Cell(CIFAR, 100, 30, 0, 0.001),
    "CIFAR-10 ipc 50, minibatch 100": Cell(CIFAR, 500, 30, 100, 0.001),
    "COVID 112 px ipc 10": Cell(FILM, 40, 40, 0, 0.001, fits=False),
}


STUDENTS, STUDENT_STEPS = 20, 300
"""Of the comparison of accuracies."""

PARTS = ("distill", "experts", "students", "rest")


@dataclass(frozen=True)
class Problem:
    """What both sides are given: everything on one device."""

    cell: Cell
    device: torch.device
    net: Flat
    start: torch.Tensor
    target: torch.Tensor
    images: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def make(cls, cell: Cell, device: torch.device, dtype: torch.dtype = torch.float32) -> "Problem":
        a, g = cell.architecture, seeds.generator(0, "bench")
        start = flatten(a.build(g)).to(device, dtype)
        target = start + 0.01 * torch.randn(start.shape, generator=g).to(device, dtype)
        images = torch.randn(cell.images, a.channels, a.size, a.size, generator=g).to(device, dtype)
        labels = torch.eye(a.classes, device=device, dtype=dtype)[torch.arange(cell.images) % a.classes]
        return cls(cell, device, Flat(a).to(device, dtype), start, target, images, labels)

    def kernels(self, compiled: bool = True) -> Kernels:
        return Kernels(self.net, self.device, self.cell.batch or self.cell.images, compiled)

    def reference(self, inner_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradient in images and step size, by autograd through the unroll."""
        return mtt_step(self.net, *self._inputs, self.alpha(), self.steps(inner_steps))

    def ours(self, kernels: Kernels, inner_steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The same by the sweep."""
        ones = torch.ones_like(self.start)
        m = matching_gradient(kernels, *self._inputs, self.alpha(), ones, self.steps(inner_steps))
        return m.images, m.alpha

    def tesla(self, kernels: Kernels, inner_steps: int) -> torch.Tensor:
        return tesla_step(kernels, *self._inputs, self.alpha(), self.steps(inner_steps))

    @property
    def _inputs(self) -> tuple[torch.Tensor, ...]:
        return self.start, self.target, self.images, self.labels

    def steps(self, count: int):
        return draw_steps(
            self.cell.images, self.cell.batch, count, augment.OPERATIONS, seeds.generator(0, "bench steps")
        )

    def alpha(self) -> torch.Tensor:
        return torch.tensor(self.cell.alpha, device=self.device, dtype=self.start.dtype)


def interleaved(*calls, device: torch.device, repeats: int) -> list[float]:
    """Median seconds of each call, taking turns after one call each to warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(repeats):
        for call, taken in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


def in_a_fresh_process(name: str, device: str, side: str, inner_steps: int) -> dict:
    """What one side's first iteration takes in a process of its own; compiling is part of it."""
    words = [sys.executable, __file__, "--child", json.dumps([name, device, side, inner_steps])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(name: str, device_name: str, side: str, inner_steps: int) -> None:
    p = Problem.make(CELLS[name], torch.device(device_name))
    flat = 4 * len(p.start)
    found = {"parameters": flat}
    if side == "told":
        settings = Distill(inner_steps=inner_steps, batch=p.cell.batch, importance="off")
        state, kernels = State.begin(p.images, p.labels, len(p.start), settings), p.kernels()
        told = rehearse(kernels, state, settings)
        with watch(p.device, memory=False) as took:
            p.ours(kernels, inner_steps)
        found |= {"bytes": told.bytes, "seconds": told.seconds, "took": took.seconds}
    else:
        with watch(p.device) as used:
            if side == "reference":
                p.reference(inner_steps)
            else:
                p.ours(p.kernels(), inner_steps)
        found["bytes"] = used.bytes
    print(json.dumps(found))


def distill_speed(name: str, device: torch.device, repeats: int) -> list[dict]:
    cell = CELLS[name]
    p = Problem.make(cell, device)
    kernels = p.kernels()
    j = cell.short
    slow, fast = interleaved(partial(p.reference, j), partial(p.ours, kernels, j), device=device, repeats=repeats)
    return [row(name, device, "distill_speed", j / slow, j / fast, "inner steps a second", fast_is_good=True)]


def distill_memory(name: str, device: torch.device) -> list[dict]:
    cell = CELLS[name]
    peak = partial(in_a_fresh_process, name, device.type)
    if cell.fits:
        reference, ours = (peak(side, cell.inner_steps)["bytes"] for side in ("reference", "ours"))
        return [row(name, device, "distill_memory", reference, ours, "bytes")]
    one, two, ours = peak("reference", 1)["bytes"], peak("reference", 2)["bytes"], peak("ours", 2)
    reference = one + (cell.inner_steps - 1) * (two - one)
    needed = ours["bytes"] + (cell.inner_steps - 2) * ours["parameters"]
    return [row(name, device, "distill_memory", reference, needed, "bytes; extrapolated from J 1 and 2")]


def experts_speed(device: torch.device, repeats: int) -> list[dict]:
    count, size = (10, 5000) if device.type == "cuda" else (4, 1024)
    settings = Experts(count=count, epochs=2 if device.type == "cuda" else 1, batch=256, augment=[*augment.OPERATIONS])
    compiled = device.type == "cpu"  # as the full epochs would be
    generator = seeds.generator(0, "bench experts")
    images = torch.randn(size, 3, 32, 32, generator=generator).to(device)
    labels = torch.randint(10, (size,), generator=generator).to(device)

    def reference():
        for index in range(count):
            train_expert(images, labels, CIFAR, settings, index)

    def ours():
        for _ in train_experts(images, labels, CIFAR, settings, 0, range(count), compiled=compiled):
            pass

    slow, fast = interleaved(reference, ours, device=device, repeats=repeats)
    epochs = count * settings.epochs
    name = f"CIFAR-10, {count} experts, batch 256"
    return [row(name, device, "experts_speed", epochs / slow, epochs / fast, "epochs a second", fast_is_good=True)]


def evaluate_speed(ipc: int, device: torch.device, repeats: int) -> list[dict]:
    recipe, students = Recipe(steps=300 if device.type == "cuda" else 300 // ipc, batch=256), 5
    compiled = device.type == "cpu"  # as the full number of steps would be
    generator = seeds.generator(0, "bench students")
    images = torch.randn(10 * ipc, 3, 32, 32, generator=generator).to(device)
    labels = torch.arange(10, device=device).repeat(ipc)

    def reference():
        for index in range(students):
            train_student(images, labels, CIFAR, recipe, index)

    def ours():
        generators = [seeds.generator(0, "student", index) for index in range(students)]
        for _ in fit_all(images, labels, CIFAR, 0.01, recipe, generators, device, compiled=compiled):
            pass

    slow, fast = (seconds / recipe.steps for seconds in interleaved(reference, ours, device=device, repeats=repeats))
    name = f"CIFAR-10 ipc {ipc}, {students} students"
    return [row(name, device, "evaluate_speed", 1 / slow, 1 / fast, "steps of all a second", fast_is_good=True)]


def accuracies(device: torch.device) -> dict:
    """Accuracy of students trained by either loop, over seeds: mean and standard error, on phantom films."""
    architecture = Architecture("convnet", channels=1, classes=3, size=32, width=32, depth=3)
    recipe = Recipe(steps=STUDENT_STEPS, batch=256)
    (images, labels), (test, truth) = (phantom.films(count, 32, seed) for count, seed in ((10, 0), (200, 1)))
    images, labels, test = ((t - 0.5) / 0.25 if t.is_floating_point() else t for t in (images, labels, test))
    images, labels = images.to(device), labels.to(device)
    generators = [seeds.generator(0, "student", index) for index in range(STUDENTS)]
    compiled = device.type == "cpu"  # as full runs are
    ours = fit_all(images, labels, architecture, 0.01, recipe, generators, device, compiled=compiled)
    sides = {
        "reference": [train_student(images, labels, architecture, recipe, i) for i in range(STUDENTS)],
        "ours": [module for _, module in ours],
    }
    found: dict = {"seeds": STUDENTS, "images": len(images), "test": len(test)}
    for side, modules in sides.items():
        right = [(predict(module, test, device).argmax(1) == truth).double().mean().item() for module in modules]
        found[side] = {"mean": statistics.mean(right), "standard_error": statistics.stdev(right) / STUDENTS**0.5}
    return found


def flatness(device: torch.device) -> dict:
    """Peak at J 20 and J 200, less the stored parameters."""
    name = next(iter(CELLS))
    peaks = {}
    for j in (20, 200):
        told = in_a_fresh_process(name, device.type, "ours", j)
        peaks[f"J {j}"] = told["bytes"] - j * told["parameters"]
    return peaks | {"ratio": peaks["J 200"] / peaks["J 20"]}


def gradients(device: torch.device) -> list[dict]:
    """Cosine and length of pixel gradients beside the exact one, in float64, at ipc 1."""
    cell, rows = CELLS["CIFAR-10 ipc 1"], []
    exact_p, p = Problem.make(cell, device, torch.float64), Problem.make(cell, device)
    exact_k, kernels = exact_p.kernels(compiled=False), p.kernels()
    for j in (5, 20, 50):
        exact = exact_p.ours(exact_k, j)[0].flatten()
        for side, found in (("ours", p.ours(kernels, j)[0]), ("TESLA", p.tesla(kernels, j))):
            found = found.flatten().double()
            cosine = F.cosine_similarity(found, exact, 0).item()
            rows.append({"J": j, "side": side, "cosine": cosine, "length": (found.norm() / exact.norm()).item()})
    return rows


def estimates(name: str, device: torch.device) -> dict:
    """What is told before the work starts, beside what an iteration then takes; memory in a fresh process each."""
    told, took = (in_a_fresh_process(name, device.type, side, CELLS[name].short) for side in ("told", "ours"))
    return {
        "cell": name,
        "told_s": told["seconds"],
        "took_s": told["took"],
        "told_bytes": told["bytes"],
        "took_bytes": took["bytes"],
    }


def row(cell: str, device: torch.device, measure: str, reference: float, ours: float, unit: str, fast_is_good=False):
    ratio = ours / reference if fast_is_good else reference / ours
    found = {"cell": cell, "device": device.type, "measure": measure, "reference": reference, "ours": ours}
    print(f"{cell:32} {measure:16} {reference:12.4g} {ours:12.4g} {ratio:6.2f}  {unit}", flush=True)
    return found | {"ratio": ratio, "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=PARTS, help=f"any of {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(*json.loads(chosen.child))
        return
    device = torch.device(chosen.device)
    file = Path(f"docs/results/bench_engine_{device.type}.json")
    result = read_json(file) if file.exists() else {"rows": []}
    print(f"{'':32} {'':16} {'reference':>12} {'ours':>12}  ratio (above 1: ours is better)")
    rows = []
    if "distill" in chosen.parts:
        for name in CELLS:
            rows += distill_memory(name, device) + distill_speed(name, device, chosen.repeats)
    if "experts" in chosen.parts:
        rows += experts_speed(device, chosen.repeats)
    if "students" in chosen.parts:
        rows += evaluate_speed(1, device, chosen.repeats) + evaluate_speed(10, device, chosen.repeats)
    if "rest" in chosen.parts:
        result["flat"], result["gradient"] = flatness(device), gradients(device)
        result["estimates"] = [estimates(name, device) for name in CELLS]
        result["accuracy"] = accuracies(device)
        for key in ("flat", "gradient", "estimates", "accuracy"):
            print(key, json.dumps(result[key]))
    rows = [row | {"repeats": chosen.repeats} for row in rows]
    fresh = {(row["cell"], row["measure"]) for row in rows}
    result["rows"] = [row for row in result["rows"] if (row["cell"], row["measure"]) not in fresh] + rows
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    result["machine"] = f"{platform.machine()}, {where}, torch {torch.__version__}"
    result["command"] = "make bench"
    write_json(file, result)


if __name__ == "__main__":
    main()
