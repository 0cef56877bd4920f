"""The pickles of CIFAR-10 and CIFAR-100: values against what was written, and pickles that must not run anything."""

import hashlib
import os
import pickle
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest

from medistill.data import cifar
from medistill.data.benchmark import Benchmark, with_validation
from medistill.errors import UserError

TEN, HUNDRED = cifar.CIFAR10, cifar.CIFAR100
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ROWS = 20


def string(value: bytes) -> bytes:
    """A Python 2 string in protocol 2."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def python2_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2's cPickle wrote the official ones, opcode by opcode."""
    dtype = (
        b"cnumpy\ndtype\n(" + string(b"u1") + b"K\x00K\x01tR(K\x03" + string(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + string(b"b") + b"tR(K\x01K"
    array += bytes([len(images)]) + b"M\x00\x0c\x86" + dtype + b"K\x00tb\x89" + string(images.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + string(b"data") + array + string(b"labels") + listed + b"u."


def python3_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """The same as Python 3 writes it."""
    return pickle.dumps({b"data": images, b"labels": labels}, protocol=2)


def meta(names=CLASSES):
    return pickle.dumps({b"label_names": [name.encode() for name in names]}, protocol=2)


@pytest.fixture
def folder(tmp_path):
    """A whole set of the official layout, one file in each style and the rest in Python 2's."""
    place = tmp_path / "data" / TEN.folder
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate((*TEN.train, TEN.test)):
        images = rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8)
        write = python3_batch if number == 1 else python2_batch
        (place / name).write_bytes(write(images, [(row + number) % 10 for row in range(ROWS)]))
    (place / TEN.meta).write_bytes(meta())
    return place


@pytest.fixture
def hundred(tmp_path):
    """A whole set in CIFAR-100's layout: class k has k // 5 as its coarse label."""
    place = tmp_path / "data" / HUNDRED.folder
    place.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name, labels in (("train", [*range(100)]), ("test", [99, 7, 0])):
        images = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        batch = {b"data": images, b"fine_labels": labels, b"coarse_labels": [label // 5 for label in labels]}
        (place / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = {b"fine_label_names": [b"fine %d" % k for k in range(100)], b"coarse_label_names": [b"coarse"] * 20}
    (place / "meta").write_bytes(pickle.dumps(names, protocol=2))
    return place


def read(place, classes=(), layout=TEN):
    return cifar.read(cifar.files(place, layout), classes, layout)


def refused(place, classes=(), layout=TEN):
    with pytest.raises(UserError) as caught:
        read(place, classes, layout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("where", ["folder", "parent"])
def test_images_labels_and_split(folder, where):
    content = read(folder if where == "folder" else folder.parent)
    rng = np.random.default_rng(0)
    expected = np.stack([rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8) for _ in range(6)])
    assert np.array_equal(content.images, expected.reshape(-1, 3, 32, 32))
    assert content.labels.tolist() == [(row + number) % 10 for number in range(6) for row in range(ROWS)]
    assert content.split.tolist() == ["train"] * 5 * ROWS + ["test"] * ROWS
    assert content.classes == CLASSES
    assert content.names[ROWS + 3] == "data_batch_2 row 3"
    assert "not comparable with published tables" in content.notes[0]


def test_the_official_checksums_are_silent(folder, monkeypatch):
    """The lists of torchvision decide; one changed byte of one file is told."""
    from torchvision.datasets import CIFAR10

    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in TEN.train])
    monkeypatch.setattr(CIFAR10, "test_list", [[TEN.test, md5[TEN.test]]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": TEN.meta, "md5": md5[TEN.meta]})
    assert read(folder).notes == ()
    (folder / "data_batch_3").write_bytes(python2_batch(np.zeros((10, 3072), np.uint8), [*range(10)]))
    assert len(read(folder).notes) == 1


class Call:
    """A pickle that calls something when it is read."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("call", "asked"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), "system"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Call(getattr, "x", "upper"), "getattr"),
        (lambda mark: Call(np.load, str(mark)), "load"),
        (lambda mark: Call(np.fromfile, str(mark)), "fromfile"),
        (lambda mark: Call(pickle.loads, pickle.dumps(Call(os.system, f"touch {mark}"))), "loads"),
    ],
    ids=["os.system", "eval", "getattr", "numpy.load", "numpy.fromfile", "pickle.loads"],
)
@pytest.mark.parametrize("name", [TEN.meta, "data_batch_2"])
def test_nothing_that_a_pickle_asks_for_is_run(folder, tmp_path, call, asked, name):
    mark = tmp_path / "mark"
    for content in (call(mark), {b"data": call(mark), b"labels": [0]}):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        message = refused(folder)
        assert message.startswith(f"{name}: asks for ") and asked in message and "do not use it" in message
    assert not mark.exists()


def test_another_codec_is_refused(folder):
    (folder / "data_batch_1").write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")
    assert "an encoding other than latin1" in refused(folder)


def test_a_pickle_cannot_change_the_reader(folder):
    """Attributes set on what stands for numpy's functions are gone, and later files read as before."""
    (folder / "data_batch_1").write_bytes(b"\x80\x02c_codecs\nencode\nN}U\x08__func__K\x01s\x86b.")
    assert "data_batch_1: cut off or damaged" in refused(folder)
    (folder / "data_batch_1").write_bytes(python3_batch(np.full((10, 3072), 7, np.uint8), [*range(10)]))
    assert (read(folder).images[:10] == 7).all()


def test_bytes_in_columns(folder):
    """An array that was written column by column is read row by row."""
    images = np.asfortranarray(np.random.default_rng(1).integers(0, 256, (10, 3072), dtype=np.uint8))
    (folder / "data_batch_1").write_bytes(python3_batch(images, [*range(10)]))
    assert np.array_equal(read(folder).images[:10].reshape(10, -1), images)


def batch(data=None, labels=None):
    data = np.zeros((10, 3072), np.uint8) if data is None else data
    return pickle.dumps({b"data": data, b"labels": [*range(10)] if labels is None else labels}, protocol=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off or damaged (0 bytes, EOFError)"),
        (b"\x80\x02}.", "no array of bytes (n, 3072) under data"),
        (b"\x80\x02].", "holds a list where a dict belongs"),
        (b"<html>not found</html>", "cut off or damaged"),
        (batch(np.zeros((10, 3071), np.uint8)), "no array of bytes"),
        (batch(np.zeros((10, 3072), np.int16)), "no array of bytes"),
        (batch(np.zeros((10, 3072), "i1")), "no array of bytes"),
        (batch("text"), "no array of bytes"),
        (batch(labels=[*range(9)]), "labels that do not go with its 10 images"),
        (batch(labels=[10] * 10), "a label that is not a number from 0 to 9"),
        (batch(labels=[-1] * 10), "a label that is not"),
        (batch(labels=[True] * 10), "a label that is not"),
        (python2_batch(np.zeros((0, 3072), np.uint8), []), "do not go with its 0 images"),
        (
            python2_batch(np.zeros((10, 3072), np.uint8), [0] * 10).replace(b"M\x00\x0c\x86", b"M\x01\x0c\x86"),
            "no array",
        ),
    ],
    ids=range(14),
)
def test_a_file_that_is_no_batch_is_one_sentence(folder, content, message):
    (folder / "data_batch_4").write_bytes(content)
    told = refused(folder)
    assert told.startswith("data_batch_4: ") and message in told


def test_class_names(folder):
    assert read(folder, list(CLASSES)).classes == CLASSES
    assert "leave data.classes out" in refused(folder, ["cat", "dog"])
    for names in (CLASSES[:9], (*CLASSES[:9], "cat")):
        (folder / TEN.meta).write_bytes(meta(names))
        assert refused(folder).startswith("batches.meta: ")


def test_missing_and_oversized_files(folder):
    (folder / "test_batch").unlink()
    assert "no test_batch in it" in refused(folder)
    (folder / "test_batch").write_bytes(b"x" * 100_001)
    told = refused(folder, layout=replace(TEN, largest=100_000))
    assert "test_batch: 100001 bytes, more than any file of CIFAR-10" in told


def test_the_fine_labels_of_cifar100(hundred):
    content = read(hundred.parent, layout=HUNDRED)
    rng = np.random.default_rng(1)
    expected = [rng.integers(0, 256, (count, 3072), dtype=np.uint8) for count in (100, 3)]
    assert np.array_equal(content.images.reshape(103, 3072), np.concatenate(expected))
    assert content.labels.tolist() == [*range(100), 99, 7, 0]
    assert content.split.tolist() == ["train"] * 100 + ["test"] * 3
    assert content.classes == tuple(f"fine {k}" for k in range(100))
    assert content.names[101] == "test row 1"
    assert (content.mean, content.std) == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
    assert content.notes[0].startswith("cifar-100-python: not the official files")


def test_the_official_checksums_of_cifar100_are_silent(hundred, monkeypatch):
    from torchvision.datasets import CIFAR100

    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in hundred.iterdir()}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "md5": "0" * 32})
    assert len(read(hundred, layout=HUNDRED).notes) == 1
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "md5": md5["meta"]})
    assert read(hundred, layout=HUNDRED).notes == ()


def test_mistakes_in_cifar100(hundred):
    """Each names the file, and CIFAR-100 where a set is meant."""
    whole = (hundred / "train").read_bytes()
    (hundred / "train").write_bytes(whole[: len(whole) // 2])
    told = refused(hundred, layout=HUNDRED)
    assert told.startswith("train: cut off or damaged (") and "python version of CIFAR-100 again" in told
    images = np.zeros((2, 3072), np.uint8)
    for labels, message in (([0, 100], "not a number from 0 to 99"), ([0], "do not go with its 2 images")):
        (hundred / "train").write_bytes(pickle.dumps({b"data": images, b"fine_labels": labels}, protocol=2))
        assert message in refused(hundred, layout=HUNDRED)
    (hundred / "train").write_bytes(pickle.dumps({b"data": images, b"labels": [0, 1]}, protocol=2))
    assert "do not go with" in refused(hundred, layout=HUNDRED)
    (hundred / "meta").write_bytes(meta())
    assert "meta: no list of 100 class names under fine_label_names" in refused(hundred, layout=HUNDRED)


@pytest.mark.parametrize("layout", [TEN, HUNDRED], ids=["CIFAR-10", "CIFAR-100"])
def test_a_packed_archive_is_to_be_unpacked(tmp_path, layout):
    archive = tmp_path / f"{layout.folder}.tar.gz"
    archive.write_bytes(b"")
    for named in (tmp_path, archive):
        told = refused(named, layout=layout)
        assert told == f"{archive.name}: still packed; unpack it, and let data.cohort name the folder {layout.folder}"
    archive.unlink()
    (tmp_path / "a folder.zip").mkdir()
    assert f"python version of {layout.title}" in refused(tmp_path, layout=layout)


def toy(labels, split):
    images = np.zeros((len(labels), 1, 8, 8), np.uint8)
    return Benchmark(images, np.array(labels), np.array(split), [""] * len(labels), ("a", "b"), (0.5,), (0.5,))


def test_validation_is_drawn_by_class():
    """15 % of 200 and of 40 images; the test rows stay, another seed draws others."""
    labels = [0] * 200 + [1] * 40 + [0, 1] * 10
    content = toy(labels, ["train"] * 240 + ["test"] * 20)
    split = with_validation(content, 0.15, seed=0)
    assert (split[240:] == "test").all() and content.split.tolist().count("val") == 0
    assert [int((split[content.labels == k] == "val").sum()) for k in (0, 1)] == [30, 6]
    assert np.array_equal(split, with_validation(content, 0.15, seed=0))
    assert not np.array_equal(split, with_validation(content, 0.15, seed=1))


def test_a_split_without_a_class_is_one_sentence():
    content = toy([0, 0, 1, 0, 1], ["train"] * 3 + ["test"] * 2)
    with pytest.raises(UserError, match=r"the val split has no image of a, b; .*data.val_fraction"):
        with_validation(content, 0.1, seed=0)
    with pytest.raises(UserError, match="the test split has no image of b"):
        with_validation(toy([0, 1, 0, 1, 0], ["train", "train", "val", "val", "test"]), 0.5, seed=0)


@pytest.mark.realdata
def test_the_real_files_are_read_as_pickle_reads_them(real_data):
    """The oracle is pickle itself, on files known to be harmless; the first labels are those of the official files."""
    place = real_data / "cifar10" / TEN.folder
    content = read(place)
    rows = []
    for name in (*TEN.train, TEN.test):
        with (place / name).open("rb") as file:
            loaded = pickle.load(file, encoding="bytes")
        rows.append(loaded[b"data"])
        here = [index for index, told in enumerate(content.names) if told.startswith(name)]
        assert content.labels[here].tolist() == loaded[b"labels"]
    assert np.array_equal(content.images.reshape(-1, 3072), np.concatenate(rows))
    assert content.labels[:5].tolist() == [6, 9, 9, 4, 1]
    assert content.labels[content.split == "test"][:5].tolist() == [3, 8, 8, 0, 6]
    assert content.classes == CLASSES


@pytest.mark.realdata
def test_a_real_interrupted_download_is_one_sentence(real_data, folder):
    broken = real_data / "cifar10" / "broken_download"
    assert "no batches.meta, data_batch_2" in refused(broken)
    shutil.copy(broken / "data_batch_1", folder / "data_batch_1")
    assert "data_batch_1: cut off or damaged (262144 bytes" in refused(folder)


@pytest.mark.realdata
def test_the_real_files_of_cifar100_are_read_as_pickle_reads_them(real_data):
    place = real_data / "cifar100" / HUNDRED.folder
    content = read(place, layout=HUNDRED)
    loaded = {}
    for name in ("train", "test", "meta"):
        with (place / name).open("rb") as file:
            loaded[name] = pickle.load(file, encoding="bytes")
    for name in ("train", "test"):
        here = content.split == name
        assert np.array_equal(content.images[here].reshape(-1, 3072), loaded[name][b"data"])
        assert content.labels[here].tolist() == loaded[name][b"fine_labels"]
    assert list(content.classes) == [name.decode() for name in loaded["meta"][b"fine_label_names"]]
    assert content.labels[:5].tolist() == [19, 29, 0, 11, 1] and len(content.labels) == 1117 + 916
    assert hashlib.md5((place / "meta").read_bytes()).hexdigest() == cifar.checksums(HUNDRED)["meta"]
    assert "not the official files" in content.notes[0]


@pytest.mark.realdata
def test_a_real_file_of_cifar100_cut_short(real_data, hundred):
    whole = (real_data / "cifar100" / HUNDRED.folder / "train").read_bytes()
    (hundred / "train").write_bytes(whole[:262144])
    assert "train: cut off or damaged (262144 bytes" in refused(hundred, layout=HUNDRED)
