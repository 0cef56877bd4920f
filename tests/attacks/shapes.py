"""Attacks on the master's file: what its header claims, and numbers that no network can learn from."""

import json
import math
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from attacks.builders import Attack, edit_header, edit_pixels, hidden, overwrite
from safetensors.torch import load_file, save_file

MASTER = "distilled.safetensors"
NONE = r"distilled\.safetensors: not a distilled set"


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("unpickled",))


def header(change: Any) -> Any:
    """An edit of the header, with sums that fit."""
    return hidden(edit_header(change))


def metadata(**changes: Any) -> Any:
    """Other fields in the metadata; one of them "architecture" changes fields of the network."""

    def change(value: dict[str, Any]) -> None:
        text = json.loads(value["__metadata__"]["medistill"])
        text["architecture"] |= changes.get("architecture", {})
        text |= {key: other for key, other in changes.items() if key != "architecture"}
        value["__metadata__"]["medistill"] = json.dumps(text)

    return header(change)


def tensors(change: Any) -> Any:
    """Other tensors under the same metadata."""

    def repack(folder: Path) -> None:
        path = folder / MASTER
        good = path.read_bytes()
        known = json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])["__metadata__"]
        made = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(made)
        save_file(made, path, metadata=known)

    return hidden(repack)


def number(value: float) -> Any:
    """This number for the first pixel."""

    def write(body: bytearray) -> None:
        body[:4] = struct.pack("<f", value)

    return hidden(edit_pixels(write))


ATTACKS = [
    Attack("pickle for the master", hidden(overwrite(MASTER, pickle.dumps(Bomb()))), NONE),
    Attack("empty master", hidden(overwrite(MASTER, b"")), NONE),
    Attack("header of 2^62 bytes", hidden(overwrite(MASTER, (2**62).to_bytes(8, "little"))), NONE, bomb=True),
    Attack("header of a gigabyte", hidden(overwrite(MASTER, (2**30).to_bytes(8, "little") + b"{}")), NONE, bomb=True),
    Attack(
        "depth of the header",
        hidden(overwrite(MASTER, (900_000).to_bytes(8, "little") + b"[" * 900_000)),
        r"distilled\.safetensors: not JSON",
        bomb=True,
    ),
    Attack("a billion images", header(lambda h: h["images"]["shape"].__setitem__(0, 10**9)), NONE, bomb=True),
    Attack(
        "a shape that overflows", header(lambda h: h["images"].update(shape=[2**40, 2**40, 16, 16])), NONE, bomb=True
    ),
    Attack("offsets behind the end", header(lambda h: h["images"].update(data_offsets=[0, 2**40])), NONE, bomb=True),
    Attack("offsets that overlap", header(lambda h: h["labels"].update(data_offsets=[0, 72])), NONE),
    Attack("no such type", header(lambda h: h["images"].update(dtype="PICKLE")), NONE),
    Attack(
        "network a billion wide", metadata(architecture={"width": 10**9}), r"distilled\.safetensors: no network can be"
    ),
    Attack("network of no kind", metadata(architecture={"name": "os.system"}), r"distilled\.safetensors: network 'os"),
    Attack("format of tomorrow", metadata(format=99), r"distilled\.safetensors: format 99"),
    Attack("not a number", number(math.nan), r"distilled\.safetensors: .* not finite"),
    Attack("infinity", number(-math.inf), r"distilled\.safetensors: .* not finite"),
    Attack("pixels beyond numbers", number(3e38), r"images/COVID/0000\.png: 1 of its pixels"),
    Attack(
        "deviation beyond numbers", metadata(std=[1e39]), r"distilled\.safetensors: images whose pixels are not finite"
    ),
    Attack(
        "float64",
        tensors(lambda t: t.update(images=t["images"].double())),
        r"distilled\.safetensors: images are torch\.float64 and labels torch\.float32",
    ),
    Attack(
        "integers",
        tensors(lambda t: t.update(images=t["images"].to(torch.int8))),
        r"distilled\.safetensors: images are",
    ),
    Attack(
        "labels that are none", tensors(lambda t: t["labels"].mul_(2)), r"distilled\.safetensors: labels are no prob"
    ),
    Attack("a tensor besides", tensors(lambda t: t.update(more=torch.zeros(3))), NONE),
    Attack("learning rate below zero", metadata(lr=-1), r"distilled\.safetensors: a learning rate or deviation"),
    Attack("learning rate of 400 digits", metadata(lr=10**400), NONE),
    Attack(
        "classes of one name", metadata(classes=["COVID", "COVID", "normal"]), r"distilled\.safetensors: two classes"
    ),
    Attack("class with an escape", metadata(classes=["\x1b[2J", "a", "b"]), r"distilled\.safetensors: a name that is"),
    Attack(
        "another start",
        metadata(provenance={"start": "real", "method": "iadd"}),
        r"(audit|metadata)\.json: |dicom/COVID/0000\.dcm: holds another MediaStorageSOPInstanceUID",
    ),
]
