"""The store of decoded films: read once, changed ones alone again, and whole whenever a run is killed."""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

import medistill.data.store as module
from medistill.data.decode import Reading
from medistill.data.imageset import ImageSet, Seen
from medistill.data.mask import blank_border
from medistill.data.setfile import write_set
from medistill.data.store import FilmStore, Stored
from medistill.errors import UserError
from medistill.files import read_metadata

SIZE, RULES = 8, {"views": ["PA"]}


def pixels(path: Path) -> np.ndarray:
    """(1, 8, 8): what a file of this content is taken to show."""
    return np.random.default_rng(int(path.read_text())).random((1, SIZE, SIZE), dtype=np.float32)


class Decoder:
    """Reads files of a number, four at a time and the last ones first; notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, paths: Sequence[Path]):
        self.asked += [path.name for path in paths]
        every = range(len(paths))
        for chunk in reversed([every[start : start + 4] for start in every[::4]]):
            yield chunk, [self.reading(paths[index]) for index in chunk]

    @staticmethod
    def reading(path: Path) -> Reading:
        if path.read_text() == "bad":
            return Reading(None, {}, "", f"{path.name}: bad")
        choices = {"view": "PA", "window_centre": 0.1, "pixel_spacing": [0.1, 0.2], "rows": int(path.read_text()) % 2}
        return Reading(pixels(path), choices, f"sha of {path.read_text()}", "")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"film{index}" for index in range(11)]
    for index, path in enumerate(found):
        path.write_text(str(100 + index))
    return found


def read(tmp_path: Path, paths: list[Path], decode: Decoder, progress=lambda done: None) -> Stored:
    with FilmStore.open(tmp_path / "run", SIZE, RULES) as store:
        return store.read(paths, decode, progress)


def expected(paths: list[Path]) -> torch.Tensor:
    return torch.from_numpy(np.stack([pixels(path) for path in paths]))


def test_what_is_read_once_is_read_from_the_store_then(tmp_path, paths):
    first, second, seen = Decoder(), Decoder(), []
    one = read(tmp_path, paths, first, seen.append)
    two = read(tmp_path, list(reversed(paths)), second)
    assert sorted(first.asked) == sorted(path.name for path in paths) and not second.asked
    assert (one.fresh, two.fresh) == (11, 0) and seen == [3, 7, 11]
    every = torch.arange(11)
    assert torch.equal(one.images[every], expected(paths))
    assert torch.equal(two.images[every], expected(paths).flip(0))
    assert one.hashes == two.hashes[::-1] == [f"sha of {100 + index}" for index in range(11)]
    assert one.choices == two.choices[::-1] == [Decoder.reading(path).choices for path in paths]
    assert one.images.shape == (11, 1, SIZE, SIZE) and len(one.images) == 11


def test_rows_are_kept_and_masked(tmp_path, paths):
    images = read(tmp_path, paths, Decoder()).images.keep([7, 2, 3], 0.25)
    assert torch.equal(images[torch.tensor([1, 0])], blank_border(expected(paths)[[2, 7]], 0.25))


def test_a_changed_film_is_read_again_alone(tmp_path, paths):
    read(tmp_path, paths, Decoder())
    paths[4].write_text("907")  # as long as what stood there
    os.utime(paths[4], ns=(1, 1))
    second = Decoder()
    assert torch.equal(read(tmp_path, paths, second).images[torch.arange(11)], expected(paths))
    assert second.asked == ["film4"]


def test_other_rules_or_another_size_are_another_store(tmp_path, paths):
    read(tmp_path, paths, Decoder())
    for size, rules in ((SIZE, {"views": ["AP"]}), (SIZE + 1, RULES)):
        with FilmStore.open(tmp_path / "run", size, rules) as store:
            assert store.count(paths) == 0


def test_a_bad_film_is_told_and_tried_again(tmp_path, paths):
    for index in (0, 9):
        paths[index].write_text("bad")
    one, again = read(tmp_path, paths, Decoder()), Decoder()
    two = read(tmp_path, paths, again)
    assert one.errors == two.errors == {0: "film0: bad", 9: "film9: bad"} and one.fresh == 9
    assert again.asked == ["film0", "film9"]
    assert one.hashes[0] == "" and one.choices[9] == {}
    assert torch.equal(two.images.keep(two.good, 0)[torch.arange(9)], expected([paths[i] for i in two.good]))


def test_all_bad(tmp_path, paths):
    paths[0].write_text("bad")
    assert read(tmp_path, paths[:1], Decoder()).images.shape == (1, 1, SIZE, SIZE)


def test_the_journal_names_no_file(tmp_path, paths):
    read(tmp_path, paths, Decoder())
    assert b"film" not in next((tmp_path / "run").glob("films-*/journal")).read_bytes()


@pytest.mark.parametrize("cut", [1, 40])
def test_a_torn_line_is_forgotten_with_its_films_alone(tmp_path, paths, cut):
    read(tmp_path, paths, Decoder())
    journal = next((tmp_path / "run").glob("films-*/journal"))
    journal.write_bytes(journal.read_bytes()[:-cut])
    second = Decoder()
    assert torch.equal(read(tmp_path, paths, second).images[torch.arange(11)], expected(paths))
    assert second.asked == ["film0", "film1", "film2", "film3"]  # the chunk that came last
    third = Decoder()
    assert torch.equal(read(tmp_path, paths, third).images[torch.arange(11)], expected(paths)) and not third.asked


def record(**changes) -> bytes:
    """A line of the journal for one film."""
    return json.dumps({"slot": 0, "stamps": ["a"], "sha256": ["b"], "choices": [{}], **changes}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"123",
        b"{}",
        b"null",
        b"[" * 100_000,
        b"\xff",
        record(slot="0"),
        record(slot=True),
        record(slot=-1),
        record(stamps="a"),
        record(stamps=[["a"]]),
        record(choices=[1]),
        record(sha256=[]),
        record(more=1),
    ],
    ids=lambda line: line[:20].decode(errors="replace"),
)
def test_a_line_that_is_no_record_is_forgotten_with_what_follows(tmp_path, paths, line):
    read(tmp_path, paths, Decoder())
    journal = next((tmp_path / "run").glob("films-*/journal"))
    first, *others = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([first, line + b"\n", *others]))
    second = Decoder()
    assert torch.equal(read(tmp_path, paths, second).images[torch.arange(11)], expected(paths))
    assert second.asked == [f"film{index}" for index in range(8)]  # the first line tells of the last three
    third = Decoder()
    assert torch.equal(read(tmp_path, paths, third).images[torch.arange(11)], expected(paths)) and not third.asked


def test_images_that_are_gone_are_read_again(tmp_path, paths):
    read(tmp_path, paths, Decoder())
    rows = next((tmp_path / "run").glob("films-*/rows"))
    with rows.open("r+b") as file:
        file.truncate(rows.stat().st_size - 1)
    second = Decoder()
    assert torch.equal(read(tmp_path, paths, second).images[torch.arange(11)], expected(paths))
    assert len(second.asked) == 4


def die(tmp_path: Path, paths: list[Path]) -> None:
    def progress(done: int) -> None:
        if done == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    read(tmp_path, paths, Decoder(), progress)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill so")
def test_a_killed_run_goes_on_where_it_was(tmp_path, paths):
    process = get_context("fork").Process(target=die, args=(tmp_path, paths))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    second = Decoder()
    assert torch.equal(read(tmp_path, paths, second).images[torch.arange(11)], expected(paths))
    assert second.asked == ["film0", "film1", "film2", "film3"]


def test_a_film_counts_when_its_image_is_safe_and_not_before(tmp_path, paths, monkeypatch):
    """Were the journal written first, a loss of power could leave a line without its images."""
    states = []

    def note(file) -> None:
        file.flush()
        folder = Path(file.name).parent
        lines = (folder / "journal").read_bytes().splitlines()
        states.append((file.name[-7:], (folder / "rows").stat().st_size // (4 * SIZE**2), len(lines)))

    monkeypatch.setattr(module, "_to_disk", note)
    read(tmp_path, paths, Decoder())
    kinds = [(name.rsplit("/")[-1], films, lines) for name, films, lines in states]
    assert kinds == [("rows", 3, 0), ("journal", 3, 1), ("rows", 7, 1), ("journal", 7, 2), ("rows", 11, 2),
                     ("journal", 11, 3)]  # fmt: skip


def test_one_process_at_a_time(tmp_path, paths):
    with FilmStore.open(tmp_path / "run", SIZE, RULES), pytest.raises(UserError, match="another process is reading"):
        read(tmp_path, paths, Decoder())


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, paths, monkeypatch):
    def full(file) -> None:
        if file.name.endswith("journal") and os.fstat(file.fileno()).st_size > 0:
            raise OSError(28, "No space left on device")
        file.flush()

    monkeypatch.setattr(module, "_to_disk", full)
    with pytest.raises(UserError, match=r"the films cannot be kept .*No space left"):
        read(tmp_path, paths, Decoder())
    monkeypatch.undo()
    second = Decoder()
    assert torch.equal(read(tmp_path, paths, second).images[torch.arange(11)], expected(paths))
    assert len(second.asked) < 11


def made_set(count: int, **changed) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    fields = {"classes": ("a", "Ünï"), "name": 'set "1"', "split": "train", "mean": (0.5,), "std": (0.25,)}
    return ImageSet(
        torch.rand(count, 1, 5, 5, generator=generator),
        torch.randint(2, (count,), generator=generator),
        torch.randint(9, (count,), generator=generator),
        **fields | changed,
    )


@pytest.mark.parametrize("count", [1, 64, 131])
def test_a_set_written_in_parts_is_the_same_file(tmp_path, count):
    """Byte for byte that of safetensors' own writer, digest included."""
    whole = made_set(count, citation="c é", licence="l")
    index = torch.randperm(count, generator=torch.Generator().manual_seed(1))[: max(1, count - 3)]
    taken = {name: getattr(whole, name)[index] for name in ("images", "labels", "groups")}
    part = replace(whole, **taken, split="val")
    part.save(tmp_path / "one")
    told = {name: getattr(part, name) for name in ("classes", "name", "split", "mean", "std", "citation", "licence")}
    write_set(tmp_path / "two", whole.images, index, whole.labels, whole.groups, told)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_metadata(tmp_path / "two")["digest"] == ImageSet.load(tmp_path / "two").digest == part.digest
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "two").stat().st_mode
    assert list(tmp_path.glob(".*")) == []


def test_a_batch_from_the_file_is_that_of_all_pixels_bit_for_bit(tmp_path):
    whole = made_set(37, mean=(0.4914,), std=(0.247,))
    whole.save(tmp_path / "set")
    seen = Seen(ImageSet.load(tmp_path / "set"), torch.device("cpu"))
    index = torch.randperm(37, generator=torch.Generator().manual_seed(2))[:20]
    assert torch.equal(seen[index], whole.pixels()[index]) and torch.equal(seen[:7], whole.pixels()[:7])
    assert torch.equal(seen.held(), whole.pixels()) and len(seen) == 37 and seen.dtype == torch.float32


def test_a_whitened_set_is_not_read_in_batches():
    from medistill.data.zca import Zca

    images = made_set(30)
    with pytest.raises(ValueError, match="whitened"):
        Seen(made_set(30, zca=Zca.fit(images.images)), torch.device("cpu"))
