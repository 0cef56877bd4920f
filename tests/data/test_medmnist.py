"""MedMNIST's .npz: values against what was written, and every file that must be refused."""

import hashlib
import io
import pickle
import zipfile

import numpy as np
import pytest

from medistill.data import medmnist
from medistill.errors import UserError

COUNTS = {"train": 12, "val": 4, "test": 6}


def arrays(shape=(8, 8), classes=2):
    rng = np.random.default_rng(0)
    made = {}
    for split, count in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return made


def written(folder, made):
    path = folder / "toymnist.npz"
    np.savez(path, **made)
    return path


def read(path, classes=()):
    return medmnist.read(medmnist.files(path), classes)


def refused(path, classes=()):
    with pytest.raises(UserError) as caught:
        read(path, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gray_images_and_the_official_split(tmp_path):
    made = arrays(classes=3)
    content = read(written(tmp_path, made))
    assert content.images.shape == (22, 1, 8, 8) and content.images.dtype == np.uint8
    assert np.array_equal(content.images[12:16, 0], made["val_images"])
    assert content.labels.tolist() == [*range(3)] * 4 + [0, 1, 2, 0] + [0, 1, 2, 0, 1, 2]
    assert content.split.tolist() == ["train"] * 12 + ["val"] * 4 + ["test"] * 6
    assert content.classes == ("0", "1", "2") and (content.mean, content.std) == ((0.5,), (0.5,))
    assert content.names[12] == "val_images row 0"
    assert content.notes == (f"toymnist.npz: {medmnist.NOT_PUBLISHED}",)


def test_a_published_checksum_is_silent(tmp_path, monkeypatch):
    path = written(tmp_path, arrays())
    monkeypatch.setattr(medmnist, "PUBLISHED", {hashlib.md5(path.read_bytes()).hexdigest(): "toymnist"})
    assert read(path).notes == ()


def test_the_list_of_published_checksums():
    """Eleven sets at two sizes, three of them published anew in version 3; PneumoniaMNIST's as its users quote it."""
    from medistill.data.medmnist_md5 import PUBLISHED

    assert all(len(md5) == 32 and set(md5) <= set("0123456789abcdef") for md5 in PUBLISHED)
    assert len(PUBLISHED) == 25 and len(set(PUBLISHED.values())) == 22
    assert PUBLISHED["28209eda62fecd6e6a2d98b1501bb15f"] == "pneumoniamnist"


def test_colour_images_have_their_channels_first(tmp_path):
    made = arrays((8, 8, 3))
    content = read(written(tmp_path, made), ["sound", "ill"])
    assert content.images.shape == (22, 3, 8, 8) and content.mean == (0.5, 0.5, 0.5)
    assert np.array_equal(content.images[5, 2], made["train_images"][5, :, :, 2])
    assert content.classes == ("sound", "ill")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_images": None}, "no val_images in it"),
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "14 labels an image (a multi-label set)"),
        ({"train_labels": np.zeros((12,), np.uint8)}, "train_labels of shape (12,)"),
        ({"test_labels": np.zeros((5, 1), np.uint8)}, "do not go with 6 images"),
        ({"test_labels": np.zeros((6, 1))}, "type float64"),
        ({"train_images": np.zeros((12, 8, 8, 8), np.uint8)}, "choose a 2D set"),
        ({"train_images": np.zeros((12, 8, 9), np.uint8)}, "only square images"),
        ({"train_images": np.zeros((12, 8, 8))}, "type float64"),
        ({"test_images": np.zeros((6, 9, 9), np.uint8)}, "of shape"),
        ({"test_labels": np.full((6, 1), 7, np.uint8)}, "without a gap"),
    ],
)
def test_other_content_is_one_sentence(tmp_path, change, message):
    made = {key: value for key, value in (arrays() | change).items() if value is not None}
    assert message in refused(written(tmp_path, made))


def test_as_many_class_names_as_labels(tmp_path):
    assert "names 3 classes, toymnist.npz has 2 labels" in refused(written(tmp_path, arrays()), ["a", "b", "c"])


class Trap:
    """Unpickled, it raises; so the test fails if it ever is."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_a_pickled_array_is_refused_without_being_run(tmp_path):
    trap = np.empty((12, 1), object)
    trap[:] = Trap()
    path = tmp_path / "toymnist.npz"
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (12, 1)})
    with zipfile.ZipFile(written(tmp_path, arrays())) as source:
        members = {name: source.read(name) for name in source.namelist()}
    members["train_labels.npy"] = buffer.getvalue() + pickle.dumps(trap)
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    refused(path)


def test_a_header_that_promises_more_than_the_file_holds(tmp_path):
    """Not one byte is reserved for the promised terabyte."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 1024, 1024)})
    path = tmp_path / "toymnist.npz"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("train_images.npy", buffer.getvalue() + b"0" * 64)
    assert "damaged (ValueError)" in refused(path)


def test_more_than_fits_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = written(tmp_path, arrays())
    monkeypatch.setattr(medmnist, "LARGEST", 1000)
    assert "bytes unpacked, above 1000" in refused(path)


def test_a_damaged_or_cut_file(tmp_path):
    path = tmp_path / "toymnist.npz"
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a whole .npz file" in refused(path)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        start = archive.getinfo("val_images.npy").header_offset
    path.write_bytes(whole[: start + 100] + b"\x00" * 60 + whole[start + 160 :])
    assert "damaged" in refused(path)


def test_a_folder(tmp_path):
    assert "name the .npz file" in refused(tmp_path)
    (tmp_path / "medmnist.zip").write_bytes(b"")
    assert "medmnist.zip: still packed; unpack it" in refused(tmp_path)


@pytest.mark.realdata
def test_the_real_pneumoniamnist(real_data):
    """Counts as published: 4,708 / 524 / 624 of which 1,214 / 135 / 234 are normal; train mean .5719."""
    content = read(real_data / "medmnist" / "pneumoniamnist.npz")
    counts = {name: np.bincount(content.labels[content.split == name]).tolist() for name in COUNTS}
    assert counts == {"train": [1214, 3494], "val": [135, 389], "test": [234, 390]}
    assert content.images[content.split == "train"].mean() / 255 == pytest.approx(0.5719, abs=1e-4)
    assert "none of the files that MedMNIST publishes" in content.notes[0]  # the same images in another order


@pytest.mark.realdata
def test_the_real_pneumoniamnist_cut_short(real_data, tmp_path):
    whole = (real_data / "medmnist" / "pneumoniamnist.npz").read_bytes()
    path = tmp_path / "pneumoniamnist.npz"
    path.write_bytes(whole[: len(whole) // 2])
    assert "not a whole .npz file, perhaps an interrupted download" in refused(path)
