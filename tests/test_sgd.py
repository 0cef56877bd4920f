"""SGD on several networks: each way against torch.optim.SGD, and who works where."""

import copy
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medistill import kernels, seeds, sgd
from medistill.nets import Architecture, Flat, flatten
from medistill.resources import Used
from medistill.sgd import Lesson, Task

ARCHITECTURE = Architecture("convnet", 2, 3, 16, 6, 2)
NETWORKS, STEPS = 5, 20


def batches(number, dtype):
    """The steps of a network: batches of 7, every fifth of 3; the learning rate falls; reports after 10 and 20."""
    g = seeds.generator(0, "sgd", number)
    for step in range(1, STEPS + 1):
        size = 3 if step % 5 == 0 else 7
        x = torch.randn(size, 2, 16, 16, generator=g).to(dtype)
        y = torch.randn(size, 3, generator=g).softmax(1).to(dtype)
        yield Lesson(x, y, 0.1 if step < 12 else 0.01, report=step % 10 == 0)


def smooth(module):
    """SiLU for ReLU: in float32 a unit at the kink falls on either side of it, whichever way is taken."""
    module[2] = module[6] = nn.SiLU()
    return module


def modules(dtype):
    return [smooth(ARCHITECTURE.build(seeds.generator(1, "sgd", n))).to(dtype) for n in range(NETWORKS)]


def task(dtype, compiled=False):
    net = Flat(ARCHITECTURE)
    smooth(net.module)
    starts = [flatten(module) for module in modules(dtype)]
    courses = [batches(number, dtype) for number in range(NETWORKS)]
    return Task(net.to(torch.device("cpu"), dtype), starts, courses, 7, 0.9, 5e-3, compiled)


def by_torch(dtype):
    """(network, step) -> parameters and mean loss since the last report."""
    expected = {}
    for number, module in enumerate(modules(dtype)):
        optimizer = torch.optim.SGD(module.parameters(), lr=0, momentum=0.9, weight_decay=5e-3)
        total, seen = 0.0, 0
        for step, lesson in enumerate(batches(number, dtype), start=1):
            optimizer.param_groups[0]["lr"] = lesson.lr
            loss = F.cross_entropy(module(lesson.x), lesson.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, seen = total + loss.item() * len(lesson.x), seen + len(lesson.x)
            if lesson.report:
                expected[number, step] = (flatten(module), total / seen)
                total, seen = 0.0, 0
    return expected


def agree(way, dtype, within, compiled=False):
    expected, steps = by_torch(dtype), [0] * NETWORKS
    for report in way(task(dtype, compiled)):
        steps[report.number] += 10
        theta, loss = expected.pop((report.number, steps[report.number]))
        assert (report.theta - theta).norm() < within * theta.norm()
        assert report.loss == pytest.approx(loss, rel=within)
    assert not expected


@pytest.mark.parametrize("pieces", [1, 3, 100])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("way", [sgd.one_by_one, sgd.side_by_side, sgd.stacked])
def test_every_way_equals_torch_sgd(monkeypatch, way, dtype, within, pieces):
    torch.set_num_threads(2)
    monkeypatch.setitem(kernels.PIECE_BYTES, "cpu", pieces * Flat(ARCHITECTURE).widest)
    monkeypatch.setattr(sgd, "STACKED", 2)
    agree(way, dtype, within)
    with ThreadPoolExecutor(1) as later:
        assert torch.get_num_threads() == later.submit(torch.get_num_threads).result() == 2


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.parametrize("way", [sgd.one_by_one, sgd.side_by_side, sgd.stacked])
def test_compiled_ways_equal_torch_sgd(way):
    """Guards compiled experts and students (about 30 s of compiling)."""
    torch.set_num_threads(2)
    agree(way, torch.float32, 1e-5, compiled=True)


def compiled_functions(monkeypatch):
    """A list that grows with every function that would be compiled from now on."""
    asked = []

    def remember(net, function, *_arguments):
        asked.append(1)
        return lambda *inputs: function(copy.deepcopy(net), *inputs)

    monkeypatch.setattr(kernels, "_compile", remember)
    monkeypatch.setattr(kernels, "COMPILER", kernels.Compiler())
    return asked


def workers(threads, networks=NETWORKS, **choice):
    """The threads that fetch the steps, by name."""
    torch.set_num_threads(threads)
    seen = set()

    def watched(course):
        for lesson in course:
            seen.add(threading.current_thread().name)
            yield lesson

    t = task(torch.float32)
    t = Task(t.net, t.starts[:networks], [watched(c) for c in t.courses[:networks]], 7, 0.9)
    assert len(list(sgd.train(t, **choice))) == 2 * networks
    return seen


def test_the_way_depends_on_threads_networks_and_length(monkeypatch):
    main = {threading.current_thread().name}
    assert len(workers(2, images=1) - main) == 2
    assert len(workers(4, images=1) - main) == 5
    assert workers(2, networks=1, images=1) == workers(1, images=1) == main
    asked = compiled_functions(monkeypatch)
    assert workers(1, images=1e9) == main and len(asked) == 1
    asked = compiled_functions(monkeypatch)
    assert len(workers(2, images=1e9) - main) == 2 and len(asked) == 1  # once for all threads
    assert len(workers(2, images=1, compiled=True) - main) == 2 and len(asked) == 1  # and for good
    asked = compiled_functions(monkeypatch)
    assert len(workers(2, images=1e9, compiled=False) - main) == 2 and not asked
    assert list(sgd.train(Task(task(torch.float32).net, [], [], 7, 0.9), images=0)) == []


def endless(lesson):
    while True:
        yield lesson


def test_stopping_early_ends_the_threads():
    """As after Ctrl-C: the consumer leaves, and nothing goes on behind its back."""
    torch.set_num_threads(2)
    t = task(torch.float32)
    lesson = next(batches(9, torch.float32))
    before = threading.active_count()
    courses = [endless(Lesson(lesson.x, lesson.y, 0.01, report=True)) for _ in t.starts]
    with closing(sgd.train(Task(t.net, t.starts, courses, 7, 0.9), 1)) as reports:
        next(reports)
        assert threading.active_count() > before
    assert threading.active_count() == before and torch.get_num_threads() == 2


def test_an_error_of_one_network_is_raised_and_ends_the_others():
    torch.set_num_threads(2)
    t = task(torch.float32)
    lesson = next(batches(9, torch.float32))
    courses = [endless(lesson) for _ in t.starts]
    courses[1] = (copy.copy(step) if n < 3 else 1 / 0 for n, step in enumerate(endless(lesson)))
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(sgd.train(Task(t.net, t.starts, courses, 7, 0.9), 1))
    assert threading.active_count() == before


def test_classes_become_probabilities():
    like = torch.zeros(1, dtype=torch.float64)
    hard = sgd.probabilities(torch.tensor([2, 0]), 3, like)
    assert hard.dtype == torch.float64 and hard.tolist() == [[0, 0, 1], [1, 0, 0]]
    soft = torch.tensor([[0.25, 0.75]])
    assert torch.equal(sgd.probabilities(soft, 2, like), soft.double())


@pytest.mark.parametrize(("threads", "networks"), [(1, 5), (2, 5), (2, 1)])
def test_a_rehearsal_tells_what_it_will_take_and_changes_nothing(threads, networks):
    torch.set_num_threads(threads)
    told = []

    def train(**rehearsal):
        t = task(torch.float32)
        t = Task(t.net, t.starts[:networks], t.courses[:networks], 7, 0.9)
        return {(r.number, r.loss): r.theta for r in sgd.train(t, 7 * STEPS, **rehearsal)}

    plain = train()
    rehearsed = train(rehearsal=next(batches(9, torch.float32)), told=told.append)
    assert len(told) == 1 and told[0].seconds > 0 and told[0].bytes is not None
    assert plain.keys() == rehearsed.keys() and all(plain[k].equal(rehearsed[k]) for k in plain)


def test_a_rehearsal_counts_steps_and_networks(monkeypatch):
    """Three steps of as many networks as are worked at once stand for all steps of all networks."""
    torch.set_num_threads(1)

    @contextmanager
    def watched(device, memory=True):
        used = Used(bytes=7 if memory else None)
        yield used
        used.seconds = 1.5 if not memory else 5.0

    monkeypatch.setattr(sgd, "watch", watched)
    t, told = task(torch.float32), []
    list(sgd.train(t, 7 * STEPS, rehearsal=next(batches(9, torch.float32)), told=told.append))
    assert told == [Used(1.5 / 3 * STEPS * NETWORKS, 7)]
    torch.set_num_threads(2)
    t = replace(task(torch.float32), kept=1000)
    list(sgd.train(t, 7 * STEPS, rehearsal=next(batches(9, torch.float32)), told=told.append))
    rounds = 3  # of two at once, for five
    assert told[1] == Used(1.5 / 3 * STEPS * rounds, 7 + 3 * 1000)


def test_what_a_rehearsal_compiled_serves_the_run(monkeypatch):
    asked = compiled_functions(monkeypatch)
    torch.set_num_threads(2)
    lesson = next(batches(9, torch.float32))
    list(sgd.train(task(torch.float32), 1e9, rehearsal=lesson, told=lambda used: None))
    assert len(asked) == 1
