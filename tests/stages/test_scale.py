"""A cohort's size costs disk and time, no memory: anonymous memory at two sizes, each in a fresh process."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from medistill.config import Config, Data, Distill, Experts, Net, Phantom
from medistill.data import decode as reader
from medistill.experts.train import train_experts
from medistill.experts.trajectory import Trajectories
from medistill.stages.experts import experts
from medistill.stages.load import check, load
from medistill.stages.session import Session

PHANTOM = Data(workers=2, size=32, mask=0.05, phantom=Phantom(patients=24, films=2, size=32))

# digests as they were when all films were held in memory
PINNED = {
    "train": "d4c6ee8ed91220212fbfe45cac6e90463e1f8a8d4c1f0b9eeda57c88d8587c48",
    "val": "61a7c64b5d183e2c106cfa7c1410f50b0ea821d485229070f29a77ad8ab0453a",
    "test": "6e2d0ef132868f4b2308d075f73176b7f68c12a7ebbcb750f138ef125fd6257e",
}

WORK = """
import json, sys, threading, time
from pathlib import Path
import numpy as np, torch
from medistill.config import Experts
from medistill.data import near
from medistill.data.decode import Reading
from medistill.data.duplicates import near_duplicates
from medistill.data.imageset import ImageSet, Seen
from medistill.data.setfile import write_set
from medistill.data.store import FilmStore
from medistill.experts.train import train_experts
from medistill.nets import Architecture

torch.set_num_threads(1)
count, folder, size = int(sys.argv[1]), Path(sys.argv[2]), 64
near.sweep_crops = lambda: np.array([(64, 0, 0), (52, 3, 3)])  # enough of them for the sweep's memory
near.ROWS, near.COLUMNS = 64, 128  # so that the smaller cohort fills a block too
paths = [folder / f"film{index}" for index in range(count)]
for path in paths:
    path.touch()

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def decode(absent):
    for start in range(0, len(absent), 16):
        chunk = range(start, min(start + 16, len(absent)))
        draw = np.random.default_rng(start)
        yield chunk, [Reading(draw.random((1, size, size), np.float32), {"view": "PA"}, str(i), "") for i in chunk]

peaks, peak, at_work = {}, 0, True

def watch():
    global peak
    while at_work:
        peak = max(peak, anonymous())
        time.sleep(0.002)

def measured(name, do):
    global peak
    peak, before = 0, anonymous()
    found = do()
    peaks[name] = max(peak, anonymous())
    return found

thread = threading.Thread(target=watch)
thread.start()

def read():
    with FilmStore.open(folder, size, {}) as store:
        return store.read(paths, decode, lambda done: None)

def write():
    labels = torch.arange(count) % 2
    told = {"classes": ("a", "b"), "name": "", "split": "train", "mean": (0.5,), "std": (0.25,)}
    index = torch.arange(0, count)
    write_set(folder / "set", stored.images, index, labels, labels, told | {"citation": "", "licence": ""})
    return ImageSet.load(folder / "set")

def train():
    net, settings = Architecture("convnet", 1, 2, size, 4, 2), Experts(count=1, epochs=1, batch=64)
    list(train_experts(Seen(images, torch.device("cpu")), images.labels, net, settings, 0, [0], compiled=False))

stored = measured("read", read)
images = measured("write", write)
measured("digest", lambda: images.digest)
measured("near", lambda: near_duplicates(stored.images, ["train", "test"] * (count // 2), scratch=folder))
measured("train", train)
at_work = False
thread.join()
print(json.dumps(peaks))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell of anonymous memory")
def test_memory_does_not_grow_with_the_films(tmp_path):
    """2,400 films more are 39 MB of pixels; what is held of each beside them is a few hundred bytes."""
    peaks = {}
    for count in (400, 2800):
        folder = tmp_path / str(count)
        folder.mkdir()
        words = [sys.executable, "-c", WORK, str(count), str(folder)]
        peaks[count] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    for stage, small in peaks[400].items():
        assert peaks[2800][stage] - small < 30e6, f"{stage}: {peaks}"
        assert peaks[2800][stage] < 2 * 2**30


@pytest.fixture
def asked(monkeypatch):
    """The films that workers are given, by name."""
    names: list[str] = []
    stream = reader.stream

    def listen(paths, *args, **more):
        names.extend(path.name for path in paths)
        return stream(paths, *args, **more)

    monkeypatch.setattr(reader, "stream", listen)
    return names


def test_a_film_is_decoded_once_and_the_sets_are_those_of_old(tmp_path, asked):
    """`check` reads, `run` finds what it read; a changed film is read again alone; another split reads nothing."""
    session = Session(Config(run=str(tmp_path), track=False, data=PHANTOM), lambda line: None)
    check(session)
    assert len(asked) == len(set(asked)) == 48
    first = load(session)
    assert first.digests == PINNED and len(asked) == 48
    film = sorted((next(tmp_path.glob("phantom-*")) / "films").glob("*.png"))[0]
    film.write_bytes(film.read_bytes() + b" ")
    assert load(session).digests == PINNED and asked[48:] == [film.name]
    other = Session(replace(session.config, data=replace(PHANTOM, val_fraction=0.3, mask=0.0)), lambda line: None)
    assert len(load(other).val) != len(first.val) and len(asked) == 49


def test_experts_from_the_file_are_those_of_all_pixels(tmp_path):
    """The whole way: what `experts` writes is what the training gives on the normalised set in memory."""
    settings, small = Experts(count=2, epochs=2, lr=0.05, batch=7), Net(width=8, depth=2)
    distill = Distill(max_start_epoch=1, expert_epochs=1)
    config = Config(
        str(tmp_path), compile="never", track=False, data=PHANTOM, net=small, experts=settings, distill=distill
    )
    session = Session(config, lambda line: None)
    experts(session)
    train, net = load(session).train, session.architecture(1, 3)
    truth = dict(train_experts(train.pixels(), train.labels, net, settings, config.seed, [0, 1], compiled=False))
    found = Trajectories.open(sorted(tmp_path.glob("experts-*/expert_*.safetensors")))
    for index, rows in truth.items():
        assert torch.equal(torch.stack(found.rows(index, 0, 1, 2)), rows)
