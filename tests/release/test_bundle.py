"""The release folder: whole or absent, the same bytes, a card whose example works."""

import copy
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from release.ledgers import kept, ledger
from torch import Tensor

import medistill
from medistill.data.zca import Zca
from medistill.errors import UserError
from medistill.release import bundle
from medistill.release.bundle import write_release
from medistill.release.card import FOLDER
from medistill.release.guarded import FEW, verdicts_only
from medistill.release.redact import WITHHELD, redact

CLASS_OF = ("COVID", "lung opacity", "normal", "COVID", "lung opacity", "normal")

FILES = {
    "README.md",
    "SHA256SUMS",
    "audit.json",
    "config.yaml",
    "croissant.json",
    "distilled.npz",
    "distilled.safetensors",
    "environment.json",
    "evaluation.json",
    "images/metadata.jsonl",
    "metadata.json",
    "preview.png",
    *(f"images/{name}/{index:04d}.png" for index, name in enumerate(CLASS_OF)),
    *(f"dicom/{name}/{index:04d}.dcm" for index, name in enumerate(CLASS_OF)),
}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_release_is_whole_and_checked_by_sha256sum(tmp_path: Path, toy: dict[str, Any]) -> None:
    folder = write_release(tmp_path / "shared" / "toy", **toy)
    assert set(contents(folder)) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert names == sorted(FILES - {"SHA256SUMS"})
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(FILES) - 1 and done.stderr == ""
    assert json.loads((folder / "evaluation.json").read_text()) == toy["evaluation"]
    audit = json.loads((folder / "audit.json").read_text())
    assert audit.pop("decision")["verdict"] == "pass" and audit == toy["audit"]
    with Image.open(folder / "preview.png") as preview:
        assert preview.format == "PNG" and preview.convert("L").getextrema()[0] < 200


def test_the_same_release_has_the_same_bytes(tmp_path: Path, toy: dict[str, Any]) -> None:
    first = contents(write_release(tmp_path / "one", **toy))
    assert contents(write_release(tmp_path / "two", **copy.deepcopy(toy))) == first


def test_an_identical_release_is_left_alone_and_another_is_kept(tmp_path: Path, toy: dict[str, Any]) -> None:
    folder = write_release(tmp_path / "toy", **toy)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write_release(folder, **toy)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    other = toy | {"distilled": replace(toy["distilled"], lr=0.03)}
    with pytest.raises(UserError, match="different release"):
        write_release(folder, **other)
    (folder / "preview.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"preview\.png: changed"):
        write_release(folder, **toy)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no release"):
        write_release(tmp_path / "thesis", **toy)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis", "toy"]


def test_a_failed_audit_leaves_nothing(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["audit"]["verdict"] = toy["audit"]["checks"][0]["verdict"] = "fail"
    with pytest.raises(UserError, match="nearest real neighbour"):
        write_release(tmp_path / "deep" / "toy", **toy)
    assert list(tmp_path.iterdir()) == []


def test_a_word_for_a_failed_audit_stands_in_the_release_and_its_card(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["audit"]["verdict"] = toy["audit"]["checks"][0]["verdict"] = "fail"
    folder = write_release(tmp_path / "toy", **toy, override="Dr. A. Example: a drill | with phantoms")
    decision = json.loads((folder / "audit.json").read_text())["decision"]
    assert decision["override"] == {"name": "Dr. A. Example", "reason": "a drill | with phantoms"}
    assert decision["failed"] == ["nearest real neighbour"]
    card = (folder / "README.md").read_text()
    assert "**Released against the audit** by Dr. A. Example: a drill \\| with phantoms" in card


def test_a_release_in_dp_mode_holds_no_number_measured_on_patients(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy, words = kept(toy, ledger("1", 4.0)), ["Every check passed.", "nearest: 812 films"]
    statement = toy["audit"]["checks"][1]
    toy["audit"] |= {"context": {"start": "noise", "n": 812}, "words": words}
    folder = write_release(tmp_path / "toy", **toy)
    audit = json.loads((folder / "audit.json").read_text())
    assert audit["checks"][0]["verdict"] == "pass" and audit["checks"][0]["statistic"] == {}
    assert audit["checks"][1] == statement and "digest" not in audit
    assert json.loads((folder / "privacy_ledger.json").read_text()) == toy["ledger"]
    assert "withheld" in json.loads((folder / "evaluation.json").read_text())
    text = (folder / "README.md").read_text() + (folder / "audit.json").read_text()
    for number in ("0.812", "812", "388", "120", "0.94"):
        assert number not in text, number
    assert "outside epsilon and stay in the house" in text and "No formal guarantee" not in text
    assert medistill.load(folder).audit["verdict"] == "pass"


def test_a_whitened_set_leaves_nothing(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["distilled"] = replace(toy["distilled"], zca=Zca.fit(toy["distilled"].images))
    with pytest.raises(UserError, match="whitening, which tells about the training data, so nothing is released"):
        write_release(tmp_path / "deep" / "toy", **toy)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("step", ["write_views", "croissant", "card", "_preview", "write_sums"])
def test_killed_in_the_middle_leaves_nothing(
    tmp_path: Path,
    toy: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: type[BaseException],
) -> None:
    def fall(*_: object, **__: object) -> None:
        raise error("planted")

    monkeypatch.setattr(bundle, step, fall)
    with pytest.raises(error, match="planted"):
        write_release(tmp_path / "toy", **toy)
    assert list(tmp_path.iterdir()) == []


def test_redaction_withholds_what_locates_data() -> None:
    config = {
        "data": {
            "cohort": "films.csv",
            "size": 64,
            "classes": ["COVID", "normal"],
            "sources": ["/mnt/pacs/a", "site b"],
            "citation": "Planted 2021, https://example.org/x",
            "labels": {"C:\\films\\covid": "COVID"},
            "mean": [0.5],
        },
        "out": PurePosixPath("runs/1"),
        "cache": None,
        "tracking_uri": "http://mlflow.ward:5000",
        "method": "iadd",
        "start": "noise",
        "licence": "CC BY 4.0",
        "table": "my cohort.xlsx",
        "home": "~",
        "up": "../films",
        "share": "\\\\pacs\\films",
        "seed": 3,
    }
    before = copy.deepcopy(config)
    assert redact(config) == {
        "data": {
            "cohort": WITHHELD,
            "size": 64,
            "classes": ["COVID", "normal"],
            "sources": [WITHHELD, "site b"],
            "citation": "Planted 2021, https://example.org/x",
            "labels": WITHHELD,
            "mean": [0.5],
        },
        "out": WITHHELD,
        "cache": None,
        "tracking_uri": WITHHELD,
        "method": "iadd",
        "start": "noise",
        "licence": "CC BY 4.0",
        "table": WITHHELD,
        "home": WITHHELD,
        "up": WITHHELD,
        "share": WITHHELD,
        "seed": 3,
    }
    assert config == before
    assert redact(redact(config)) == redact(config)


def test_no_path_leaves_in_a_release(tmp_path: Path, toy: dict[str, Any]) -> None:
    toy["config_yaml"] += "# from /srv/hospital/secret\ntracking: sqlite:////srv/hospital/mlflow.db\n"
    toy["distilled"].provenance["trajectories"] = "/srv/hospital/experts"
    folder = write_release(tmp_path / "toy", **toy)
    for name, data in contents(folder).items():
        assert b"srv" not in data and str(tmp_path).encode() not in data, name
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {
        "data": {"cohort": WITHHELD, "size": 16},
        "method": "iadd",
        "tracking": WITHHELD,
    }


def test_a_config_that_is_no_mapping_is_refused(tmp_path: Path, toy: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config\.yaml: a str"):
        write_release(tmp_path / "toy", **(toy | {"config_yaml": "/srv/films.csv"}))
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_card_learns(
    tmp_path: Path, toy: dict[str, Any], toy_films: Callable[[int, str], tuple[Tensor, Tensor]]
) -> None:
    # At this size a second thread waits more than it works.
    torch.set_num_threads(1)
    folder = write_release(tmp_path / "toy", **toy)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code.count(FOLDER) == 1 and len([line for line in code.splitlines() if line]) <= 10
    names: dict[str, Any] = {}
    exec(code.replace(FOLDER, str(folder)), names)
    films, labels = toy_films(60, "test")
    with torch.no_grad():
        found = names["network"](names["data"].normalise(films)).softmax(1).argmax(1)
    assert (found == labels).double().mean() > 0.8


def test_the_example_of_an_ordered_set_learns_from_all_pairs_in_turn(
    tmp_path: Path, toy: dict[str, Any], toy_films: Callable[[int, str], tuple[Tensor, Tensor]]
) -> None:
    torch.set_num_threads(1)
    toy["distilled"] = replace(toy["distilled"], sequence=((3, 0.05), (6, 0.02)))
    folder = write_release(tmp_path / "toy", **toy)
    text = (folder / "README.md").read_text()
    assert "- learning rate: in this order 0.05 on the first 3 images, then 0.02 on the first 6 images" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert code.count(FOLDER) == 1 and len([line for line in code.splitlines() if line]) <= 11
    names: dict[str, Any] = {}
    exec(code.replace(FOLDER, str(folder)), names)
    films, labels = toy_films(60, "test")
    with torch.no_grad():
        found = names["network"](names["data"].normalise(films)).softmax(1).argmax(1)
    assert (found == labels).double().mean() > 0.8

    # in this order, by hand
    network, data = names["data"].network(seed=0), toy["distilled"]
    for n, lr in ((3, 0.05), (6, 0.02)):
        velocity = [torch.zeros_like(p) for p in network.parameters()]
        for _ in range(300):
            loss = -(data.labels[:n] * network(data.images[:n]).log_softmax(1)).sum(1).mean()
            slopes = torch.autograd.grad(loss, list(network.parameters()))
            for p, g, v in zip(network.parameters(), slopes, velocity, strict=True):
                p.data -= lr * v.mul_(0.9).add_(g + 5e-4 * p.data)
    with torch.no_grad():
        expected = network(names["data"].normalise(films))
        torch.testing.assert_close(names["network"](names["data"].normalise(films)), expected, rtol=1e-3, atol=1e-3)


def test_an_audit_of_few_patients_keeps_its_verdicts_alone(toy: dict[str, Any]) -> None:
    (known,) = toy["audit"]["checks"]
    reduced = verdicts_only(toy["audit"] | {"checks": [known | {"number": 1}], "words": ["a", "b"], "context": {}}, FEW)
    (check,) = reduced["checks"]
    assert (check["verdict"], check["statistic"], check["interval"], check["power"]) == ("pass", {}, None, None)
    assert check["explanation"] == f"A{FEW[1:]}." and "epsilon" not in json.dumps(reduced)
    assert reduced["verdict"] == toy["audit"]["verdict"]
