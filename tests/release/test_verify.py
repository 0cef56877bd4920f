"""Verifying a release: every change is named, and what merely looks unusual passes."""

import hashlib
import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medistill.audit.check import Check
from medistill.audit.gate import summarise
from medistill.audit.table import TABLE
from medistill.errors import ReleaseError, UserError
from medistill.files import write_json
from medistill.nets import Architecture
from medistill.release import manifest
from medistill.release.bundle import write_release, write_sums
from medistill.release.consistent import overall_verdict, require_honest_audit
from medistill.release.keys import make_keys, read_private_key
from medistill.release.load import release_digest
from medistill.release.names import collision, fault_of_name
from medistill.release.parse import parse_yaml
from medistill.release.signature import write_signature
from medistill.release.verify import verify

FILES = [
    "README.md",
    "audit.json",
    "config.yaml",
    "croissant.json",
    "dicom/COVID/0000.dcm",
    "distilled.npz",
    "distilled.safetensors",
    "environment.json",
    "evaluation.json",
    "images/COVID/0003.png",
    "images/metadata.jsonl",
    "metadata.json",
    "preview.png",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from release.conftest import toy_parts

    return write_release(tmp_path_factory.mktemp("written") / "toy", **toy_parts())


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "toy"))


def test_what_is_found(folder: Path, toy: dict[str, Any]) -> None:
    found = verify(folder)
    assert found.files == sum(path.is_file() for path in folder.rglob("*")) - 1 == 23
    assert found.digest == release_digest(folder) == hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    assert (found.fingerprint, found.trusted, found.folder) == (None, False, folder)
    assert torch.equal(found.distilled.images, toy["distilled"].images) and found.config["data"]["size"] == 16


@pytest.mark.parametrize("name", FILES)
def test_each_changed_or_missing_file_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ReleaseError, match=f"^{name}: changed"):
        verify(folder)
    (folder / name).unlink()
    with pytest.raises(ReleaseError, match=f"^{name}: missing"):
        verify(folder)


def test_no_byte_of_a_file_may_change(folder: Path) -> None:
    data = bytearray((folder / "audit.json").read_bytes())
    for place in range(0, len(data), 41):
        data[place] ^= 4
        (folder / "audit.json").write_bytes(data)
        with pytest.raises(ReleaseError, match=r"^audit\.json: changed"):
            verify(folder)
        data[place] ^= 4


def test_a_needed_file_must_be_listed(folder: Path) -> None:
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "audit.json" not in line))
    with pytest.raises(ReleaseError, match=r"^audit\.json: not listed"):
        verify(folder)


def test_what_is_no_folder_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder") as raised:
        verify(tmp_path / "absent")
    assert raised.value.code == 2


def test_other_files_may_lie_in_a_release(folder: Path) -> None:
    (folder / "sites").mkdir()
    (folder / "sites" / "a b.md").write_text("x")
    write_sums(folder)
    assert verify(folder).files == 24


def test_a_file_put_in_place_of_another_meanwhile_is_not_read(folder: Path, tmp_path: Path) -> None:
    found = manifest.read_manifest(folder)
    for put in (os.mkfifo, lambda path: path.symlink_to(tmp_path), lambda path: path.write_bytes(b"other")):
        (folder / "audit.json").unlink()
        put(folder / "audit.json")
        with pytest.raises(ReleaseError, match=r"^audit\.json: (was replaced|cannot be read|changed)"):
            found.read("audit.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "audit.json").chmod(0)
    with pytest.raises(ReleaseError, match=r"^audit\.json: cannot be read"):
        verify(folder)


@pytest.mark.parametrize(
    "classes",
    [
        ("COVID-19 / positive", "..", "con"),
        ("Ärzte", "ärzte", "A\u0308rzte x"),
        ("正常", "फेफड़े", "رئة"),
        (" a ", "a", "A"),
    ],
)
def test_classes_may_have_any_name(toy: dict[str, Any], tmp_path: Path, classes: tuple[str, ...]) -> None:
    toy["distilled"] = replace(toy["distilled"], classes=classes)
    toy["evaluation"]["classes"] = list(classes)
    assert verify(write_release(tmp_path / "toy", **toy)).distilled.classes == classes


def test_sets_in_colour_and_ordered_sets_with_soft_labels_pass(toy: dict[str, Any], tmp_path: Path) -> None:
    drawn = torch.Generator().manual_seed(0)
    toy["distilled"] = replace(
        toy["distilled"],
        images=torch.randn(6, 3, 16, 16, generator=drawn) * 2,
        labels=torch.rand(6, 3, generator=drawn).softmax(1),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        architecture=Architecture("convnet", 3, 3, 16, 4, 2),
        sequence=((2, 0.1), (6, 1 / 3)),
    )
    found = verify(write_release(tmp_path / "toy", **toy))
    assert not (found.folder / "dicom").exists() and found.distilled.sequence == ((2, 0.1), (6, 1 / 3))


def test_gray_sets_far_outside_of_black_and_white_pass(toy: dict[str, Any], tmp_path: Path) -> None:
    drawn = torch.Generator().manual_seed(0)
    toy["distilled"] = replace(toy["distilled"], images=torch.randn(6, 1, 16, 16, generator=drawn) * 40)
    assert verify(write_release(tmp_path / "toy", **toy)).files == 23


def test_a_pixel_may_differ_by_its_rounding_and_no_more(toy: dict[str, Any], tmp_path: Path) -> None:
    """A pixel half-way between two levels may be either: machines round differently; the next level is a change."""
    images = toy["distilled"].images.clone()
    images[0, 0, 0, 0] = (100.5 / 255 - 0.5) / 0.25
    toy["distilled"] = replace(toy["distilled"], images=images)
    folder = write_release(tmp_path / "toy", **toy)
    path = folder / "images" / "COVID" / "0000.png"
    for level, passes in ((100, True), (101, True), (99, False), (102, False)):
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[0, 0] = level
        Image.fromarray(pixels).save(path)
        said = json.loads((folder / "metadata.json").read_text())
        files = (folder / "images").rglob("*.*")
        said["views"][1]["bytes"] = sum(file.stat().st_size for file in files)
        write_json(folder / "metadata.json", said)
        write_sums(folder)
        if passes:
            verify(folder)
        else:
            with pytest.raises(ReleaseError, match=r"^images/COVID/0000\.png: 1 of its pixels"):
                verify(folder)


def test_a_slide_keeps_all_of_its_sixteen_bits(folder: Path) -> None:
    """Two stored steps are 0.00003 of the range between black and white, and yet a change."""
    path = folder / "dicom" / "COVID" / "0000.dcm"
    data = bytearray(path.read_bytes())
    stored = np.frombuffer(data, dtype="<u2", offset=len(data) - 512)
    stored[7] = stored[7] + 2 if stored[7] < 1000 else stored[7] - 2
    path.write_bytes(data)
    write_sums(folder)
    with pytest.raises(ReleaseError, match=r"^dicom/COVID/0000\.dcm: 1 of its pixels"):
        verify(folder)


def check(verdict: Any) -> Check:
    return Check(1, "toy", verdict, {}, None, None, "none: toy", "none: toy", "Toy.")


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_verdict_is_the_worst_of_those_that_have_a_say(count: int) -> None:
    """Against the rule written out as cases; the gate's verdict is the same."""
    for verdicts in itertools.product(("pass", "fail", "inconclusive", "not applicable"), repeat=count):
        for left_out in (0, 1):
            said = [verdict for verdict in verdicts if verdict != "not applicable"]
            if said.count("fail"):
                expected = "fail"
            elif said and said.count("pass") == len(said) and not left_out:
                expected = "pass"
            else:
                expected = "inconclusive"
            assert overall_verdict(verdicts, not left_out) == expected
            rows = [row for row in TABLE if row.number == 5] * left_out
            assert summarise([check(verdict) for verdict in verdicts], rows) == expected


def test_a_check_that_failed_in_another_audit_stays_in_the_decision(toy: dict[str, Any], tmp_path: Path) -> None:
    word = "Dr. A. Example: the other audit was of a faulty version: it is known"
    folder = write_release(tmp_path / "toy", **toy, failed_before=["text"], override=word)
    audit = dict(verify(folder).audit)
    assert audit["verdict"] == "pass" and audit["decision"]["failed"] == ["text"]
    audit["decision"] = audit["decision"] | {"override": None}
    with pytest.raises(ReleaseError, match="nobody answers for its release"):
        require_honest_audit(audit, "noise")


@pytest.mark.parametrize("key", ["accepted", "override", "failed", "inconclusive", "not_run", "verdict"])
def test_a_decision_without_one_of_its_parts_is_refused(folder: Path, key: str) -> None:
    audit = dict(verify(folder).audit)
    audit["decision"] = {name: part for name, part in audit["decision"].items() if name != key}
    with pytest.raises(ReleaseError, match=r"audit\.json: .*decision does not"):
        require_honest_audit(audit, "noise")


def test_an_open_verdict_from_a_real_start_needs_an_override(toy: dict[str, Any], tmp_path: Path) -> None:
    toy["audit"]["verdict"] = toy["audit"]["checks"][0]["verdict"] = "inconclusive"
    audit = dict(verify(write_release(tmp_path / "toy", **toy, accept="Dr. A. Example: phantoms")).audit)
    require_honest_audit(audit, "phantom")
    with pytest.raises(ReleaseError, match="from real films, but nobody answers"):
        require_honest_audit(audit, "real")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/name:os.system", "more than plain values"),
        ("a: !custom 1", "more than plain values"),
        ("a: &x [1]\nb: *x", "an alias"),
        ("a: 1\na: 2", "a key twice"),
        ("- a", "a list where a mapping belongs"),
        ("", "a NoneType where a mapping belongs"),
        ("a: [", "not YAML"),
        ("[" * 60_000, "more than 40 values in one another"),
        ("a: 2001-99-99", "not YAML"),
        ("a: 2001-01-01", "not YAML"),
        ("a: .nan", "not YAML"),
        ("a: !!set {b}", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_yaml_is_plain_or_refused(text: str, reason: str) -> None:
    assert parse_yaml("x.yaml", "a: {b: [1, 0.5, yes, null, 'c']}") == {"a": {"b": [1, 0.5, True, None, "c"]}}
    with pytest.raises(ReleaseError, match=f"^x.yaml: .*{reason}"):
        parse_yaml("x.yaml", text)


def test_names_that_mean_the_same_everywhere_pass() -> None:
    for name in ("README.md", "images/lung opacity/0003.png", "images/正常/0003.png", "dicom/Ärzte_/0.dcm", "a/.b.txt"):
        assert fault_of_name(name) is None
    assert collision(["a/b.txt", "a/c.txt", "ab.txt"]) is None
    assert collision(["a/b.txt", "A/c.txt"]) == ("A", "a")
    assert collision(["stra\u00dfe.txt", "STRASSE.txt"]) == ("STRASSE.txt", "stra\u00dfe.txt")


def test_the_words_of_who_is_trusted_are_theirs_the_pixels_are_the_masters(folder: Path, tmp_path: Path) -> None:
    """As of a release that another version of medistill wrote in other words."""
    make_keys(tmp_path / "our")
    key = read_private_key(tmp_path / "our.key")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("**For research, not for diagnosis.**", "Only for research."))
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"format": 99}))
    write_sums(folder)
    write_signature(folder, key)
    assert verify(folder, tmp_path / "our.pub").trusted
    with pytest.raises(ReleaseError, match=r"^metadata\.json: format 99"):
        verify(folder)
    picture = next((folder / "images").rglob("*.png"))
    with Image.open(picture) as image:
        black = Image.new("L", image.size)
    black.save(picture)
    (folder / "signature.json").unlink()
    write_sums(folder)
    write_signature(folder, key)
    with pytest.raises(ReleaseError, match=r"^images/.*are not the master's"):
        verify(folder, tmp_path / "our.pub")


def test_a_card_that_cannot_be_written_of_the_files_is_no_crash(folder: Path) -> None:
    audit = json.loads((folder / "audit.json").read_text())
    audit["checks"][0]["interval"] = [0.81]
    write_json(folder / "audit.json", audit)
    write_sums(folder)
    with pytest.raises(ReleaseError, match=r"^README\.md: cannot be written of the other files"):
        verify(folder)
