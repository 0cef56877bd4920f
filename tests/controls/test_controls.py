"""What every change to the audit must still tell apart: which check says what about which set."""

import pytest
from controls.sets import ControlSet, sets

from medistill.audit import closest_record, nearest, provenance, seed_reidentification, text

CHECKS = {module.NUMBER: module for module in (provenance, nearest, seed_reidentification, closest_record, text)}

MUST_FAIL = {
    "leaky: copies": (1, 2),
    "leaky: copies said to be noise": (0, 1, 2),
    "leaky: cropped, flipped, inverted copies": (1, 2),
    "leaky: real start, hardly moved": (1, 2),
    "leaky: real start, far moved": (2,),
    "leaky: real start, distilled at a tiny step": (1, 2),
    "leaky: two films mixed, .7 and .3": (1, 2),
    "leaky: means of two films": (2,),
    "leaky: one copy among five strangers": (1,),
    "leaky: one copy among many strangers": (1,),
    "leaky: words": (9,),
}
OPEN = {"leaky: copies": (0,), "leaky: real start, far moved": (0,)}
"""What a person has to decide: a start that shows patients is never waved through by the list."""


@pytest.fixture(scope="module")
def every() -> dict[str, ControlSet]:
    return sets()


def test_every_leaky_set_is_in_the_table(every: dict[str, ControlSet]) -> None:
    assert {name for name in every if name.startswith("leaky")} == set(MUST_FAIL)
    assert sum(name.startswith("clean") for name in every) >= 4


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, row in MUST_FAIL.items() for number in row])
def test_a_leak_is_found(every: dict[str, ControlSet], name: str, number: int) -> None:
    found = CHECKS[number].check(every[name].candidate(), every[name].private()).check
    assert found.verdict == "fail", found.explanation


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, row in OPEN.items() for number in row])
def test_a_start_from_patients_is_left_to_a_person(every: dict[str, ControlSet], name: str, number: int) -> None:
    found = CHECKS[number].check(every[name].candidate(), every[name].private()).check
    assert found.verdict == "inconclusive", found.explanation


@pytest.mark.parametrize(
    "name",
    [
        "clean: phantoms of strangers",
        "clean: noise",
        "clean: noise, distilled",
        "clean: smooth noise",
        "clean: means of strangers",
    ],
)
def test_no_leak_is_found_where_there_is_none(every: dict[str, ControlSet], name: str) -> None:
    for number, module in CHECKS.items():
        found = module.check(every[name].candidate(), every[name].private()).check
        assert found.verdict != "fail", (number, found.explanation)
        assert number != 0 or found.verdict == "pass", found.explanation
