"""DP mode as a user runs it: what is refused, who is left out, what is resumed, and a public side without films."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from medistill.audit.check import Check, Outcome
from medistill.audit.table import TABLE
from medistill.cli import configure, main
from medistill.config import Config, Data, Distill, Experts, Private
from medistill.data.cohort import read_cohort
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.experts import private as dp
from medistill.experts.ledger import Ledger, recorded
from medistill.files import digest_of, sha256
from medistill.stages import apart
from medistill.stages import private as stage
from medistill.stages.audit import audit
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate
from medistill.stages.experts import experts
from medistill.stages.load import load
from medistill.stages.release import release
from medistill.stages.session import Session

DP = ("--experts.private.epsilon", "30", "--experts.private.steps", "4", "--experts.private.rows", "4",
      "--experts.lr", "1", "--distill.iterations", "3", "--track", "false")  # fmt: skip
SILENT = lambda line: None  # noqa: E731


def fails(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("medistill: ")
    return lines[0]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("data.zca", "true", "whitening is a statistic of the patients' films, more than experts.private.epsilon 8"),
        ("distill.start", "real", "distill.start is real, but such images are made of patients' films"),
        ("distill.start", "class_mean", "distill.start is class_mean, but such images are made of patients' films"),
        ("distill.start", "private_means", "nothing pays for them; give experts.private.means a share"),
        ("data.classes", "[]", "data.classes is empty, but reading the names off the patients' films"),
        ("experts.private.class_weights", "[1, 2]", "holds 2 numbers for 3 classes"),
        ("experts.private.class_weights", "[1, 0, 1]", "must be positive"),
        ("experts.momentum", "0.9", "private experts take plain steps"),
        ("experts.private.steps", "31", "experts.private.steps is 31, no multiple of experts.private.rows 30"),
        ("experts.private.rows", "15", "beyond the trajectory's last, experts.private.rows 15"),
        ("experts.private.rate", "0", "experts.private.rate is 0"),
        ("experts.private.clip", "0", "experts.private.clip is 0"),
        ("experts.private.delta", "1", "experts.private.delta is 1"),
        ("experts.private.means", "1", "experts.private.means is 1"),
        ("experts.private.epsilon", "-1", "experts.private.epsilon is -1"),
        ("experts.private.noise", "0", "noise"),
    ],
)
def test_what_the_guarantee_does_not_cover_is_refused_in_one_line(capsys, option, value, message):
    base = ["--experts.private.epsilon", "8", "--data.classes", "[Normal, Pneumonia, COVID]"]
    assert message in fails(capsys, "distill", *base, f"--{option}", value)


@pytest.mark.parametrize(("option", "value"), [("distill.importance", "wiener"), ("distill.start", "private_means")])
def test_what_needs_private_experts_is_refused_without(capsys, option, value):
    assert "experts.private.epsilon" in fails(capsys, "distill", f"--{option}", value)


def test_the_shipped_config_takes_another_epsilon_and_leaves_its_unknown_patients_out():
    words = ["--config", "configs/covid19_dp.yaml", "--experts.private.epsilon", "3"]
    config = configure("run", words)
    assert config.experts.private.on and config.experts.private.epsilon == 3 and config.distill.start == "noise"


@pytest.mark.realdata
def test_of_the_real_films_779_patients_are_known(real_data):
    """783 ids, four of which belong to others' groups; the 350 films without an id were groups of their own."""
    data = configure("run", ["--config", "configs/covid19_dp.yaml"]).data
    cohort = read_cohort(real_data / data.cohort, columns=data.columns, classes=data.classes, unknown_patients=True)
    known = cohort.table[(cohort.table["patient_id"] != "unknown") & (cohort.table["split"] == "train")]
    assert cohort.unknown_patients == 350 and known["patient_id"].nunique() == 779 and len(known) == 1117


@pytest.fixture
def cohort(tiny, tmp_path):
    """The options of a run on a copy of the tiny cohort, which can be moved away."""
    place = tmp_path / "hospital" / "cohort"
    shutil.copytree(tiny.cohort.parent, place)
    moved = replace(tiny, cohort=place / tiny.cohort.name)
    return lambda *more: moved.options(tmp_path / "run", *DP, *more)


def session(options):
    said = []
    return Session(configure("run", options), said.append), said


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def ledger(tmp_path):
    return json.loads(only(tmp_path / "run", "experts-*/privacy_ledger.json").read_text())


# wiener has its own tests: on so few steps its layers rise above the noise by chance
NEEDS = ("--distill.start", "private_means", "--experts.private.means", "0.1", "--distill.importance", "off")
"""The options of a distillation that need most of what the private side writes."""


def move_away(tmp_path):
    """Leave neither the films nor the image sets made of them where they were."""
    for private in (tmp_path / "hospital", only(tmp_path / "run", "data-*")):
        private.rename(tmp_path / f"away-{private.name}")


@pytest.mark.parametrize("options", [(), NEEDS], ids=["noise", "means"])
def test_the_public_side_needs_no_film(cohort, tmp_path, options):
    """By the config that names them, films that are gone are not missed."""
    experts(session(cohort(*options))[0])
    move_away(tmp_path)
    distill(session(cohort(*options))[0])
    made = Distilled.load(only(tmp_path / "run", "distill-*/distilled.safetensors"))
    assert made.classes == ("Normal", "Pneumonia", "COVID") and made.images.isfinite().all()
    start = options[1] if options else "noise"
    assert (made.mean, made.std, made.provenance["start"]) == ((0.5,), (0.25,), start)
    assert (
        made.provenance["guarantee"].startswith("epsilon 30, delta") and "unit patient" in made.provenance["guarantee"]
    )


def test_a_whole_run_distils_in_a_process_that_is_told_of_no_film(cohort, tmp_path, monkeypatch):
    """A fresh process, with a config and an environment without a path to the cohort, after the films are gone."""
    monkeypatch.setenv("MEDISTILL_DATA", str(tmp_path / "hospital"))
    one, _ = session(cohort(*NEEDS))
    experts(one)
    told, run = [], subprocess.run

    def listen(command, *, env, check):
        told.append(yaml.safe_load(Path(command[-1]).read_text()))
        assert "hospital" not in Path(command[-1]).read_text() + " ".join(env.values())
        move_away(tmp_path)
        return run(command, env=env, check=check)

    monkeypatch.setattr(apart.subprocess, "run", listen)
    apart.distill_apart(one)
    (settings,) = told
    assert settings["data"]["cohort"] == "withheld" and settings["experts"]["private"]["epsilon"] == 30
    said = []
    distill(Session(one.config, said.append))
    assert said[0].startswith("distill: done already")


def test_a_process_apart_that_fails_says_so(cohort, monkeypatch):
    monkeypatch.setattr(apart.subprocess, "run", lambda command, **more: subprocess.CompletedProcess(command, 2))
    with pytest.raises(UserError, match="the process apart ended with code 2"):
        apart.distill_apart(session(cohort())[0])


def test_films_of_unknown_patients_are_left_out(cohort, tiny, tmp_path):
    """36 training patients of 2 films; a third of the films loses its patient, so some patients are left with one."""
    options = cohort("--data.unknown_patients", "true")
    path = tmp_path / "hospital" / "cohort" / tiny.cohort.name
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table["split"] = ["train" if row < 72 else "val" if row < 84 else "test" for row in range(len(table))]
    table.loc[::3, "patient_id"] = "unknown"
    table.to_csv(path, index=False)
    known = table[(table["split"] == "train") & (table["patient_id"] != "unknown")]
    one, said = session(options)
    splits = load(one)
    index, unit = stage.units(one, splits)
    assert unit == "patient" and len(index) == len(known) == 48
    assert len(splits.train.groups[index].unique()) == known["patient_id"].nunique()
    experts(one)
    assert ledger(tmp_path)["terms"]["patients"] == known["patient_id"].nunique()
    assert "note: 24 training films without a patient id are left out" in said


def test_without_patients_the_unit_is_an_image(cohort, monkeypatch):
    one, _ = session(cohort())
    splits = load(one)
    table = pd.DataFrame({"label": ["a"] * 5, "split": ["train", "test", "train", "val", "train"]})
    monkeypatch.setattr(stage, "cohort_table", lambda session: table)
    index, unit = stage.units(one, splits)
    assert index.tolist() == [0, 1, 2] and unit == "image"
    monkeypatch.setattr(stage, "cohort_table", lambda session: table.assign(patient_id="unknown"))
    with pytest.raises(UserError, match="no training film has a patient id"):
        stage.units(one, splits)


def kill_at(monkeypatch, number):
    """Ctrl-C at the so-manieth noise, after it was charged."""
    uniform, left = dp.uniform, [number]

    def draw(*shape):
        left[0] -= shape[:2] == (2, 4)
        if left[0] == 0:
            raise KeyboardInterrupt
        return uniform(*shape)

    monkeypatch.setattr(dp, "uniform", draw)


def test_a_killed_run_goes_on_with_fresh_noise_and_pays_for_it(cohort, tmp_path, monkeypatch):
    """Killed in the third step of the second expert: its two rows stand, the lost step stays in the ledger."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 7)
        experts(session(cohort())[0])
    folder = only(tmp_path / "run", "experts-*")
    charged = [(e["what"], e["first"], e["steps"]) for e in ledger(tmp_path)["entries"]]
    assert charged == [("expert 0", 0, 4), ("expert 1", 0, 3)]
    begun = load_file(folder / "expert_0001.begun.safetensors")["theta"]
    first = (folder / "expert_0000.safetensors").read_bytes()
    experts(session(cohort())[0])
    rows = load_file(folder / "expert_0001.safetensors")["theta"]
    assert len(begun) == 3 and len(rows) == 5 and torch.equal(rows[:3], begun)
    assert (folder / "expert_0000.safetensors").read_bytes() == first
    assert [(e["what"], e["first"], e["steps"]) for e in ledger(tmp_path)["entries"]] == [*charged, ("expert 1", 2, 2)]
    assert not list(folder.glob("*.begun.*"))
    before = (folder / "privacy_ledger.json").read_bytes()
    one, said = session(cohort())
    experts(one)
    assert "there already" in said[-1] and (folder / "privacy_ledger.json").read_bytes() == before


def test_no_file_of_the_public_side_holds_a_digest_of_films_or_a_seed(cohort, tmp_path):
    """A digest is a function of all patients without noise; it stays in the file that stays in the house."""
    options = cohort("--experts.private.means", "0.1")
    one, _ = session(options)
    experts(one)
    distill(one)
    digests = [getattr(load(one), name).digest for name in ("train", "val", "test")]
    files = [p for place in ("experts-*/*", "distill-*/*") for p in (tmp_path / "run").glob(place)]
    house = {"data.json", "done.json"}
    for path in files:
        content = path.read_bytes()
        if path.name not in house or path.parent.name.startswith("distill"):
            assert not any(digest[:8].encode() in content for digest in digests), path.name
        assert b'"seed"' not in content and b"generator" not in content, path.name
    assert {p.name for p in files} >= {"means.safetensors", "constants.json", "expert_0001.safetensors", *house}


class Moody:
    """A check of the audit's table that fails where so many copies are planted."""

    number, name, quick = 9, "text", True

    def check(self, candidate, private):
        verdict = "fail" if private.config.audit.planted == 22 else "pass"
        done = Check(9, "text", verdict, {"films": 7}, None, 0.9, "none: planted", "none: planted", "Planted.")
        return Outcome(done, ())


def house_digests(one, run):
    """All digests that films have a part in: of their sets, and the keys of the stages that read them."""
    marks = [
        json.loads(p.read_text()) for stage in ("data", "evaluate", "audit") for p in run.glob(f"{stage}-*/*.json")
    ]
    keys = [mark[name] for mark in marks for name in ("key", "digest") if name in mark]
    names = [p.name.split("-")[1] for stage in ("data", "evaluate", "audit") for p in run.glob(f"{stage}-*")]
    return {text[:8] for text in [*load(one).digests.values(), *keys, *names]}


def test_no_file_of_a_release_holds_a_digest_of_films(cohort, tmp_path, monkeypatch):
    """One audit failed, another did not: each has its own folder, whose name follows from what is in it."""
    row = next(row for row in TABLE if row.number == 10)
    monkeypatch.setattr("medistill.stages.audit.TABLE", (Moody(), row))
    fast = ("--evaluate.baselines", "false", "--evaluate.steps", "2", "--release.override", "Dr. B: a drill")
    for verb in (experts, distill, evaluate):
        verb(session(cohort(*fast))[0])
    failing = cohort(*fast, "--audit.planted", "22")
    audit(session(failing)[0])
    first = release(session(failing)[0])
    audit(session(cohort(*fast))[0])
    one, said = session(cohort(*fast))
    second = release(one)
    assert any(line.startswith("note: another audit of this set failed: text") for line in said)
    audits = {folder: json.loads((folder / "audit.json").read_text()) for folder in (first, second)}
    assert [audits[folder]["verdict"] for folder in (first, second)] == ["fail", "pass"]
    assert [audits[folder]["decision"]["failed"] for folder in (first, second)] == [["text"], ["text"]]
    digests = house_digests(one, tmp_path / "run")
    assert len(digests) > 5
    for folder, told in audits.items():
        for path in folder.rglob("*"):
            assert not path.is_file() or not any(digest.encode() in path.read_bytes() for digest in digests), path
        decides = {
            "stage": "release",
            "format": json.loads((folder / "metadata.json").read_text())["format"],
            "distilled": sha256(folder / "distilled.safetensors"),
            "ledger": json.loads((folder / "privacy_ledger.json").read_text()),
            "overview": {"name": "tiny", "citation": "", "licence": ""},
            "audit": told,
        }
        assert folder.name == f"release-{digest_of(decides)[:8]}"
    for options, folder in ((failing, first), (cohort(*fast), second)):
        assert release(session(options)[0]) == folder


def test_changed_films_need_another_folder(cohort, tiny, tmp_path):
    experts(session(cohort())[0])
    film = next((tmp_path / "hospital" / "cohort").rglob("*.png"))
    table = tmp_path / "hospital" / "cohort" / tiny.cohort.name
    lines = [line for line in table.read_text().splitlines() if film.name not in line]
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="the films have changed since these private experts saw them"):
        experts(session(cohort())[0])


def test_experts_of_another_account_are_not_distilled(cohort, tmp_path):
    """Files of epsilon 60 in the place of those of epsilon 30 have the right shape, and no right to its ledger."""
    experts(session(cohort())[0])
    experts(session(cohort("--experts.private.epsilon", "60"))[0])
    one, other = sorted((tmp_path / "run").glob("experts-*"), key=lambda f: recorded(f)["terms"]["epsilon"])
    shutil.copy(other / "expert_0001.safetensors", one)
    with pytest.raises(UserError, match=r"expert_0001.safetensors: was not drawn on the account"):
        distill(session(cohort())[0])


def test_a_set_is_not_audited_by_another_account(cohort, tmp_path):
    """The experts were lost and drawn again: the new ledger holds nothing of the noise that this set was made with."""
    experts(session(cohort())[0])
    distill(session(cohort())[0])
    shutil.rmtree(only(tmp_path / "run", "experts-*"))
    experts(session(cohort())[0])
    with pytest.raises(UserError, match=r"distill-\w+: was made of private experts whose account is not"):
        audit(session(cohort())[0])


def halved(record):
    return json.dumps(record | {"entries": record["entries"][:1]})


@pytest.mark.parametrize("change", [lambda record: json.dumps(record)[:40], halved], ids=["cut", "halved"])
def test_a_changed_ledger_stops_every_verb(cohort, tmp_path, change):
    """Experts and set are there already, and not a word of that over an account that nobody can trust."""
    one, said = session(cohort())
    experts(one)
    distill(one)
    book = only(tmp_path / "run", "experts-*/privacy_ledger.json")
    kept = book.read_text()
    said.clear()
    book.write_text(change(json.loads(kept)))
    for verb in (experts, distill, audit):
        with pytest.raises(UserError, match="was changed after the experts were trained, so nobody knows what is"):
            verb(one)
    shutil.rmtree(only(tmp_path / "run", "distill-*"))
    with pytest.raises(UserError, match="was changed after the experts were trained"):
        distill(one)
    assert not said
    book.write_text(kept)
    experts(one)
    distill(one)
    assert "there already" in said[0]


def test_a_second_ledger_on_the_same_patients_is_told(cohort, tmp_path):
    experts(session(cohort())[0])
    spent = ledger(tmp_path)["spent"]["epsilon"]
    one, said = session(cohort("--experts.private.epsilon", "10"))
    experts(one)
    (note,) = [line for line in said if line.startswith("note: 1 more ledgers stand in")]
    assert f"has epsilon {spent + 10:.3g} about the patients they share" in note


def test_plain_experts_keep_their_place_whatever_the_private_settings_say():
    """The DP mode's settings are no part of the key of plain experts, nor the films of that of private ones."""
    data = Data(classes=["Normal", "COVID"])
    private = Private(epsilon=1)
    plain, other = (Session(Config(data=data, experts=Experts(private=Private(steps=s)))) for s in (30, 60))
    assert stage.place(plain, None)[0].key == stage.place(other, None)[0].key
    dp_mode = Session(Config(data=data, experts=Experts(private=private), distill=Distill(max_start_epoch=9)))
    withheld = Session(replace(dp_mode.config, data=replace(data, cohort="withheld")))
    assert stage.place(dp_mode, None)[0].key == stage.place(withheld, None)[0].key != stage.place(plain, None)[0].key


def test_the_noise_known_to_distillation_is_that_of_the_ledger(cohort, tmp_path):
    one, _ = session(cohort())
    experts(one)
    book = Ledger.read(only(tmp_path / "run", "experts-*"))
    terms, noise = ledger(tmp_path)["terms"], ledger(tmp_path)["noise"]
    assert book.step_variance(0.5) == pytest.approx((0.5 * noise["step"] * terms["clip"] / terms["patients"]) ** 2)
