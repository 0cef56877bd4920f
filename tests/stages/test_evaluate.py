"""EVALUATE as a stage: what decides its place, and what is said of the patients."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from medistill.cli import configure
from medistill.errors import UserError
from medistill.files import read_json, sha256, write_json
from medistill.stages.audit import audit, audited
from medistill.stages.distill import FILE, distill, distilled
from medistill.stages.evaluate import evaluate, evaluated
from medistill.stages.experts import experts
from medistill.stages.load import load
from medistill.stages.session import Session


def test_a_corrected_table_is_evaluated_anew_and_sites_are_numbered(tiny, tmp_path):
    """Sex, age, view and site change no image, but what is said of groups of patients."""
    place = tmp_path / "cohort"
    shutil.copytree(tiny.cohort.parent, place)
    moved = replace(tiny, cohort=place / tiny.cohort.name)
    options = moved.options(tmp_path / "run", "--track", "false", "--evaluate.baselines", "false")

    def measured():
        one = Session(configure("run", options), lambda line: None)
        for stage in (experts, distill, evaluate):
            stage(one)
        return evaluated(one, load(one))

    work, first = measured()
    assert {row["value"] for row in first["subgroups"]["attributes"]["site"]["values"]} == {"site 1"}
    assert json.loads((work.folder / "sites.json").read_text()) == {"site 1": "MARKEDSITE"}
    table = pd.read_csv(moved.cohort, dtype=str, keep_default_na=False)
    table["sex"], table["view"] = "F", "pa"
    table.to_csv(moved.cohort, index=False)
    again, second = measured()
    assert again.key != work.key and first["arms"] == second["arms"]
    assert {row["value"] for row in second["subgroups"]["attributes"]["sex"]["values"]} == {"F"}


def test_a_set_made_anew_by_repaired_code_is_evaluated_and_audited_anew(tiny, tmp_path):
    """The settings are the same, the bytes are not: what was found of the old set says nothing of the new one."""
    options = tiny.options(tmp_path / "run", "--track", "false", "--evaluate.baselines", "false")
    one = Session(configure("run", options), lambda line: None)
    for stage in (experts, distill, evaluate, audit):
        stage(one)
    splits = load(one)
    before = [found(one, splits)[0].key for found in (distilled, evaluated, audited)]
    made, final = distilled(one, splits)
    replace(final, images=final.images + 0.5).save(made.folder / FILE)
    done = made.folder / "done.json"
    record = read_json(done)
    record["files"][FILE] = sha256(made.folder / FILE)
    write_json(done, record)
    assert distilled(one, splits)[0].key == before[0]
    for found in (evaluated, audited):
        with pytest.raises(UserError, match=r"not (evaluated|audited) yet"):
            found(one, splits)
    evaluate(one)
    audit(one)
    assert not {found(one, splits)[0].key for found in (evaluated, audited)} & set(before)
