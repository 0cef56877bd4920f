"""The master's file: every value that no release holds is refused with what is wrong."""

import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from medistill.data.zca import Zca
from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.files import write_tensors
from medistill.nets import Architecture
from medistill.release.master import parse_master

IMAGES = torch.zeros(6, 1, 16, 16)
LABELS = torch.eye(3).repeat(2, 1)
NET = Architecture("convnet", 1, 3, 16, 4, 2)


@pytest.fixture
def distilled(toy: dict[str, Any]) -> Distilled:
    made: Distilled = toy["distilled"]
    return made


def packed(distilled: Distilled, path: Path, **changes: Any) -> bytes:
    """The bytes of the set's file with changed fields."""
    fields = {"images": distilled.images, "labels": distilled.labels} | changes
    metadata = {
        name: changes.get(name, getattr(distilled, name))
        for name in ("lr", "sequence", "classes", "mean", "std", "augment", "provenance")
    }
    metadata |= {"architecture": vars(changes.get("architecture", distilled.architecture)), "format": 1}
    write_tensors(path, {k: v for k, v in fields.items() if isinstance(v, Tensor)}, metadata)
    return path.read_bytes()


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
        ({"mean": (10**400,)}, "OverflowError"),
        ({"std": (3e38,), "images": IMAGES + 3e38}, "pixels are not finite"),
        ({"std": (1e-320,)}, "pixels are not finite"),
        ({"classes": ("a", "a", "b")}, "two classes"),
        ({"classes": ("a", "", "b")}, "empty"),
        ({"classes": ("a", "x" * 201, "b")}, "longer"),
        ({"classes": ("a", "b\x07", "c")}, "not printable"),
        ({"architecture": replace(NET, channels=5)}, "no network"),
        ({"surplus": IMAGES}, "not a distilled set"),
    ],
)
def test_values_that_no_release_holds_are_refused(
    distilled: Distilled, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    data = packed(distilled, tmp_path / "set", **changes)
    with pytest.raises(ReleaseError, match=rf"^distilled\.safetensors: .*{reason}"):
        parse_master(data)


def test_good_values_are_read(distilled: Distilled, tmp_path: Path) -> None:
    found = parse_master(packed(distilled, tmp_path / "set", images=IMAGES, sequence=[[3, 0.5], [6, 1 / 3]]))
    assert torch.equal(found.images, IMAGES) and torch.equal(found.labels, distilled.labels)
    assert found.sequence == ((3, 0.5), (6, 1 / 3)) and found.architecture == distilled.architecture


def test_a_whitening_is_refused(distilled: Distilled, tmp_path: Path) -> None:
    """No release carries one, so `normalise` applies none."""
    replace(distilled, zca=Zca.fit(distilled.images)).save(tmp_path / "set")
    with pytest.raises(ReleaseError, match=r"^distilled\.safetensors: a whitening, which no release carries"):
        parse_master((tmp_path / "set").read_bytes())


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
        lambda good: bytes(8) + good[8:],
        huge_header,
        lambda good: good.replace(b'\\"format\\"', b'\\"formot\\"'),
        lambda good: good.replace(b"0.02", b"1e99"[:4]).replace(b"1e99", b" NaN"),
    ],
    ids=["pickle", "empty", "cut", "long header", "no header", "huge tensor", "no format", "NaN"],
)
def test_files_of_another_kind_are_refused(
    distilled: Distilled, tmp_path: Path, attack: Callable[[bytes], bytes]
) -> None:
    good = packed(distilled, tmp_path / "set")
    assert attack(good) != good
    with pytest.raises(ReleaseError, match=r"^distilled\.safetensors: "):
        parse_master(attack(good))
