"""The form of a check and the verdict over several."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from medistill.audit.check import Check, Verdict
from medistill.audit.gate import audit_json, summarise
from medistill.audit.page import page
from medistill.audit.table import TABLE
from medistill.files import write_json


def check(verdict: Verdict, name: str = "some check", **changes: Any) -> Check:
    values: dict[str, Any] = {
        "number": 7,
        "name": name,
        "statistic": {"hits": 3},
        "interval": (0.1, 0.4),
        "power": 0.9,
        "positive_control": {"planted": 10, "fired": 9},
        "negative_control": "none: nothing to compare",
        "explanation": f"{name} explained.",
    }
    return Check(verdict=verdict, **(values | changes))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "not applicable"], "pass"),
        (["pass", "inconclusive", "not applicable"], "inconclusive"),
        (["inconclusive", "fail", "pass"], "fail"),
        (["not applicable"], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_summary(verdicts: list[Verdict], expected: str) -> None:
    assert summarise([check(verdict) for verdict in verdicts]) == expected


def test_audit_holds_every_check_in_numbers_and_words(tmp_path: Path) -> None:
    audit = audit_json([check("pass", "one"), check("inconclusive", "two")], {"seed": 4})
    write_json(tmp_path / "audit.json", audit)
    read = json.loads((tmp_path / "audit.json").read_text())
    assert read["verdict"] == "inconclusive" and read["context"] == {"seed": 4}
    assert read["checks"][0] == {
        "number": 7,
        "name": "one",
        "verdict": "pass",
        "statistic": {"hits": 3},
        "interval": [0.1, 0.4],
        "power": 0.9,
        "positive_control": {"planted": 10, "fired": 9},
        "negative_control": "none: nothing to compare",
        "explanation": "one explained.",
    }
    assert read["words"][1:] == ["one: pass. one explained.", "two: inconclusive. two explained."]
    assert "anonym" not in json.dumps(read)


def test_a_check_must_be_well_formed() -> None:
    with pytest.raises(ValueError, match="maybe"):
        check("maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="missing control"):
        check("pass", positive_control="not done")


def test_a_check_that_was_not_run_leaves_the_whole_open() -> None:
    left_out = [row for row in TABLE if not row.quick]
    audit = audit_json([check("pass")], {}, left_out)
    assert audit["verdict"] == "inconclusive" == summarise([check("pass")], left_out)
    assert [row["number"] for row in audit["not_run"]] == [4, 5, 6, 7, 11]
    assert summarise([check("fail")], left_out) == "fail"


def test_a_check_survives_its_file() -> None:
    for one in (check("pass"), check("fail", interval=None, power=None)):
        assert Check.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_the_page_answers_each_question_and_lists_what_was_not_asked() -> None:
    context = {
        "start": "noise", "synthetic": 4, "training_films": 90, "training_patients": 60, "holdout_films": 40,
        "holdout_patients": 30,
    }  # fmt: skip
    checks = [check("pass", number=1), check("inconclusive", "text", number=9, power=None)]
    text = page(audit_json(checks, context, TABLE[4:6]))
    assert text.startswith("# What this set may tell about patients\n\n**Inconclusive.** No check found a leak")
    assert "| 1 | Is a synthetic image a patient's film in disguise? | no leak found | 90% |" in text
    assert "| 9 | Can names, dates or numbers be read in a synthetic image? | cannot tell | – |" in text
    assert "| 5 | Can one tell from the set whether a given patient's films were used? | was not run | – |" in text
    assert "- **text** (inconclusive): text explained." in text and "some check" not in text
    assert "no mathematical guarantee" in text and "anonym" not in text.lower()
    guaranteed = check("pass", "DP statement", number=10, explanation="(8, 1e-4) for each patient.")
    assert "A mathematical guarantee was given: (8, 1e-4)" in page(audit_json([guaranteed], context))


def test_the_page_counts_no_few_patients() -> None:
    """Nor their films, which stand for them."""
    context = {
        "start": "noise", "synthetic": 4, "training_films": 12, "training_patients": 9, "holdout_films": 11,
        "holdout_patients": 10,
    }  # fmt: skip
    text = page(audit_json([check("pass")], context))
    assert "made with films of fewer than 10 patients; compared with 11 films of 10 other patients." in text
    assert "12" not in text and " 9 " not in text


def test_the_table_is_the_documented_one() -> None:
    assert [row.number for row in TABLE] == list(range(12))
    assert [row.number for row in TABLE if row.quick] == [0, 1, 2, 3, 8, 9, 10]
    for row in TABLE:
        module = import_module(f"medistill.audit.{row.module}")
        assert (row.number, row.name) == (module.NUMBER, module.NAME) and row.check is module.check
