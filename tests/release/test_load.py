"""Reading a release: every tampering is named, nothing is believed."""

import hashlib
import json
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import medistill
from medistill.data.zca import Zca
from medistill.errors import UserError
from medistill.files import write_tensors
from medistill.nets import Architecture, flatten
from medistill.release.bundle import write_release, write_sums
from medistill.release.load import load


@pytest.fixture
def folder(tmp_path: Path, toy: dict[str, Any]) -> Path:
    return write_release(tmp_path / "toy", **toy)


def test_round_trip(folder: Path, toy: dict[str, Any]) -> None:
    data, distilled = medistill.load(str(folder)), toy["distilled"]
    assert torch.equal(data.images, distilled.images) and torch.equal(data.labels, distilled.labels)
    assert data.targets.tolist() == [0, 1, 2, 0, 1, 2]
    for name in ("lr", "sequence", "classes", "mean", "std", "architecture", "augment", "provenance"):
        assert getattr(data, name) == getattr(distilled, name)
    assert data.evaluation == toy["evaluation"] and data.folder == folder
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


@pytest.mark.parametrize(
    "name",
    ["README.md", "audit.json", "config.yaml", "distilled.safetensors", "evaluation.json", "preview.png"],
)
def test_each_changed_or_missing_file_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=f"^{name}: changed"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"^{name}: missing"):
        load(folder)


def test_unlisted_files_are_named(folder: Path) -> None:
    (folder / "views").mkdir()
    (folder / "views" / "extra.dcm").write_bytes(b"x")
    with pytest.raises(UserError, match=r"^views/extra\.dcm: not listed"):
        load(folder)
    write_sums(folder)
    assert len(load(folder)) == 6


def test_a_needed_file_must_be_listed(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "audit.json" not in line))
    with pytest.raises(UserError, match=r"^audit\.json: not listed"):
        load(folder)


def test_what_is_no_release_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "absent")
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match="no SHA256SUMS"):
        load(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "/etc/hostname",
        "views/../../outside.txt",
        "a\\b",
        "./audit.json",
        "SHA256SUMS",
        "..",
    ],
)
def test_names_that_lead_outside_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "outside.txt").write_text("private")
    digest = hashlib.sha256(b"private").hexdigest()
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{digest}  {name}\n")
    with pytest.raises(UserError, match=r"^SHA256SUMS: line 7 names"):
        load(folder)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not a sum\n", "line 7 is not"),
        (b"0" * 64 + b"  audit.json\n", "second time"),
        (b"\xff\xfe", "not a text file"),
    ],
)
def test_damaged_sums_are_refused(folder: Path, line: bytes, reason: str) -> None:
    with (folder / "SHA256SUMS").open("ab") as sums:
        sums.write(line)
    with pytest.raises(UserError, match=f"^SHA256SUMS: .*{reason}"):
        load(folder)


def test_links_and_pipes_are_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "audit.json"
    (folder / "audit.json").rename(outside)
    (folder / "audit.json").symlink_to(outside)
    with pytest.raises(UserError, match=r"^audit\.json: neither"):
        load(folder)
    (folder / "audit.json").unlink()
    os.mkfifo(folder / "audit.json")
    with pytest.raises(UserError, match=r"^audit\.json: neither"):
        load(folder)
    (folder / "audit.json").unlink()
    (folder / "views").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"^views: neither"):
        load(folder)


def repack(folder: Path, **changes: Any) -> None:
    """Write the set again with changed fields, and honest sums over them."""
    data = load(folder)
    fields = {"images": data.images, "labels": data.labels} | changes
    metadata = {
        name: changes.get(name, getattr(data, name))
        for name in ("lr", "sequence", "classes", "mean", "std", "augment", "provenance")
    }
    metadata |= {"architecture": vars(changes.get("architecture", data.architecture)), "format": 1}
    write_tensors(
        folder / "distilled.safetensors", {k: v for k, v in fields.items() if isinstance(v, Tensor)}, metadata
    )
    write_sums(folder)


IMAGES = torch.zeros(6, 1, 16, 16)
LABELS = torch.eye(3).repeat(2, 1)
NET = Architecture("convnet", 1, 3, 16, 4, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": IMAGES.clone().index_fill(0, torch.tensor([2]), math.nan)}, "not finite"),
        ({"images": IMAGES.clone().index_fill(0, torch.tensor([2]), math.inf)}, "not finite"),
        ({"labels": LABELS.clone().index_fill(0, torch.tensor([2]), math.nan)}, "not finite"),
        ({"images": IMAGES.double()}, "float32"),
        ({"images": IMAGES[0]}, "do not fit"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "do not fit"),
        ({"images": IMAGES[..., :8]}, "do not fit"),
        ({"labels": LABELS[:5]}, "classes"),
        ({"labels": LABELS[:, :2]}, "classes"),
        ({"labels": LABELS * 2}, "probabilities"),
        ({"labels": torch.tensor([[2.0, -1.0, 0.0]]).repeat(6, 1)}, "probabilities"),
        ({"classes": ("a", "b")}, "classes"),
        ({"classes": ("a", "b", 3)}, "no text"),
        ({"provenance": ["noise"]}, "JSON object"),
        ({"mean": (0.5, 0.5)}, "channels"),
        ({"std": (0.0,)}, "above zero"),
        ({"lr": -1.0}, "above zero"),
        ({"lr": "fast"}, "finite number"),
        ({"lr": True}, "finite number"),
        ({"lr": 10**400}, "OverflowError"),
        ({"sequence": [[3, 0.1], [5, 0.1]]}, "up to the 6 images"),
        ({"sequence": [[3, 0.1], [7, 0.1]]}, "up to the 6 images"),
        ({"sequence": [[6, 0.1], [3, 0.1], [6, 0.1]]}, "do not rise"),
        ({"sequence": [[3, 0.1], [3, 0.1], [6, 0.1]]}, "do not rise"),
        ({"sequence": [[0, 0.1], [6, 0.1]]}, "do not rise from 1"),
        ({"sequence": [[-3, 0.1], [6, 0.1]]}, "do not rise from 1"),
        ({"sequence": [[3, 0.0], [6, 0.1]]}, "finite number above zero"),
        ({"sequence": [[3, -0.1], [6, 0.1]]}, "finite number above zero"),
        ({"sequence": [[3, "nan"], [6, 0.1]]}, "finite number above zero"),
        ({"sequence": [[3, 0.1], [6, "inf"]]}, "finite number above zero"),
        ({"sequence": [[3, 10**400], [6, 0.1]]}, "OverflowError"),
        ({"sequence": [["inf", 0.1]]}, "ValueError"),
        ({"sequence": [[6, "fast"]]}, "ValueError"),
        ({"sequence": [[6, None]]}, "TypeError"),
        ({"sequence": [[6]]}, "ValueError"),
        ({"sequence": [6]}, "TypeError"),
        ({"sequence": 6}, "TypeError"),
        ({"architecture": replace(NET, name="os.system")}, "not one of convnet"),
        ({"architecture": replace(NET, width=10**9)}, "no network"),
        ({"architecture": replace(NET, depth=-1)}, "no network"),
        ({"architecture": replace(NET, depth=40)}, "halves data.size"),
        ({"architecture": replace(NET, size="16")}, "no network"),
        ({"surplus": IMAGES}, "not a distilled set"),
    ],
)
def test_values_that_no_release_holds_are_refused(folder: Path, changes: dict[str, Any], reason: str) -> None:
    repack(folder, **changes)
    with pytest.raises(UserError, match=rf"^distilled\.safetensors: .*{reason}"):
        load(folder)


def test_a_whitening_is_refused(folder: Path, toy: dict[str, Any]) -> None:
    """No release carries one, so `normalise` applies none."""
    replace(toy["distilled"], zca=Zca.fit(toy["distilled"].images)).save(folder / "distilled.safetensors")
    write_sums(folder)
    with pytest.raises(UserError, match=r"^distilled\.safetensors: a whitening, which no release carries"):
        load(folder)


def test_a_repacked_set_of_good_values_loads(folder: Path) -> None:
    repack(folder, images=IMAGES)
    assert torch.equal(load(folder).images, IMAGES)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("unpickled",))


def huge_header(good: bytes) -> bytes:
    """A header that declares more data than the file holds."""
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    header["images"]["shape"][0] = 10**9
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + good[8 + length :]


@pytest.mark.parametrize(
    "attack",
    [
        lambda good: pickle.dumps(Bomb()),
        lambda good: b"",
        lambda good: good[:100],
        lambda good: (2**62).to_bytes(8, "little") + good[8:],
        huge_header,
        lambda good: good.replace(b'\\"format\\"', b'\\"formot\\"'),
    ],
    ids=["pickle", "empty", "cut", "long header", "huge tensor", "no format"],
)
def test_files_of_another_kind_are_refused(folder: Path, attack: Callable[[bytes], bytes]) -> None:
    path = folder / "distilled.safetensors"
    path.write_bytes(attack(path.read_bytes()))
    write_sums(folder)
    with pytest.raises(UserError, match=r"^distilled\.safetensors: "):
        load(folder)


@pytest.mark.parametrize("name", ["audit.json", "evaluation.json"])
@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, "\udcff"])
def test_json_of_another_kind_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    write_sums(folder)
    with pytest.raises(UserError, match=f"^{name}: "):
        load(folder)
