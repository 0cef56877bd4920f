"""The audit stage: every check once, what patients may be seen in stays, and who signs for the rest."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import medistill.stages.audit as module
from medistill.audit.check import Candidate, Check, Figure, Outcome, Private
from medistill.cli import configure
from medistill.errors import UserError
from medistill.stages.audit import audit, audited
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate
from medistill.stages.experts import experts, ledger_of
from medistill.stages.load import load
from medistill.stages.release import release
from medistill.stages.session import Session


@dataclass
class Fake:
    """A row of the table whose check says what it is told, or is interrupted."""

    number: int
    verdict: str
    quick: bool = True
    shows_patients: bool = False
    interrupted: bool = False
    runs: int = 0
    given: Private | None = None

    @property
    def name(self) -> str:
        return f"fake {self.number}"

    def check(self, candidate: Candidate, private: Private) -> Outcome:
        self.runs, self.given = self.runs + 1, private
        if self.interrupted:
            raise KeyboardInterrupt
        done = Check(
            self.number, self.name, self.verdict, {"n": 3}, (0.1, 0.2), 0.9, "none: fake", "none: fake", "Fake."
        )
        return Outcome(
            done, (Figure(f"fake_{self.number}.png", lambda path: path.write_bytes(b"png"), self.shows_patients),)
        )


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """A run that is ready for its audit."""
    folder = tmp_path_factory.mktemp("audited") / "run"
    one = session(tiny, folder, [])
    for stage in (experts, distill, evaluate):
        stage(one)
    return folder


def session(tiny, folder, said, *more):
    options = tiny.options(folder, "--track", "false", "--evaluate.baselines", "false", "--evaluate.steps", "2", *more)
    return Session(configure("run", options), said.append)


@pytest.fixture
def table(monkeypatch):
    rows = [Fake(1, "pass", shows_patients=True), Fake(2, "inconclusive"), Fake(5, "pass", quick=False)]
    monkeypatch.setattr(module, "TABLE", tuple(rows))
    monkeypatch.setattr(module, "page", lambda report: json.dumps(report["not_run"]))
    return rows


def test_stopped_in_the_middle_it_goes_on_with_the_next_check(tiny, folder, table):
    full = ("--audit.quick", "false", "--audit.planted", "21")
    table[2].interrupted = True
    with pytest.raises(KeyboardInterrupt):
        audit(session(tiny, folder, [], *full))
    with pytest.raises(UserError, match="not audited yet"):
        audited(one := session(tiny, folder, [], *full), load(one))
    table[2].interrupted = False
    said = []
    audit(one := session(tiny, folder, said, *full))
    assert [row.runs for row in table] == [1, 1, 2]
    work, report = audited(one, load(one))
    assert report["verdict"] == "inconclusive" and [check["number"] for check in report["checks"]] == [1, 2, 5]
    assert report["checks"][0]["interval"] == [0.1, 0.2] and report["not_run"] == []
    assert any("fake_1.png shows real films: keep it in the house" in line for line in said)
    assert not any("fake_2.png shows" in line for line in said)
    audit(one)
    assert [row.runs for row in table] == [1, 1, 2] and (work.folder / "summary.md").exists()


def test_checks_are_given_the_house(tiny, folder, table):
    audit(one := session(tiny, folder, []))
    given, splits = table[0].given, load(one)
    assert given.train is splits.train or torch.equal(given.train.images, splits.train.images)
    assert len(given.holdout) == len(splits.val) + len(splits.test)
    assert not set(given.holdout.groups.tolist()) & set(given.train.groups.tolist())
    assert given.start is None and len(given.trajectories) == 2 and given.folder.name == "private"


def test_a_real_start_is_told_to_the_checks(tiny, folder, table):
    options = ("--distill.start", "real", "--distill.iterations", "1", "--distill.lr_images", "1e-9")
    one = session(tiny, folder, [], *options)
    distill(one)
    audit(one)
    given = table[0].given
    final = module.distilled(one, load(one))[1]
    assert torch.allclose(given.train.images[given.start], final.pictures(), atol=1e-5)


def test_what_is_open_is_released_by_name_and_the_name_is_kept(tiny, folder, table):
    audit(session(tiny, folder, []))
    options = ("--release.accept", "")
    with pytest.raises(UserError, match=r"inconclusive: fake 2; not run: fake 5.*--accept"):
        release(session(tiny, folder, [], *options))
    options = ("--release.accept", "Dr. A. Example: films of phantoms")
    released = release(one := session(tiny, folder, [], *options))
    signed = {"name": "Dr. A. Example", "reason": "films of phantoms"}
    assert json.loads((released / "audit.json").read_text())["decision"]["accepted"] == signed
    assert "was accepted by Dr. A. Example: films of phantoms" in (released / "README.md").read_text()
    (beside,) = audited(one, load(one))[0].folder.glob("decision-*.json")
    assert json.loads(beside.read_text())["accepted"] == signed
    assert not Path(released / "summary.md").exists()


def test_a_failed_check_is_overridden_by_name(tiny, folder, table):
    table[1].verdict = "fail"
    options = ("--audit.planted", "22")
    audit(session(tiny, folder, [], *options))
    with pytest.raises(UserError, match=r"'fake 2' .Fake. failed, so nothing is released"):
        release(session(tiny, folder, [], *options))
    released = release(session(tiny, folder, [], *options, "--release.override", "Dr. B: a drill"))
    decision = json.loads((released / "audit.json").read_text())["decision"]
    assert decision["override"] == {"name": "Dr. B", "reason": "a drill"} and decision["failed"] == ["fake 2"]
    # another audit of the same set, which found nothing, does not undo this one
    table[1].verdict = "pass"
    options = ("--audit.planted", "23", "--release.accept", "Dr. C: again")
    audit(session(tiny, folder, [], *options))
    said = []
    with pytest.raises(UserError, match=r"'fake 2', an audit of the same set failed"):
        release(session(tiny, folder, said, *options))
    assert any(line.startswith("note: another audit of this set failed: fake 2 -> ") for line in said)


def test_a_ledger_counts_only_where_the_config_asks_for_one(tiny, folder):
    """A plain run must not borrow a guarantee, and a run in DP mode must not lose its own."""
    (experts_folder,) = folder.glob("experts-*")
    borrowed = experts_folder / "privacy_ledger.json"
    borrowed.write_text("{}")
    one = session(tiny, folder, [])
    assert ledger_of(one, load(one)) is None
    borrowed.unlink()
    private = ("--experts.private.epsilon", "8", "--experts.private.rows", "5", "--distill.expert_epochs", "1")
    one = session(tiny, folder, [], *private)
    with pytest.raises(UserError, match=r"privacy_ledger.json: not there"):
        ledger_of(one, load(one))
