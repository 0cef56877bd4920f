"""Who may release what, and whose word is stored."""

import re
from typing import Any

import pytest

from medistill.errors import UserError
from medistill.release.decision import Signed, decide

WORD = "Dr. A. Example : read it; phantoms only: no patient"


def audit(*verdicts: str, not_run: int = 0) -> dict[str, Any]:
    checks = [
        {"name": f"{verdict} {i}", "verdict": verdict, "explanation": f"Because {i}."}
        for i, verdict in enumerate(verdicts)
    ]
    whole = "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts or not_run else "pass"
    return {
        "verdict": whole,
        "checks": checks,
        "not_run": [{"number": i, "name": f"missing {i}"} for i in range(not_run)],
    }


def test_a_word_is_a_name_and_a_reason():
    assert Signed.parse("o", WORD) == Signed("Dr. A. Example", "read it; phantoms only: no patient")
    assert Signed.parse("o", " ") is None
    for text in ("nobody", ": reason", "name:", "name:  "):
        with pytest.raises(UserError, match=re.escape(f"release.accept is {text!r}; give who answers")):
            Signed.parse("release.accept", text)


def test_a_pass_needs_nobodys_word_and_keeps_none():
    for start in ("noise", "phantom", "real", "class_mean"):
        decision = decide(audit("pass", "not applicable"), start, override=WORD, accept=WORD)
        assert decision == {
            "verdict": "pass", "failed": [], "inconclusive": [], "not_run": [], "override": None, "accepted": None
        }  # fmt: skip


def test_what_is_open_needs_an_acceptance():
    for found, told in (
        (audit("pass", "inconclusive"), "inconclusive: inconclusive 1"),
        (audit("pass", not_run=2), "not run: missing 0, missing 1"),
    ):
        with pytest.raises(UserError, match=f"not every check could speak .{told}.*--accept"):
            decide(found, "noise")
        decision = decide(found, "noise", accept=WORD)
        assert decision["accepted"] == {"name": "Dr. A. Example", "reason": "read it; phantoms only: no patient"}
        assert decision["override"] is None
    assert decide(audit("pass", not_run=1), "noise", override=WORD)["not_run"] == ["missing 0"]


def test_a_failed_check_is_refused_by_name_and_overridden_by_name():
    found = audit("pass", "fail", "inconclusive", "fail")
    for word in ("", WORD):
        with pytest.raises(UserError) as refusal:
            decide(found, "noise", accept=word)
        assert "'fail 1' (Because 1), 'fail 3' (Because 3) failed, so nothing is released" in str(refusal.value)
    decision = decide(found, "noise", override=WORD, accept=WORD)
    assert decision["failed"] == ["fail 1", "fail 3"] and decision["inconclusive"] == ["inconclusive 2"]
    assert decision["override"]["name"] == "Dr. A. Example" and decision["accepted"] is None


def test_another_audit_that_failed_counts():
    found = audit("pass")
    with pytest.raises(UserError, match=r"'text .audit-1.', an audit of the same set failed, so nothing is released"):
        decide(found, "noise", accept=WORD, failed_before=["text (audit-1)"])
    decision = decide(found, "noise", override=WORD, failed_before=["text (audit-1)"])
    assert decision["failed"] == ["text (audit-1)"] and decision["override"]["name"] == "Dr. A. Example"


@pytest.mark.parametrize("start", ["real", "class_mean", "unknown"])
def test_a_start_that_shows_patients_needs_a_pass_or_an_override(start):
    with pytest.raises(UserError, match=f"from {start} films, so nothing is released; such a start shows patients"):
        decide(audit("inconclusive"), start, accept=WORD)
    assert decide(audit("inconclusive"), start, override=WORD)["override"]
