"""The view as one .npz: MedMNIST's names, nothing to unpickle, the same bytes on every day."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medistill.data import medmnist
from medistill.release.npz import read_npz, write_npz
from medistill.release.pictures import read_pictures, write_pictures

SOFT = torch.tensor(
    [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.1, 0.4], [1 / 3, 0.5, 1 / 6], [0, 0, 1], [0.2, 0.5, 0.3]]
)


def test_the_arrays_are_medmnists_and_more(tmp_path: Path, toy: dict[str, Any]) -> None:
    made = replace(toy["distilled"], labels=SOFT, classes=("a", "肺炎", "c" * 99), sequence=((2, 0.05), (6, 0.02)))
    write_npz(tmp_path / "x.npz", made)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        images, labels = found["train_images"], found["train_labels"]
        assert images.dtype == np.uint8 and images.shape == (6, 16, 16)
        wanted = np.clip(made.images.double().numpy()[:, 0] * 0.25 + 0.5, 0, 1) * 255
        assert np.abs(images - wanted).max() <= 0.5 + 1e-4
        assert labels.tolist() == [[0], [2], [0], [1], [2], [1]]
        for split in ("val", "test"):
            assert found[f"{split}_images"].shape == (0, 16, 16) and found[f"{split}_labels"].shape == (0, 1)
        assert torch.equal(torch.from_numpy(found["train_probabilities"]), SOFT)
        assert found["classes"].tolist() == ["a", "肺炎", "c" * 99] and float(found["learning_rate"]) == 0.02
        assert found["sequence_images"].tolist() == [2, 6] and found["sequence_rates"].tolist() == [0.05, 0.02]
        assert found["mean"].tolist() == [0.5] and found["std"].tolist() == [0.25]


def test_colour_stands_last_as_in_medmnist(tmp_path: Path, toy: dict[str, Any]) -> None:
    images = toy["distilled"].images
    images = torch.cat([images, images / 2, -images], 1)
    made = replace(toy["distilled"], images=images, mean=(0.5,) * 3, std=(0.25,) * 3)
    write_npz(tmp_path / "x.npz", made)
    with np.load(tmp_path / "x.npz") as found:
        assert found["train_images"].shape == (6, 16, 16, 3)
        wanted = (made.pictures()[3, 2].clamp(0, 1) * 255).round().numpy()
        assert np.array_equal(found["train_images"][3, :, :, 2], wanted)
    assert torch.equal(
        read_npz(tmp_path / "x.npz")[..., 5, 7] * 255, (made.pictures()[..., 5, 7].clamp(0, 1) * 255).round()
    )


def test_it_holds_the_pixels_of_the_pictures(tmp_path: Path, toy: dict[str, Any]) -> None:
    """So that the loss of one is the loss of the other."""
    made = replace(toy["distilled"], images=toy["distilled"].images * 3)
    write_npz(tmp_path / "x.npz", made)
    write_pictures(tmp_path / "images", made)
    assert torch.equal(read_npz(tmp_path / "x.npz"), read_pictures(tmp_path / "images"))


def test_our_own_reader_of_medmnist_takes_it(tmp_path: Path, toy: dict[str, Any]) -> None:
    write_npz(tmp_path / "x.npz", toy["distilled"])
    found = medmnist.read(medmnist.files(tmp_path / "x.npz"), toy["distilled"].classes)
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2] and found.images.shape == (6, 1, 16, 16)
    assert found.classes == toy["distilled"].classes and set(found.split) == {"train"}


def test_the_same_set_has_the_same_bytes_on_every_day(
    tmp_path: Path, toy: dict[str, Any], years_later: Callable[[], None]
) -> None:
    write_npz(tmp_path / "a.npz", toy["distilled"])
    years_later()
    write_npz(tmp_path / "b.npz", toy["distilled"])
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        for member in archive.infolist():
            assert member.date_time == (1980, 1, 1, 0, 0, 0) and member.create_system == 3
            assert member.compress_type == zipfile.ZIP_STORED
