"""`medistill trace`: the walk of a real run against what its folder says, and what it says of a record that differs."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import medistill.stages.release as module
from medistill.audit.check import Check, Outcome
from medistill.cli import configure, main
from medistill.data.imageset import ImageSet
from medistill.files import sha256
from medistill.release.load import load
from medistill.stages.audit import audit
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate
from medistill.stages.experts import experts
from medistill.stages.recorded import origin
from medistill.stages.release import release
from medistill.stages.session import Session
from medistill.track import open_record, open_tracker
from medistill.versions import environment


class House:
    """A finished run with its store, and a copy of the store that a test may spoil."""

    def __init__(self, folder: Path, tiny):
        self.folder, self.tiny, self.store = folder, tiny, folder / "store"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.store / 'mlflow.db'}"

    def session(self, *more: str) -> Session:
        os.environ["MLFLOW_TRACKING_URI"] = self.uri
        options = self.tiny.options(self.folder / "run", "--evaluate.baselines", "false", *more)
        return Session(configure("run", options), lambda line: None)

    def key(self, stage: str) -> str:
        (done,) = (self.folder / "run").glob(f"{stage}-*/done.json")
        return json.loads(done.read_text())["key"]

    def runs(self, stage: str) -> list:
        """Attempts at a stage in the store, oldest first."""
        client = open_tracker("tiny", self.uri).client
        experiment = client.get_experiment_by_name("tiny").experiment_id
        return client.search_runs(
            [experiment], f"tags.`medistill.stage` = '{stage}'", order_by=["attributes.start_time ASC"]
        )

    def artifact(self, stage: str, name: str) -> Path:
        return self.store / "mlartifacts" / self.runs(stage)[-1].info.run_id / "artifacts" / name

    def tags(self, stage: str) -> dict[str, str]:
        return dict(self.runs(stage)[-1].data.tags)

    def plant(self, stage: str, key: str, tags: dict[str, str], error: type[BaseException] | None = None, **texts: str):
        """Record an attempt at a stage that never was."""
        tracker = open_tracker("tiny", self.uri)
        try:
            with tracker.stage(tracker.parent("planted", "planted", {}), stage, key, {}, tags) as run:
                for name, text in texts.items():
                    run.text(f"{name}.json", text)
                if error:
                    raise error
        except (KeyboardInterrupt, ValueError):
            pass


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The run, made once."""
    house = House(tmp_path_factory.mktemp("traced"), tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", house.uri)
        one = house.session()
        for stage in (experts, distill, evaluate, audit, release):
            stage(one)
    return house


@pytest.fixture
def house(whole, tmp_path, monkeypatch):
    """The run with a store that has moved, as a reviewer gets it; the first one is not there meanwhile."""
    house = House(whole.folder, whole.tiny)
    house.store = tmp_path / "copy"
    shutil.copytree(whole.store, house.store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", house.uri)
    away = whole.store.with_name("away")
    whole.store.rename(away)
    yield house
    shutil.rmtree(whole.store, ignore_errors=True)  # MLflow keeps later artifacts where the experiment began
    away.rename(whole.store)


@pytest.fixture
def folder(whole):
    (folder,) = (whole.folder / "run").glob("release-*")
    return folder


def trace(capsys, folder: Path, *more: str, expect: int = 0) -> str:
    """What the verb prints."""
    if expect:
        with pytest.raises(SystemExit) as stopped:
            main(["trace", str(folder), *more])
        assert stopped.value.code == expect
    else:
        main(["trace", str(folder), *more])
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_the_walk_leads_from_the_digest_to_the_films(house, folder, tmp_path, capsys):
    printed = trace(capsys, folder, "--tracking", house.uri, "--json", str(tmp_path / "walk.json"))
    walk = json.loads((tmp_path / "walk.json").read_text())
    assert walk["release"] == sha256(folder / "SHA256SUMS") and walk["does_not_match"] == []
    assert list(walk["steps"]) == sorted(("data", "experts", "distill", "evaluate", "audit", "release"))
    for stage, step in walk["steps"].items():
        run = step["run"]
        if stage != "release":
            assert run["key"] == house.key(stage)
        assert run["status"] == "FINISHED" and step["others"] == {} and run["run_id"] in printed
        assert step["environment"] == environment()
    data = house.folder / "run" / f"data-{house.key('data')[:8]}"
    for split in ("train", "val", "test"):
        films = ImageSet.load(data / f"{split}.safetensors")
        assert walk["data"][split]["digest"] == films.digest and walk["data"][split]["counts"] == {"films": len(films)}
        assert f"data        {split}: {films.digest} ({len(films)} films)" in printed
    (made,) = (house.folder / "run").glob("distill-*/distilled.safetensors")
    assert {walk["steps"][stage]["run"]["tags"]["set"] for stage in ("distill", "evaluate", "audit", "release")} == {
        sha256(made)
    }
    assert "accepted by tester: phantoms" in printed and "verdict     inconclusive" in printed
    assert printed.strip().endswith("traced: the folder and the record agree")
    checkout = Path(medistill_folder()).parent
    if (checkout / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
        assert head.stdout[:8] in printed or "+changes" in printed
    for mark in house.tiny.marks:
        assert mark not in printed and mark not in json.dumps(walk)


def medistill_folder() -> str:
    import medistill

    return str(Path(medistill.__file__).parent)


def test_attempts_that_did_not_end_well_are_counted(house, folder, capsys):
    house.plant("distill", house.key("distill"), {}, KeyboardInterrupt)
    house.plant("distill", house.key("distill"), {}, ValueError)
    house.plant("distill", house.key("distill"), {"set": "0" * 64})
    house.plant("evaluate", house.key("evaluate"), {})
    printed = trace(capsys, folder)
    (line,) = [line for line in printed.splitlines() if line.startswith("evaluate ")]
    assert house.runs("evaluate")[0].info.run_id in line and "1 of 2 (others: 1 FINISHED)" in line, "not the later one"
    (line,) = [line for line in printed.splitlines() if line.startswith("distill ")]
    assert "1 of 3 (others: 1 FAILED, 1 KILLED)" in line and "FINISHED" in line, "not the attempt that made another set"


def test_a_release_cut_off_before_it_was_recorded_is_recorded_later(house, monkeypatch, capsys):
    one = house.session("--release.accept", "Dr. A: cut off")

    def killed(run, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "record", killed)
        release(one)
    (folder,) = [
        place for place in (house.folder / "run").glob("release-*") if "Dr. A" in (place / "audit.json").read_text()
    ]
    assert "knows no release" in trace(capsys, folder, expect=2)
    release(house.session("--release.accept", "Dr. A: cut off"))
    printed = trace(capsys, folder)
    assert "recorded, some time after it was written" in printed and "accepted by Dr. A: cut off" in printed
    assert "1 of 1" in printed and "also        release" in printed and "accepted by tester: phantoms" in printed
    runs = len(house.runs("release"))
    release(house.session("--release.accept", "Dr. A: cut off"))
    assert len(house.runs("release")) == runs
    shutil.rmtree(folder)


def test_a_signature_is_recorded_and_its_loss_is_named(house, folder, tmp_path, monkeypatch, capsys):
    """The walk begins at the run that wrote the release, not at the one that recorded the signature."""
    monkeypatch.chdir(tmp_path)
    main(["keygen", "house"])
    first = house.runs("release")[-1].info.run_id
    release(house.session("--release.key", "house.key"))
    signature = folder / "signature.json"
    printed = trace(capsys, folder)
    assert f"signed by   {json.loads(signature.read_text())['fingerprint']}" in printed
    assert f"run {first}" in printed and "1 of 2 (others: 1 FINISHED)" in printed
    assert "some time after" not in printed
    settings = open_record(house.uri).text(house.runs("release")[-1].info.run_id, "config.yaml")
    assert yaml.safe_load(settings)["release"]["accept"] == "tester: phantoms" and "house.key" not in settings
    signature.unlink()
    assert "signature.json: the folder is signed by nobody's key, its record says " in trace(capsys, folder, expect=1)


def test_a_store_that_knows_nothing_of_it(house, folder, tmp_path, capsys):
    open_tracker("tiny", f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}")
    other = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    assert "knows no release" in trace(capsys, folder, "--tracking", other, expect=2)
    absent = tmp_path / "nowhere" / "mlflow.db"
    assert "no such file" in trace(capsys, folder, "--tracking", f"sqlite:///{absent}", expect=2)
    assert not absent.parent.exists()


def test_models_of_the_release_are_told_and_a_lying_alias_is_named(house, folder, tmp_path, capsys):
    for name in ("model.safetensors", "model.json"):
        (tmp_path / name).write_text("{}")
    tracker = open_tracker("tiny", house.uri)
    made = tracker.register(house.runs("distill")[-1].info.run_id, "tiny", tmp_path, origin(load(folder)))
    assert (made.released, made.why) == (False, "verdict inconclusive; accepted by tester")
    printed = trace(capsys, folder)
    assert f"model tiny version 1 (not called released: {made.why})" in printed
    tracker.client.set_registered_model_alias("tiny", "released", "1")
    assert "model tiny version 1: called released, but the audit does not clear" in trace(capsys, folder, expect=1)


class Leak:
    """A check of the audit's table that always fails."""

    number, name, quick = 9, "text", True

    def check(self, candidate, private):
        failed = Check(9, "text", "fail", {}, None, 0.9, "none: planted", "none: planted", "Planted.")
        return Outcome(failed, ())


def test_an_audit_that_fails_later_takes_the_alias_away(house, folder, tmp_path, monkeypatch):
    for name in ("model.safetensors", "model.json"):
        (tmp_path / name).write_text("{}")
    tracker = open_tracker("tiny", house.uri)
    tracker.register(house.runs("distill")[-1].info.run_id, "tiny", tmp_path, origin(load(folder)))
    tracker.client.set_model_version_tag("tiny", "1", "withheld", "")  # as if the release's audit had passed
    tracker.settle()
    assert tracker.client.get_registered_model("tiny").aliases.keys() == {"released"}
    monkeypatch.setattr("medistill.stages.audit.TABLE", (Leak(),))
    before = set((house.folder / "run").glob("audit-*"))
    audit(house.session("--audit.planted", "22"))
    assert tracker.client.get_registered_model("tiny").aliases == {}
    (later,) = set((house.folder / "run").glob("audit-*")) - before
    shutil.rmtree(later)


def test_a_merged_release_names_what_to_trace(house, folder, tmp_path, capsys, monkeypatch):
    from medistill.stages import trace as verb

    found = verb.verify(folder)
    parts = [{"name": "north", "digest": "a" * 64}, {"name": "south", "digest": "b" * 64}]
    story = replace(found.distilled, provenance={"method": "merge", "parts": parts})
    monkeypatch.setattr(verb, "verify", lambda _: replace(found, distilled=story))
    printed = trace(capsys, folder, expect=2)
    assert f"trace its own: north {'a' * 64}, south {'b' * 64}" in printed


def test_a_changed_folder_is_named_before_any_walk(house, folder, tmp_path, capsys):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    (copy / "evaluation.json").write_text("{}")
    printed = trace(capsys, copy, expect=1)
    assert "evaluation.json" in printed and "stage" not in printed


def test_everything_in_which_the_record_differs_is_named(house, folder, capsys):
    audited = house.artifact("audit", "audit.json")
    audited.write_text(audited.read_text().replace('"inconclusive"', '"pass"'))
    config = house.artifact("release", "config.yaml")
    changed = yaml.safe_load(config.read_text())
    changed["distill"]["ipc"] = 7
    config.write_text(yaml.safe_dump(changed))
    sums = house.artifact("release", "SHA256SUMS")
    sums.write_text(sums.read_text().replace("a", "b", 1))
    decision = house.artifact("release", "decision.json")
    decision.write_text(decision.read_text().replace("tester", "somebody"))
    house.artifact("experts", "environment.json").unlink()
    client = open_tracker("tiny", house.uri).client
    client.set_tag(house.runs("release")[-1].info.run_id, "accepted", "somebody: else")
    client.delete_tag(house.runs("evaluate")[-1].info.run_id, "medistill.key")
    printed = trace(capsys, folder, expect=1)
    named = [line.removeprefix("does not match: ") for line in printed.splitlines() if line.startswith("does not")]
    expected = (
        f"evaluate: no run with the key {house.tags('release')['evaluate'][:16]}... is recorded",
        "experts: environment.json of its run is missing",
        "SHA256SUMS: the release's run recorded other files than the folder holds",
        "audit.json: its decision is not the one that the release's run recorded",
        "audit.json: who answered (accepted) is not whom the release's run names",
        "config.yaml: distill.ipc is 1, in the release's run 7",
        "audit.json: not what the audit's run recorded",
    )
    assert sorted(named) == sorted(expected)
    assert "7 things above do not match" in printed
    assert "settings    data: distill.ipc 1, later 7" in printed


@pytest.mark.parametrize(("shift", "named"), [(0.0, 0), (0.01, 1)])
def test_means_are_held_against_the_record(house, folder, capsys, monkeypatch, shift, named):
    """The tiny release withholds its figures, so the house's own stand in for them."""
    from medistill.stages import trace as verb

    (file,) = (house.folder / "run").glob("evaluate-*/evaluation.json")
    evaluation = json.loads(file.read_text())
    evaluation["arms"]["distilled"]["mean"]["accuracy"] += shift
    (file,) = (house.folder / "run").glob("audit-*/audit.json")
    verified = verb.verify(folder)
    whole = json.loads(file.read_text()) | {"decision": verified.audit["decision"]}
    found = replace(verified, evaluation=evaluation, audit=whole)
    monkeypatch.setattr(verb, "verify", lambda _: found)
    printed = trace(capsys, folder, expect=named)
    assert printed.count("does not match: ") == named
    assert ("does not match: evaluation.json: accuracy of distilled is" in printed) == bool(named)


def test_experts_that_were_cut_off_before_their_mark_are_recorded(house, folder, capsys):
    (done,) = (house.folder / "run").glob("experts-*/done.json")
    done.unlink()
    client = open_tracker("tiny", house.uri).client
    client.set_terminated(house.runs("experts")[-1].info.run_id, "KILLED")
    assert "experts: no attempt is recorded that ended well, 1 KILLED" in trace(capsys, folder, expect=1)
    experts(house.session())
    assert done.exists() and "1 of 2 (others: 1 KILLED)" in trace(capsys, folder)


def test_a_failure_in_another_audit_of_the_set_is_told(house, folder, capsys):
    """Whether by the set's key or its bytes; what fails for another set is not told."""
    report = json.dumps({"verdict": "fail", "checks": [{"name": "text", "verdict": "fail"}]})
    tags = house.tags("audit")
    for name in ("distilled", "set"):
        house.plant("audit", f"planted-{name}", {name: tags[name], "verdict": "fail"}, audit=report)
    house.plant("audit", "stranger", {"distilled": "0" * 64, "verdict": "fail"}, audit=report)
    house.plant("audit", "stopped", {"distilled": tags["distilled"]}, KeyboardInterrupt)
    printed = trace(capsys, folder, expect=1)
    assert printed.count("another audit of the same set failed (text; run") == 2
    assert "also        audit planted-" in printed and "stranger" not in printed and "stopped" not in printed
