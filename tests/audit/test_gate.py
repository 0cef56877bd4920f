"""The form of a check and the verdict over several."""

import json
from pathlib import Path
from typing import Any

import pytest

from medistill.audit.check import Check, Verdict
from medistill.audit.gate import audit_json, summarise
from medistill.errors import UserError
from medistill.files import write_json
from medistill.release.bundle import refuse


def check(verdict: Verdict, name: str = "some check", **changes: Any) -> Check:
    values: dict[str, Any] = {
        "number": 7,
        "statistic": {"hits": 3},
        "interval": (0.1, 0.4),
        "power": 0.9,
        "positive_control": {"planted": 10, "fired": 9},
        "negative_control": "none: nothing to compare",
        "explanation": f"{name} explained.",
    }
    return Check(name=name, verdict=verdict, **(values | changes))


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


def test_only_a_fail_is_refused_by_name() -> None:
    for verdict in ("pass", "inconclusive", "not applicable"):
        refuse(audit_json([check(verdict)], {}), "noise")
    with pytest.raises(UserError) as refusal:
        refuse(audit_json([check("pass", "good"), check("fail", "bad"), check("fail", "worse")], {}), "noise")
    assert "'bad' (bad explained)" in str(refusal.value) and "'worse'" in str(refusal.value)
    assert "good" not in str(refusal.value)


def test_a_check_must_be_well_formed() -> None:
    with pytest.raises(ValueError, match="maybe"):
        check("maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="missing control"):
        check("pass", positive_control="not done")


@pytest.mark.parametrize("start", ["real", "class_mean", "unknown"])
def test_a_start_that_shows_patients_needs_a_pass(start):
    refuse(audit_json([check("pass")], {}), start)
    with pytest.raises(UserError, match=f"from {start} films, so nothing is released; such a start needs"):
        refuse(audit_json([check("inconclusive")], {}), start)
