"""The audit of merged releases: the worst of their verdicts, every check under its site, and everyone who answered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medistill.errors import ReleaseError, UserError
from medistill.release.bundle import write_release
from medistill.release.consistent import require_honest_audit
from medistill.release.decision import decide
from medistill.release.merged_audit import merged_audit, start_of, words_of
from medistill.release.merged_config import merged_config
from medistill.release.part import Part, read_parts

ANNA, BEN = "Dr. Anna: seen, phantoms only", "Dr. Ben: too few films to tell"


def released(folder: Path, toy: dict[str, Any], name: str, verdict: str = "pass", **more: Any) -> Path:
    """A release of its own images, its one check with this verdict."""
    (check,) = toy["audit"]["checks"]
    audit = toy["audit"] | {"verdict": verdict, "checks": [check | {"verdict": verdict}]}
    made = toy["distilled"]
    own = replace(made, images=made.images + len(name) / 100, **more.pop("made", {}))
    overview = toy["overview"] | {"name": name}
    return write_release(folder / name, **toy | {"distilled": own, "audit": audit, "overview": overview} | more)


def decided(parts: list[Part], ledger: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The merged audit and its decision, which `verify` must take for honest."""
    audit, start = merged_audit(parts, ledger), start_of(parts)
    decision = decide(audit, start, **words_of(parts))
    require_honest_audit(audit | {"decision": decision}, start)
    return audit, decision


def test_passes_pass_and_stand_by_name(tmp_path: Path, toy: dict[str, Any]) -> None:
    parts = read_parts([released(tmp_path, toy, name) for name in ("north", "southern")])
    audit, decision = decided(parts)
    assert audit["verdict"] == "pass" and decision["override"] is decision["accepted"] is None
    (check,) = toy["audit"]["checks"]
    assert audit["checks"] == [
        check | {"name": f"{name}: nearest real neighbour", "site": name} for name in ("north", "southern")
    ]
    assert audit["context"]["merged"]["southern"]["decision"] == parts[1].verified.audit["decision"]
    assert "not attacked as a whole" in audit["words"][0]


def test_what_is_open_at_one_site_is_open_and_its_word_is_carried(tmp_path: Path, toy: dict[str, Any]) -> None:
    left_out = toy["audit"] | {"verdict": "inconclusive", "not_run": [{"number": 5, "name": "membership"}]}
    folders = [
        released(tmp_path, toy, "north", "inconclusive", accept=ANNA),
        released(tmp_path, toy, "southern", audit=left_out, accept=BEN),
        released(tmp_path, toy, "western: old town"),
    ]
    audit, decision = decided(read_parts(folders))
    assert audit["verdict"] == "inconclusive"
    assert audit["not_run"] == [{"number": 5, "name": "southern: membership", "site": "southern"}]
    assert decision["accepted"] == {
        "name": "Dr. Anna (north), Dr. Ben (southern)",
        "reason": "north: seen, phantoms only; southern: too few films to tell",
    }
    assert decision["inconclusive"] == ["north: nearest real neighbour"] and decision["override"] is None


def test_one_that_failed_makes_the_whole_fail_by_the_same_word(tmp_path: Path, toy: dict[str, Any]) -> None:
    folders = [
        released(tmp_path, toy, "north", "fail", override=ANNA),
        released(tmp_path, toy, "southern", "inconclusive", accept=BEN),
    ]
    audit, decision = decided(read_parts(folders))
    assert audit["verdict"] == "fail" and decision["failed"] == ["north: nearest real neighbour"]
    assert decision["override"] == {"name": "Dr. Anna (north)", "reason": "north: seen, phantoms only"}
    assert audit["context"]["merged"]["southern"]["decision"]["accepted"]["name"] == "Dr. Ben"


def test_what_failed_in_an_audit_that_was_repeated_is_not_forgotten(tmp_path: Path, toy: dict[str, Any]) -> None:
    again = {"failed_before": ["membership"], "override": ANNA}
    parts = read_parts([released(tmp_path, toy, "north", **again), released(tmp_path, toy, "southern")])
    audit, decision = decided(parts)
    assert audit["verdict"] == "pass" and decision["failed"] == ["north: membership"]
    assert decision["override"]["name"] == "Dr. Anna (north)"


@pytest.mark.parametrize(
    ("starts", "whole"),
    [
        (("noise", "noise"), "noise"),
        (("noise", "phantom"), "phantom"),
        (("phantom", "private_means"), "private_means"),
        (("class_mean", "noise"), "class_mean"),
        (("real", "class_mean"), "real"),
        (("noise", "something new"), "something new"),
    ],
)
def test_the_start_is_the_one_that_shows_most(
    tmp_path: Path, toy: dict[str, Any], starts: tuple[str, str], whole: str
) -> None:
    folders = [
        released(tmp_path, toy, name, "inconclusive", made={"provenance": {"start": start}}, accept=BEN, override=ANNA)
        for name, start in zip(("north", "southern"), starts, strict=True)
    ]
    parts = read_parts(folders)
    assert start_of(parts) == whole
    decision = decided(parts)[1]
    public = whole in ("noise", "phantom", "private_means")
    assert decision["accepted" if public else "override"]["name"].startswith("Dr. ")


def test_the_promise_of_the_whole_is_a_check(tmp_path: Path, toy: dict[str, Any]) -> None:
    parts = read_parts([released(tmp_path, toy, name) for name in ("north", "southern")])
    held = {"composition": "parallel", "epsilon": 3.0, "delta": 1e-4, "unit": "patient", "explanation": "said so"}
    check = decided(parts, held)[0]["checks"][-1]
    assert (check["number"], check["verdict"]) == (10, "pass")
    assert check["explanation"] == "Epsilon 3 at delta 0.0001 for each patient: said so."
    none = {"composition": "none", "epsilon": None, "delta": None, "unit": None, "explanation": "none here"}
    audit = decided(parts, none)[0]
    assert audit["verdict"] == "pass" and audit["checks"][-1]["verdict"] == "not applicable"


def test_a_release_counts_once(tmp_path: Path, toy: dict[str, Any]) -> None:
    north, southern = (released(tmp_path, toy, name) for name in ("north", "southern"))
    with pytest.raises(UserError, match="north: holds the same images as north; give each release once"):
        read_parts([north, southern, north])
    same_images = write_release(
        tmp_path / "copy", **toy | {"distilled": replace(toy["distilled"], images=toy["distilled"].images + 0.05)}
    )
    with pytest.raises(UserError, match="copy: holds the same images as north"):
        read_parts([north, same_images])


def test_sources_of_one_name_are_told_apart(tmp_path: Path, toy: dict[str, Any]) -> None:
    one = released(tmp_path / "a", toy, "north")
    two = released(tmp_path / "b", toy, "north", made={"lr": 0.5})
    names = [part.name for part in read_parts([one, two])]
    assert len(set(names)) == 2 and all(name.startswith("north (") for name in names)


def test_a_changed_release_is_named(tmp_path: Path, toy: dict[str, Any]) -> None:
    north, southern = (released(tmp_path, toy, name) for name in ("north", "southern"))
    (southern / "evaluation.json").write_text("{}")
    with pytest.raises(ReleaseError, match=r"southern/evaluation\.json: changed"):
        read_parts([north, southern])


def test_a_merged_set_that_hides_what_is_in_it_is_refused(tmp_path: Path, toy: dict[str, Any]) -> None:
    hiding = released(tmp_path, toy, "north", made={"provenance": {"start": "noise", "parts": [{"name": "x"}]}})
    with pytest.raises(ReleaseError, match=r"north/distilled\.safetensors: says that it is merged, but not of which"):
        read_parts([hiding, released(tmp_path, toy, "southern")])


def test_a_release_that_claims_to_be_merged_without_end_is_refused(tmp_path: Path, toy: dict[str, Any]) -> None:
    record: dict[str, Any] = {"name": "x", "digest": "0", "images_sha256": "0", "parts": []}
    for _ in range(20):
        record = record | {"parts": [record]}
    deep = released(tmp_path, toy, "north", made={"provenance": {"start": "noise", "parts": [record]}})
    with pytest.raises(ReleaseError, match="says that it is merged"):
        read_parts([deep, released(tmp_path, toy, "southern")])


def test_settings_that_all_share_stand_in_their_place_and_nothing_is_lost() -> None:
    north = {"seed": 0, "data": {"size": 64, "name": "north"}, "evaluate": {"steps": 500}, "only": 1}
    south = {"seed": 1, "data": {"size": 64, "name": "south"}, "evaluate": {"steps": 500}, "merge": {"classes": "same"}}
    merged = merged_config({"north": north, "south": south}, {"classes": "union"})
    assert merged == {
        "data": {"size": 64},
        "evaluate": {"steps": 500},
        "merge": {
            "classes": "union",
            "parts": [
                {"name": "north", "settings": {"seed": 0, "data": {"name": "north"}, "only": 1}},
                {"name": "south", "settings": {"seed": 1, "data": {"name": "south"}}, "merge": {"classes": "same"}},
            ],
        },
    }
