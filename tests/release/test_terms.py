"""Licences of merged releases: all are named, and what one forbids the whole forbids."""

import pytest

from medistill.release.terms import merged_terms


def licence(**licences: str | None) -> str:
    return merged_terms({name: {"licence": text} for name, text in licences.items()})["licence"]


def test_one_licence_of_all_stands_alone() -> None:
    assert licence(a="CC BY 4.0", b="CC BY 4.0") == "CC BY 4.0"


def test_different_ones_are_all_named_with_whose_they_are() -> None:
    assert licence(a="CC BY 4.0", b="CC0", c="CC BY 4.0") == "CC BY 4.0 (a, c); CC0 (b)"


@pytest.mark.parametrize(
    "text",
    [
        "CC BY-NC 4.0",
        "CC-BY-NC-SA 4.0",
        "Non-commercial use",
        "research purposes only",
        "academic use",
        "noncommercial",
    ],
)
def test_non_commercial_sticks_also_when_merged_again(text: str) -> None:
    once = licence(a="CC BY 4.0", b=text)
    assert once == f"non-commercial use only, for b: CC BY 4.0 (a); {text} (b)"
    assert licence(ab=once, c="CC0").startswith("non-commercial use only, for ab: ")


@pytest.mark.parametrize("text", ["CC BY 4.0", "MIT", "licence of INC. Ltd", "for research and commerce"])
def test_what_forbids_nothing_does_not(text: str) -> None:
    assert "non-commercial" not in licence(a="CC0", b=text)


def test_a_silent_source_is_not_taken_for_a_free_one() -> None:
    assert licence(a="CC BY 4.0", b=None) == "CC BY 4.0 (a); not stated (b): ask the owner before use"


def test_citations_stand_once_each() -> None:
    sources = {"a": {"citation": "P 2021"}, "b": {"citation": "Q  2022"}, "c": {"citation": "P 2021"}, "d": {}}
    assert merged_terms(sources)["citation"] == "P 2021; Q 2022"
