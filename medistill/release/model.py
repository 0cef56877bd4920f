"""A classifier trained on a release, as a folder: weights and what a film needs before they see it.

Nothing in it is unpickled, and a folder from elsewhere is believed in nothing: every size is checked before memory is
spent on it.
"""

import json
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from medistill.config.net import misfit
from medistill.data.imageset import normalise
from medistill.data.mask import blank_border
from medistill.errors import UserError
from medistill.evaluate.student import predict
from medistill.files import sha256, write_json, write_tensors, write_text
from medistill.nets import NETWORKS, Architecture
from medistill.release.reading import Reading, reading_from, reading_problem
from medistill.seeds import generator

WEIGHTS = "model.safetensors"
FACTS = "model.json"
METRICS = "metrics.json"
CARD = "README.md"
USE = "for research and teaching; not for diagnosis"

FORMAT = 1
MAX_FACTS = 2**20
"""Bytes of a model.json that is read: beyond any that `write_model` writes."""

MAX_SIZE = 512
MAX_CLASSES = 10_000
MAX_STUDENTS = 100
MAX_CONSTANT = 1e6
"""Of a mean or deviation of pixels in [0, 1]; beyond, arithmetic overflows."""


_AGAIN = "fetch the folder again from its source, or train again"


@dataclass(frozen=True, eq=False)
class Model:
    """Networks trained on one release, and all that is needed to show them a film.

    Attributes:
        architecture: of every network.
        classes: the K class names.
        mean: the constants of the normalisation, one a channel.
        std: likewise.
        reading: how a film is read and prepared.
        students: the networks; their mean probability is the classifier's.
        facts: what else model.json says: training, release, use. JSON-able.
    """

    architecture: Architecture
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reading: Reading
    students: tuple[nn.Module, ...]
    facts: dict[str, Any]

    def to(self, device: torch.device) -> "Model":
        """The same networks, moved to a device."""
        for student in self.students:
            student.to(device)
        return self

    def probabilities(self, films: Tensor, device: torch.device) -> Tensor:
        """(S, B, K) float32, by each of S networks on `device`, of films (B, C, H, W) in [0, 1] as `decode` gives them.

        The border is blanked here, as it was on the films the release was made of.
        """
        seen = normalise(blank_border(films, self.reading.mask), self.mean, self.std)
        return torch.stack([predict(student, seen, device) for student in self.students])


def write_model(folder: Path, model: Model, metrics: Mapping[str, Any], card: str) -> None:
    """Write model.safetensors, model.json, metrics.json and README.md: the folder is there whole or not at all.

    Raises:
        UserError: something else stands in the folder's place.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; name another folder with --out, or move this one away")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        tensors = {
            f"{number}.{name}": tensor
            for number, student in enumerate(model.students)
            for name, tensor in student.state_dict().items()
        }
        write_tensors(temporary / WEIGHTS, tensors, {"format": FORMAT})
        facts = model.facts | {
            "format": FORMAT,
            "use": USE,
            "architecture": asdict(model.architecture),
            "classes": list(model.classes),
            "mean": list(model.mean),
            "std": list(model.std),
            "films": asdict(model.reading),
            "students": len(model.students),
            "weights": sha256(temporary / WEIGHTS),
        }
        if wrong := _problem(facts):
            raise UserError(f"train: {wrong}, so no model can be kept of this release")
        write_json(temporary / FACTS, facts)
        write_json(temporary / METRICS, metrics)
        write_text(temporary / CARD, card)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_model(folder: Path) -> Model:
    """Read what `write_model` wrote.

    Raises:
        UserError: naming the file that is missing, was changed, or holds what no network can.
    """
    facts = read_facts(folder)
    if wrong := _problem(facts):
        raise UserError(f"{FACTS}: {wrong}; {_AGAIN}")
    architecture = Architecture(**facts["architecture"])
    path = _plain_file(folder, WEIGHTS)
    try:
        tensors = _weights(path, architecture, facts["students"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{WEIGHTS}: not a file of weights ({type(error).__name__}); {_AGAIN}") from error
    if sha256(path) != facts["weights"]:
        raise UserError(f"{WEIGHTS}: not the weights that {FACTS} speaks of (their SHA-256 differs); {_AGAIN}")
    return Model(
        architecture,
        tuple(facts["classes"]),
        tuple(facts["mean"]),
        tuple(facts["std"]),
        reading_from(facts["films"]),
        tuple(_network(architecture, tensors, number) for number in range(facts["students"])),
        facts,
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """The JSON object of a model.json, its values unchecked. Raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder that `medistill train` wrote")
    path = _plain_file(folder, FACTS)
    if path.stat().st_size > MAX_FACTS:
        raise UserError(f"{FACTS}: {path.stat().st_size:,} bytes, more than any model's {MAX_FACTS:,}; {_AGAIN}")
    try:
        facts = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{FACTS}: not JSON; {_AGAIN}") from error
    if not isinstance(facts, dict):
        raise UserError(f"{FACTS}: a {type(facts).__name__} where a JSON object belongs; {_AGAIN}")
    if facts.get("format") != FORMAT:
        found = facts.get("format")
        raise UserError(f"{FACTS}: format {str(found)[:20]!r}, this version reads {FORMAT}; update medistill")
    return facts


def _plain_file(folder: Path, name: str) -> Path:
    """The path of a file that must be there, and no link, pipe or folder."""
    path = folder / name
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise UserError(f"{folder}: no {name} in it; give the folder that `medistill train` wrote") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{name}: not a plain file; {_AGAIN}")
    return path


def _weights(path: Path, architecture: Architecture, students: int) -> dict[str, Tensor]:
    """All networks' tensors by name; what the header declares is compared before a tensor is read."""
    expected = {f"{n}.{name}": shape for n in range(students) for name, shape in _shapes(architecture).items()}
    with safe_open(path, framework="pt") as file:
        found = {name: file.get_slice(name) for name in file.offset_keys()}
        for name in sorted(expected.keys() ^ found.keys()):
            lack = "lacks" if name in expected else "holds a stranger,"
            raise UserError(f"{WEIGHTS}: {lack} {name[:80]!r} of a {architecture.name}; {_AGAIN}")
        for name, shape in expected.items():
            declared, kind = tuple(found[name].get_shape()), found[name].get_dtype()
            if declared != shape or kind != "F32":
                raise UserError(f"{WEIGHTS}: {name} is {kind} {declared}, where F32 {shape} belongs; {_AGAIN}")
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{WEIGHTS}: {name} holds values that are not finite; {_AGAIN}")
    return tensors


def _shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's weights, without the memory for them."""
    a = architecture
    with torch.device("meta"):
        empty = NETWORKS[a.name](a.channels, a.classes, a.size, a.width, a.depth)
    return {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}


def _network(architecture: Architecture, tensors: Mapping[str, Tensor], number: int) -> nn.Module:
    """One student with its weights, in evaluation mode."""
    module, before = architecture.build(generator(0, "network")), f"{number}."
    own = {name.removeprefix(before): tensor for name, tensor in tensors.items() if name.startswith(before)}
    module.load_state_dict(own)
    return module.eval()


def _problem(facts: Mapping[str, Any]) -> str | None:
    """What is wrong with the values of a model.json, or None."""
    classes, students = facts.get("classes"), facts.get("students")
    if not isinstance(classes, list) or not 2 <= len(classes) <= MAX_CLASSES:
        return f"classes: no list of 2 to {MAX_CLASSES:,} names"
    if not all(isinstance(name, str) and name.isprintable() and 0 < len(name) <= 200 for name in classes):
        return "classes: a name that is no printable text of 1 to 200 characters"
    if len(set(classes)) != len(classes):
        return "classes: a name that stands there twice"
    if type(students) is not int or not 1 <= students <= MAX_STUDENTS:
        return f"students: not a whole number from 1 to {MAX_STUDENTS}"
    if not isinstance(facts.get("weights"), str):
        return "weights: no SHA-256"
    return (
        _network_problem(facts.get("architecture"), len(classes))
        or _constants_problem(facts.get("mean"), facts.get("std"), facts["architecture"]["channels"])
        or reading_problem(facts.get("films"), facts["architecture"]["size"])
    )


def _network_problem(net: Any, classes: int) -> str | None:
    """What is wrong with an architecture, or None."""
    fields = {"name", "channels", "classes", "size", "width", "depth"}
    if not isinstance(net, dict) or set(net) != fields:
        return f"architecture: not made of {', '.join(sorted(fields))}"
    if net["name"] not in list(NETWORKS):
        return f"architecture: {str(net['name'])[:40]!r} is not one of {', '.join(NETWORKS)}"
    if any(type(net[name]) is not int or net[name] < 1 for name in fields - {"name"}):
        return "architecture: a size that is not a whole number above zero"
    if net["channels"] not in (1, 3) or net["size"] > MAX_SIZE or net["classes"] != classes:
        return f"architecture: not 1 or 3 channels, up to {MAX_SIZE} pixels a side and {classes} classes"
    if net["depth"] > (24 if net["name"] == "vit" else 7):
        return f"architecture: {net['depth']} blocks, more than any {net['name']} here"
    wrong = misfit(net["name"], net["size"], net["width"], net["depth"])
    return f"architecture: {wrong}" if wrong else None


def _constants_problem(mean: Any, std: Any, channels: int) -> str | None:
    """What is wrong with the constants of the normalisation, or None."""
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, list) or len(values) != channels:
            return f"{name}: no list of {channels} numbers"
        if not all(type(value) in (int, float) and abs(value) <= MAX_CONSTANT for value in values):
            return f"{name}: a value that is not a finite number of bearable size"
    return "std: a value that is not above zero" if min(std) < 1 / MAX_CONSTANT else None


def card(model_facts: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The README of a model's folder, ten lines."""
    release, training = model_facts["release"], model_facts["training"]
    return "\n".join(
        [
            f"# A classifier trained on the release {release['name']}",
            "",
            "**Not for diagnosis.** For research and teaching: nobody has approved it for patients.",
            f"- Classes: {', '.join(classes)}. It saw {training['images']} synthetic images and no film.",
            f"- Release: SHA-256 of its SHA256SUMS {release['digest']}; audit: {release['verdict']}.",
            f"- Licence of the release's source: {release['licence'] or 'not stated'}. "
            f"Cite: {release['citation'] or 'not stated'}.",
            f"- `{WEIGHTS}`: the weights; `{FACTS}`: the network and how a film is prepared for it;",
            f"  `{METRICS}`: how it answers its own training images and, if it was tested, films.",
            "- Use it: `medistill predict THIS_FOLDER FILMS`; the answers speak of patients and stay in the house.",
            "",
        ]
    )
