"""SGD for experts and students: several networks of one kind, each on its own batches, at flat parameters.

Networks are independent, so on a CPU each is given threads of its own: the small batches of a student and the
many small layers of a ConvNet leave cores waiting when they share out one operation. On a GPU they are stacked.
"""

import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import takewhile
from queue import SimpleQueue

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.kernels import SLOPE_COST, Kernels, earns_compiling
from medistill.nets import Flat
from medistill.resources import Used, watch

STACKED = 10
"""Networks stacked at once, so that memory does not grow with their number."""


@dataclass(frozen=True)
class Lesson:
    """One step of a network: images x (B, C, H, W), label probabilities y (B, K), learning rate; report after it?"""

    x: Tensor
    y: Tensor
    lr: float
    report: bool = False


@dataclass(frozen=True)
class Report:
    """Where a network stands.

    Attributes:
        number: of the network.
        theta: a copy of its parameters, (P,).
        loss: mean over the images since its last report, before their steps.
    """

    number: int
    theta: Tensor
    loss: float


@dataclass(frozen=True)
class Task:
    """What is to be trained.

    Attributes:
        net: the network, on the device and of the type of `starts`.
        starts: parameters of each network, (P,).
        courses: the steps of each; in step with each other: batch sizes, learning rates and reports agree.
        batch: images of a step, at most.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        compiled: whether torch.compile is used.
        of: networks of the whole run, of which these may be some; the way is chosen by it, so that any number of
            processes and any rerun choose alike and end with the same bytes.
        kept: bytes that the caller keeps of each network while it trains.
    """

    net: Flat
    starts: Sequence[Tensor]
    courses: Sequence[Iterator[Lesson]]
    batch: int
    momentum: float
    weight_decay: float = 0.0
    compiled: bool = False
    of: int = 0
    kept: int = 0

    @property
    def count(self) -> int:
        """Networks of the whole run."""
        return max(self.of, len(self.starts))

    def kernels(self, networks: int = 1) -> Kernels:
        """Kernels for that many networks at once."""
        return Kernels(self.net, self.starts[0].device, self.batch, self.compiled, networks)


Way = Callable[[Task], Iterator[Report]]


def train(
    task: Task,
    images: float,
    compiled: bool | None = None,
    rehearsal: Lesson | None = None,
    told: Callable[[Used], None] | None = None,
) -> Generator[Report, None, None]:
    """Train all networks and yield their reports as they come, in the order of each network's steps.

    Which way is chosen depends on the device, the threads and the task alone: on a GPU several networks are
    stacked, on a CPU they run side by side on its threads. docs/engine.md has the measurements.

    Args:
        task: the networks.
        images: images that one network sees in all its steps.
        compiled: whether to compile; None: by `earns_compiling`, on a CPU.
        rehearsal: a step of the usual size, to find out from what all of it will take.
        told: told before the first step what all of it will take; needs a rehearsal.
    """
    if not task.starts:
        return
    several = task.count > 1
    on_cpu = task.starts[0].device.type == "cpu"
    if compiled is None:
        compiled = on_cpu and earns_compiling(task.net, images * task.count, SLOPE_COST)
    task = replace(task, compiled=compiled)
    way: Way = one_by_one
    at_once = 1
    if several and not on_cpu and task.net.per_instance:
        way, at_once = stacked, STACKED
    elif several and on_cpu and torch.get_num_threads() > 1:
        way, at_once = side_by_side, _workers(task.count)
    if rehearsal and told:
        told(_rehearse(task, way, at_once, rehearsal, images / task.batch))
    yield from way(task)


def _rehearse(task: Task, way: Way, at_once: int, lesson: Lesson, steps: float) -> Used:
    """What training all networks for so many steps will take, from three steps of as many as are worked at once."""
    starts = task.starts[:at_once]

    def run(count: int) -> None:
        few = replace(task, starts=starts, courses=[iter([lesson] * count) for _ in starts], of=task.count)
        for _ in way(few):
            pass

    device = starts[0].device
    with watch(device) as everything:
        run(1)  # warms up and compiles
        with watch(device, memory=False) as three:
            run(3)
    rounds = math.ceil(len(task.starts) / len(starts))
    kept = task.kept * (len(starts) + 1)  # and one that is being handed over
    held = None if everything.bytes is None else everything.bytes + kept
    return Used(three.seconds / 3 * steps * rounds, held)


def one_by_one(task: Task) -> Iterator[Report]:
    """Train one network after another."""
    kernels = task.kernels()
    for number in range(len(task.starts)):
        yield from _follow(task, number, kernels, task.courses[number])


def side_by_side(task: Task) -> Iterator[Report]:
    """Train each network in a thread of its own, which has its share of the CPU's threads.

    Up to twice as many networks as threads run all at once, so that none of them waits for a round of its own.
    """
    threads, workers = torch.get_num_threads(), _workers(task.count)
    each = max(1, threads // task.count)
    kernels, waiting = task.kernels(workers), len(task.starts)
    stop = threading.Event()
    told: SimpleQueue[Report | BaseException | None] = SimpleQueue()

    def work(number: int) -> None:
        try:
            course = takewhile(lambda _: not stop.is_set(), task.courses[number])
            for report in _follow(task, number, kernels.for_another_thread(), course):
                told.put(report)
            told.put(None)
        except BaseException as error:
            told.put(error)

    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,))
    try:
        for number in range(waiting):
            pool.submit(work, number)
        while waiting:
            report = told.get()
            if isinstance(report, BaseException):
                raise report
            if report is None:
                waiting -= 1
            else:
                yield report
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        # a worker's number is also what threads to come would begin with
        torch.set_num_threads(threads)


def _workers(count: int) -> int:
    """How many of so many networks run side by side."""
    threads = torch.get_num_threads()
    return count if count < 2 * threads else threads


def stacked(task: Task) -> Iterator[Report]:
    """Train networks in groups, each step of a group one computation."""
    for first in range(0, len(task.starts), STACKED):
        thetas = torch.stack(tuple(task.starts[first : first + STACKED]))  # (N, P)
        kernels = task.kernels(len(thetas))
        velocity, total, seen = torch.zeros_like(thetas), torch.zeros(len(thetas), dtype=torch.float64), 0
        total = total.to(thetas.device)
        for lessons in zip(*task.courses[first : first + STACKED], strict=True):
            slopes, losses = kernels.descents(thetas, [step.x for step in lessons], [step.y for step in lessons])
            _step(thetas, velocity, slopes, lessons[0].lr, task)
            total += losses.double() * len(lessons[0].x)
            seen += len(lessons[0].x)
            if lessons[0].report:
                for number, (theta, loss) in enumerate(zip(thetas, (total / seen).tolist(), strict=True), first):
                    yield Report(number, theta.clone(), loss)
                seen = 0
                total.zero_()


def _follow(task: Task, number: int, kernels: Kernels, course: Iterator[Lesson]) -> Iterator[Report]:
    """Train one network."""
    theta = task.starts[number].clone()
    velocity, seen = torch.zeros_like(theta), 0
    total = torch.zeros((), dtype=torch.float64, device=theta.device)
    for step in course:
        slope, loss = kernels.descent(theta, step.x, step.y)
        _step(theta, velocity, slope, step.lr, task)
        total += loss.double() * len(step.x)
        seen += len(step.x)
        if step.report:
            yield Report(number, theta.clone(), total.item() / seen)
            seen = 0
            total.zero_()


def _step(theta: Tensor, velocity: Tensor, slope: Tensor, lr: float, task: Task) -> None:
    """One step of torch.optim.SGD without dampening, in place."""
    velocity.mul_(task.momentum).add_(slope.add(theta, alpha=task.weight_decay))
    theta.sub_(velocity, alpha=lr)


def probabilities(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """Label probabilities (N, K) of classes (N,) int64 or probabilities (N, K), of the type and device of `like`."""
    return (labels if labels.is_floating_point() else F.one_hot(labels, classes)).to(like)
