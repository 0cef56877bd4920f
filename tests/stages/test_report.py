"""The report stage: the page of a real run, with its own numbers, and what it must not show."""

import json
import re
from dataclasses import replace

import pytest
import torch

from medistill.cli import configure
from medistill.data.imageset import ImageSet
from medistill.errors import UserError
from medistill.files import read_json, sha256
from medistill.stages.audit import audit
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate
from medistill.stages.experts import experts
from medistill.stages.report import few, write_report
from medistill.stages.session import Session

FAST = ("--track", "false", "--evaluate.steps", "2", "--distill.iterations", "2", "--audit.planted", "20")


def made(tiny, folder, *more, stages=(experts, distill, evaluate, audit)):
    """A session whose stages before the report are done, and what it said."""
    said = []
    session = Session(configure("run", tiny.options(folder, *FAST, *more)), said.append)
    for stage in stages:
        stage(session)
    return session, said


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return tmp_path_factory.mktemp("reported") / "run"


def test_the_page_quotes_its_run_and_names_no_patient(tiny, folder):
    session, said = made(tiny, folder)
    path = write_report(session)
    page = path.read_text()
    (evaluation,) = folder.glob("evaluate-*/evaluation.json")
    mean = read_json(evaluation)["arms"]["distilled"]["mean"]["balanced_accuracy"]
    quoted = re.findall(r'data-path="evaluation/arms/distilled/mean/balanced_accuracy" data-value="([^"]*)"', page)
    assert len(quoted) >= 2 and {float(value) for value in quoted} == {mean}
    (file,) = folder.glob("distill-*/distilled.safetensors")
    assert f'data-path="record/digests/distilled.safetensors">{sha256(file)}<' in page
    assert page.count('alt="Synthetic image') == 3 and "neighbours" not in page
    for mark in (*tiny.marks, str(folder.parent), "Traceback"):
        assert mark not in page
    assert said[-1] == f"report: -> {path}"
    # the same bytes again, from nothing and from what is there
    before = page.encode()
    assert write_report(session) == path and said[-1] == f"report: done already -> {path}"
    (path.parent / "done.json").unlink()
    assert write_report(session).read_bytes() == before


def test_classes_of_few_patients_are_named():
    """Of three classes one has 2 test patients: the smaller of the others is withheld with it."""
    labels = torch.tensor([0] * 24 + [1] * 4 + [2] * 40)
    groups = torch.arange(len(labels)) // 2
    images = torch.zeros(len(labels), 1, 16, 16)
    test = ImageSet(images, labels, groups, ("a", "b", "c"), "toy", "test", (0.5,), (0.2,))
    assert few(test) == ("a", "b")
    assert few(replace(test, groups=torch.arange(len(labels)), labels=torch.arange(len(labels)) % 3)) == ()


def test_a_changed_name_is_a_page_of_its_own(tiny, folder):
    session, _ = made(tiny, folder, "--data.name", "Another <name>")
    page = write_report(session).read_text()
    assert "Another &lt;name&gt;" in page and "Another <name>" not in page
    assert len(list(folder.glob("report-*"))) == 2


def test_films_of_a_real_start_are_not_shown(tiny, folder):
    session, _ = made(tiny, folder, "--distill.start", "real", "--evaluate.baselines", "false")
    page = write_report(session).read_text()
    assert "Synthetic image" not in page and "stay out of every report" in page
    assert "There is no comparison with training on the full data" in page


def test_before_its_audit_there_is_no_report(tiny, folder):
    made(tiny, folder)
    session, _ = made(tiny, folder, "--audit.planted", "21", stages=())
    with pytest.raises(
        UserError, match=r"not audited yet \(this set was audited with other options.*: audit-.*\); run"
    ):
        write_report(session)


def test_a_changed_evaluation_is_not_reported(tiny, folder):
    session, _ = made(tiny, folder)
    (file,) = [f for f in folder.glob("evaluate-*/evaluation.json") if len(read_json(f)["arms"]) > 1]
    whole = file.read_text()
    file.write_text(json.dumps(read_json(file) | {"test_films": 9999}))
    try:
        with pytest.raises(UserError, match=r"evaluation\.json: was changed after its stage wrote it"):
            write_report(session)
    finally:
        file.write_text(whole)
