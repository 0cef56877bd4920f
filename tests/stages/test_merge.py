"""`medistill merge`: several folders become one that is a release like any other."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from release.conftest import toy_parts
from release.ledgers import kept, ledger

import medistill
from medistill.cli import main
from medistill.release.bundle import write_release
from medistill.release.keys import read_private_key
from medistill.release.load import release_digest
from medistill.release.signature import write_signature

ORDERS = {"north": (0, 1, 2), "south": (2, 0, 1)}


def site(folder: Path, name: str, number: int, toy: dict[str, Any] | None = None, **more: Any) -> Path:
    """A release of a site, its classes in an order of its own."""
    toy = toy or toy_parts()
    made, order = toy["distilled"], ORDERS.get(name, (0, 1, 2))
    own = replace(
        made,
        images=made.images + number / 10,
        labels=made.labels[:, list(order)],
        classes=tuple(made.classes[k] for k in order),
        lr=made.lr * (number + 1),
    )
    settings = f"data: {{cohort: /srv/{name}/films.csv, size: 16, name: {name}}}\nevaluate: {{steps: 50}}\n"
    parts = toy | {"distilled": own, "config_yaml": settings, "overview": toy["overview"] | {"name": name}}
    return write_release(folder / name, **parts | {"evaluation": {"arms": toy["evaluation"]["arms"]}} | more)


def guarded(name: str, number: int, folder: Path, noise: float) -> Path:
    """A release of a site in DP mode."""
    toy = kept(toy_parts(), ledger(name, noise))
    return site(folder, name, number, toy)


def code_of(*words: object) -> int | str | None:
    """The exit code of a command that ends early."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Pairs of keys of three houses."""
    for name in ("north", "south", "ours"):
        main(["keygen", str(tmp_path / "keys" / name)])
    return tmp_path / "keys"


def test_the_merged_folder_is_a_release_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    north, south, out = site(tmp_path, "north", 0), site(tmp_path, "south", 1), tmp_path / "merged"
    main(["merge", str(north), str(south), "--out", str(out)])
    said = capsys.readouterr().out
    assert "12 images (COVID 4, lung opacity 4, normal 4)" in said
    assert "neither the worth of the merged set nor an attack on the whole of it was measured" in said
    assert f"release {release_digest(out)} -> {out}" in said
    main(["verify", str(out)])
    merged, parts = medistill.load(out), [medistill.load(folder) for folder in (north, south)]
    assert torch.equal(merged.images, torch.cat([part.images for part in parts]))
    assert merged.targets.tolist() == [0, 1, 2, 0, 1, 2] * 2
    assert merged.lr == pytest.approx((parts[0].lr * parts[1].lr) ** 0.5)
    assert [part["digest"] for part in merged.provenance["parts"]] == [release_digest(f) for f in (north, south)]
    assert (merged.provenance["method"], merged.provenance["start"]) == ("merge", "noise")
    assert merged.evaluation["arms"] == {} and merged.evaluation["parts"]["south"] == parts[1].evaluation
    assert [check["site"] for check in merged.audit["checks"]] == ["north", "south"]
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["evaluate"] == {"steps": 50} and config["data"]["size"] == 16
    assert "/srv" not in "".join(path.read_text() for path in out.glob("*.yaml"))
    card = (out / "README.md").read_text()
    assert "## Of which releases it is made" in card and release_digest(north) in card
    assert "It was not measured" in card and "No formal guarantee" in card
    assert json.loads((out / "metadata.json").read_text())["images"] == 12
    assert len(list((out / "images").rglob("*.png"))) == 12
    written = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    main(["merge", str(north), str(south), "--out", str(out)])
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == written


def test_releases_are_merged_again_and_none_counts_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    north, south, west = (site(tmp_path, name, number) for number, name in enumerate(("north", "south", "west")))
    main(["merge", str(north), str(south), "--out", str(tmp_path / "pair")])
    main(["merge", str(tmp_path / "pair"), str(west), "--out", str(tmp_path / "all")])
    main(["merge", str(north), str(south), str(west), "--out", str(tmp_path / "at once")])
    again, at_once = medistill.load(tmp_path / "all"), medistill.load(tmp_path / "at once")
    assert torch.equal(again.images, at_once.images) and torch.equal(again.labels, at_once.labels)
    assert again.lr == pytest.approx(at_once.lr)
    inner = again.provenance["parts"][0]["parts"]
    assert [part["digest"] for part in inner] == [release_digest(folder) for folder in (north, south)]
    capsys.readouterr()
    assert code_of("merge", tmp_path / "pair", south, "--out", tmp_path / "twice") == 2
    assert "south: holds the same images as pair" in capsys.readouterr().err
    assert not (tmp_path / "twice").exists()


def test_every_release_must_bear_the_signature_of_one_of_the_keys(
    tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [site(tmp_path, name, number) for number, name in enumerate(("north", "south"))]
    pubs = ["--pub", keys / "north.pub", keys / "south.pub"]
    command = ["merge", *folders, "--out", tmp_path / "merged", *pubs]
    write_signature(folders[0], read_private_key(keys / "north.key"))
    assert code_of(*command) == 1
    assert "south/signature.json: missing" in capsys.readouterr().err
    write_signature(folders[1], read_private_key(keys / "ours.key"))
    assert code_of(*command) == 1
    assert "south/signature.json: signed by another key" in capsys.readouterr().err
    (folders[1] / "signature.json").unlink()
    write_signature(folders[1], read_private_key(keys / "south.key"))
    main([str(word) for word in (*command, "--key", keys / "ours.key")])
    merged = medistill.load(tmp_path / "merged", pub=keys / "ours.pub")
    signed = [part["signed_by"] for part in merged.provenance["parts"]]
    assert signed == [medistill.load(folder).fingerprint for folder in folders] and len(set(signed)) == 2
    assert code_of("verify", tmp_path / "merged", "--pub", keys / "north.pub") == 1


def test_other_classes_need_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = toy_parts()
    made = toy["distilled"]
    fewer = replace(
        made,
        images=made.images[:2] + 1,
        labels=torch.eye(2),
        classes=("normal", "COVID"),
        architecture=replace(made.architecture, classes=2),
    )
    north, few = site(tmp_path, "north", 0), site(tmp_path, "few", 1, distilled=fewer, evaluation={"arms": {}})
    assert code_of("merge", north, few, "--out", tmp_path / "merged") == 2
    assert "few: its classes are normal, COVID, those of north" in capsys.readouterr().err
    main(["merge", str(north), str(few), "--out", str(tmp_path / "merged"), "--classes", "union"])
    merged = medistill.load(tmp_path / "merged")
    assert merged.targets.tolist() == [0, 1, 2, 0, 1, 2, 2, 0]
    assert merged.labels[6:].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_terms_of_one_site_bind_whoever_trains_on_the_whole(tmp_path: Path) -> None:
    """A model learns its licence from the release it was trained on."""
    toy = toy_parts()
    bound = toy["overview"] | {"name": "south", "licence": "CC BY-NC 4.0"}
    north, south = site(tmp_path, "north", 0), site(tmp_path, "south", 1, overview=bound)
    main(["merge", str(north), str(south), "--out", str(tmp_path / "merged")])
    out, track = tmp_path / "model", ["--track", "false"]
    main(["train", str(tmp_path / "merged"), "--out", str(out), "--steps", "2", *track])
    told = json.loads((out / "model.json").read_text())["release"]
    assert told["licence"] == "non-commercial use only, for south: CC BY 4.0 (north); CC BY-NC 4.0 (south)"
    assert (told["name"], told["citation"]) == ("north, south", "Planted et al. 2021")
    assert told["digest"] == release_digest(tmp_path / "merged")
    shared = json.loads((tmp_path / "merged" / "metadata.json").read_text())["source"]
    assert shared == {key: told[key] for key in ("name", "citation", "licence")}


@pytest.mark.parametrize("word", ["", "A. Example: other cities"])
def test_budgets_are_stated_with_what_they_rest_on(
    tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noises = {"north": 4.0, "south": 2.0}
    folders = [guarded(name, number, tmp_path, noise) for number, (name, noise) in enumerate(noises.items())]
    out = tmp_path / "merged"
    main(["merge", *map(str, folders), "--out", str(out), "--disjoint", word])
    accounts = {name: ledger(name, noise) for name, noise in noises.items()}
    spent = [account["spent"]["epsilon"] for account in accounts.values()]
    stated = json.loads((out / "privacy_ledger.json").read_text())
    assert stated["epsilon"] == pytest.approx(max(spent) if word else sum(spent))
    assert stated["composition"] == ("parallel" if word else "sequence") and stated["parts"] == accounts
    said, card = capsys.readouterr().out, (out / "README.md").read_text()
    assert f"privacy: epsilon {stated['epsilon']:.4g}, delta" in said
    assert ("A. Example answers: other cities" in card) == bool(word) and ("added up" in card) == (not word)
    assert medistill.load(out).provenance.get("disjoint") == (
        {"name": "A. Example", "reason": "other cities"} if word else None
    )
    assert "No formal guarantee" not in card
    main(["verify", str(out)])


def test_one_release_without_a_ledger_leaves_no_promise(tmp_path: Path) -> None:
    north, south = guarded("north", 0, tmp_path, 4.0), site(tmp_path, "south", 1)
    main(["merge", str(north), str(south), "--out", str(tmp_path / "merged")])
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "no guarantee for the whole: south makes none" in card
    assert "No formal guarantee (differential privacy) is given." in card
    # what each release told before is told again, and nothing else
    merged = medistill.load(tmp_path / "merged")
    assert "withheld" in merged.evaluation["parts"]["north"] and merged.evaluation["parts"]["south"]["arms"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one"], "folders: 1 release; give two or more to merge"),
        (["one", "none"], "none: no such folder"),
        (["one", "two", "--disjoint", "surely"], "--disjoint is 'surely'; give who answers for it and why"),
        (["one", "two", "--pub", "absent.pub"], "absent.pub"),
        (["one", "two", "--key", "absent.key"], "absent.key"),
        (["one", "two", "--classes", "some"], "classes is 'some'; give one of same, union"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("one", "two")):
        site(tmp_path, name, number)
    assert code_of("merge", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(("factor", "told"), [(2.9, False), (12.5, True)])
def test_learning_rates_far_apart_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, told: bool
) -> None:
    made = toy_parts()["distilled"]
    other = replace(made, images=made.images + 1, lr=made.lr * factor)
    north, south = site(tmp_path, "north", 0), site(tmp_path, "south", 1, distilled=other)
    main(["merge", str(north), str(south), "--out", str(tmp_path / "merged")])
    assert ("note: the learning rates differ 12.5-fold" in capsys.readouterr().out) == told


def test_an_unnamed_result_is_named_after_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("one", "two")):
        site(tmp_path, name, number)
    main(["merge", "one", "two"])
    main(["merge", "one", "two"])
    (folder,) = tmp_path.glob("merged-????????")
    assert len(medistill.load(folder)) == 12


def test_nothing_stands_until_it_is_signed(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped where it would sign, a merge leaves no folder; neither does it leave one beside."""
    north, south = site(tmp_path, "north", 0), site(tmp_path, "south", 1)
    command = ["merge", str(north), str(south), "--out", str(tmp_path / "to" / "merged"), "--key"]
    command.append(str(keys / "ours.key"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("medistill.release.signature.sign", stop)
        assert code_of(*command) == 130
    assert not list((tmp_path / "to").iterdir())
    main(command)
    main(["verify", str(tmp_path / "to" / "merged"), "--pub", str(keys / "ours.pub")])


@pytest.mark.parametrize("place", ["north/x", "north/images/x", "link/x"])
def test_no_release_is_written_into_another(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    north, south = site(tmp_path, "north", 0), site(tmp_path, "south", 1)
    (tmp_path / "link").symlink_to(north / "images")
    assert code_of("merge", north, south, "--out", tmp_path / place) == 2
    assert "lies in the release north, which could be verified no more" in capsys.readouterr().err
    main(["verify", str(north)])


def test_without_a_name_no_release_is_written_into_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    north, south = site(tmp_path, "north", 0), site(tmp_path, "south", 1)
    monkeypatch.chdir(north)
    assert code_of("merge", ".", south) == 2
    assert "lies in the release north" in capsys.readouterr().err
    main(["verify", str(north)])
