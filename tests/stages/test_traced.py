"""Which failures of other audits a release speaks of: it names checks, not audits."""

from types import SimpleNamespace
from typing import Any

import pytest

from medistill.stages.traced import disagreements
from medistill.track.walk import Audit, Walk


class Nothing:
    """A record that holds no file."""

    def text(self, run: str, name: str) -> None:
        return None


def other(number: int, *failed: str, verdict: str = "fail") -> Audit:
    """An audit of the same set by the key 0000000N..."""
    return Audit(f"run {number}", f"{number:08d}" + 56 * "0", None, verdict, failed)


def untold(own: list[str], failed: list[str], *audits: Audit) -> list[str]:
    """The runs of audits of which the release is found not to speak."""
    checks = [{"name": name, "verdict": "fail"} for name in own] + [{"name": "nearest", "verdict": "pass"}]
    decision: dict[str, Any] = {"verdict": "fail", "failed": failed, "override": None, "accepted": None}
    audit = {"verdict": "fail", "checks": checks, "decision": decision}
    found: Any = SimpleNamespace(audit=audit, digest="d", fingerprint=None, config={}, evaluation={})
    release: Any = SimpleNamespace(run=SimpleNamespace(run_id="r", tags={"verdict": "fail"}), config={})
    way = Walk("d", {"release": release}, {}, audits, (), None, (), ())
    record: Any = Nothing()
    lines = [line for line in disagreements(found, way, record) if line.startswith("another audit of the same set")]
    assert all(line.endswith("and the release does not say so") for line in lines)
    return [line.split("; run ")[1].split(")")[0] for line in lines]


@pytest.mark.parametrize(
    ("own", "failed", "audits", "expected"),
    [
        ([], [], [other(1, "text")], ["run 1"]),
        ([], ["text"], [other(1, "text")], []),
        ([], ["text"], [other(1, verdict="pass"), other(2, "text")], []),
        # what failed in the release's own audit speaks of no other
        (["text"], ["text"], [other(1, "text")], ["run 1"]),
        (["text"], ["text", "text"], [other(1, "text")], []),
        # one word stands for one audit, and the one that came later is the one that is not told
        ([], ["text"], [other(1, "text"), other(2, "text")], ["run 2"]),
        ([], ["text", "text"], [other(1, "text"), other(2, "text")], []),
        ([], ["text"], [other(1, "text", "nearest")], ["run 1"]),
        ([], ["nearest", "text"], [other(1, "text", "nearest")], []),
        ([], ["nearest"], [other(1, "text"), other(2, "nearest")], ["run 1"]),
        # a record that lost the names
        ([], ["text"], [other(1)], ["run 1"]),
        # as releases named them before
        ([], ["text (audit-00000001)"], [other(1, "text")], []),
        ([], ["text (audit-00000001)"], [other(1, "text"), other(2, "text")], ["run 2"]),
    ],
)
def test_every_failure_must_be_told(
    own: list[str], failed: list[str], audits: list[Audit], expected: list[str]
) -> None:
    assert untold(own, failed, *audits) == expected
