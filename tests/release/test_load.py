"""A released folder as a set that networks learn from."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import medistill
from medistill.errors import ReleaseError, UserError
from medistill.nets import flatten
from medistill.release.bundle import write_release
from medistill.release.keys import fingerprint, make_keys, read_private_key
from medistill.release.load import load
from medistill.release.signature import write_signature


@pytest.fixture
def folder(tmp_path: Path, toy: dict[str, Any]) -> Path:
    return write_release(tmp_path / "toy", **toy)


def test_round_trip(folder: Path, toy: dict[str, Any]) -> None:
    data, distilled = medistill.load(str(folder)), toy["distilled"]
    assert torch.equal(data.images, distilled.images) and torch.equal(data.labels, distilled.labels)
    assert data.targets.tolist() == [0, 1, 2, 0, 1, 2]
    for name in ("lr", "sequence", "classes", "mean", "std", "architecture", "augment", "provenance"):
        assert getattr(data, name) == getattr(distilled, name)
    assert data.evaluation == toy["evaluation"] and data.folder == folder and data.fingerprint is None
    assert data.config == {"data": {"cohort": "(withheld)", "size": 16}, "method": "iadd"}
    assert data.digest == hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    assert {key: value for key, value in data.audit.items() if key != "decision"} == toy["audit"]
    assert len(data) == 6
    image, label = data[4]
    assert torch.equal(image, distilled.images[4]) and torch.equal(label, distilled.labels[4])
    batches = list(torch.utils.data.DataLoader(data, batch_size=4))
    assert [len(x) for x, _ in batches] == [4, 2] and torch.equal(batches[1][1], distilled.labels[4:])


def test_the_order_of_a_set_and_its_step_sizes_are_kept(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["distilled"] = replace(toy["distilled"], sequence=((3, 0.05), (6, 1 / 3)))
    assert load(write_release(tmp_path / "toy", **toy)).sequence == ((3, 0.05), (6, 1 / 3))


def test_networks_come_from_their_seed(folder: Path) -> None:
    data = load(folder)
    assert torch.equal(flatten(data.network(1)), flatten(data.network(1)))
    assert not torch.equal(flatten(data.network(1)), flatten(data.network(2)))
    assert data.network(0)(data.images).shape == (6, 3)


def test_normalise_is_that_of_the_set(folder: Path, toy_films: Callable[[int, str], tuple[Tensor, Tensor]]) -> None:
    data, (films, _) = load(folder), toy_films(6, "distilled")
    assert torch.equal(data.normalise(films), data.images)
    assert torch.equal(data.normalise(films[0]), data.images[0])
    assert torch.allclose(data.pictures(), films, atol=1e-6)
    with pytest.raises(UserError, match="resize"):
        data.normalise(films[..., :8])
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        data.normalise(films * 255)
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        data.normalise(films.mul(255).to(torch.uint8))


def test_a_key_is_asked_for_its_signature(folder: Path, tmp_path: Path) -> None:
    key, other = make_keys(tmp_path / "ours"), make_keys(tmp_path / "others")
    with pytest.raises(ReleaseError, match=r"^signature\.json: missing"):
        load(folder, pub=tmp_path / "ours.pub")
    write_signature(folder, read_private_key(tmp_path / "ours.key"))
    assert load(folder, pub=str(tmp_path / "ours.pub")).fingerprint == load(folder).fingerprint == fingerprint(key)
    with pytest.raises(ReleaseError, match=rf"^signature\.json: signed by another .*{fingerprint(other)}"):
        load(folder, pub=tmp_path / "others.pub")
