"""How films are read is taken from a release's config, and nothing in it is believed."""

from typing import Any

import pytest

from medistill.errors import ReleaseError
from medistill.release.reading import Reading, reading_of


def test_what_the_config_says_is_carried_over_and_silence_is_the_default() -> None:
    data = {"adapter": "films", "size": 32, "mask": 0.1, "modalities": ["CR", "SC"], "views": ["PA", ""], "zca": False}
    assert reading_of({"data": data, "run": "(withheld)"}, 32) == Reading(32, 0.1, ("CR", "SC"), ("PA", ""), "films")
    for silent in ({}, {"data": {}}, {"data": "(withheld)"}, {"data": {"mask": 0}}):
        assert reading_of(silent, 64) == Reading(64, 0, ("CR", "DX"), ("PA", "AP", ""), "films")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"size": 64}, "data.size: 64, but the images have 32"),
        ({"size": "32"}, "data.size"),
        ({"mask": "0.1"}, "data.mask"),
        ({"mask": True}, "data.mask"),
        ({"views": {"PA": 1}}, "data.views"),
        ({"modalities": [None]}, "data.modalities"),
        ({"adapter": 3}, "data.adapter"),
    ],
)
def test_settings_that_no_release_was_made_with_are_refused(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReleaseError) as refused:
        reading_of({"data": data}, 32)
    assert str(refused.value).startswith(f"config.yaml: {reason}")
