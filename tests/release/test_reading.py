"""How films are read is taken from a release's config, and nothing in it is believed."""

from typing import Any

import pytest

from medistill.errors import ReleaseError
from medistill.release.merged_config import merged_config
from medistill.release.reading import Reading, common, readings_of


def test_what_the_config_says_is_carried_over_and_silence_is_the_default() -> None:
    data = {"adapter": "films", "size": 32, "mask": 0.1, "modalities": ["CR", "SC"], "views": ["PA", ""], "zca": False}
    assert readings_of({"data": data, "run": "(withheld)"}, 32) == [Reading(32, 0.1, ("CR", "SC"), ("PA", ""), "films")]
    for silent in ({}, {"data": {}}, {"data": "(withheld)"}, {"data": {"mask": 0}}):
        assert readings_of(silent, 64) == [Reading(64, 0, ("CR", "DX"), ("PA", "AP", ""), "films")]


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
        readings_of({"data": data}, 32)
    assert str(refused.value).startswith(f"config.yaml: {reason}")


def test_a_merged_release_has_the_largest_mask_and_every_modality_and_view() -> None:
    """What all share stands outside, what is a part's own inside, as merged_config writes it; a part may be merged."""
    first = {"data": {"size": 32, "mask": 0.0, "views": ["PA"], "modalities": ["DX"], "name": "a"}}
    second = {"data": {"size": 32, "mask": 0.1, "views": ["AP", "PA"], "modalities": ["DX"], "name": "b"}}
    third = {
        "data": {"size": 32, "mask": 0.05, "views": [""], "modalities": ["DX"], "name": "c", "adapter": "medmnist"}
    }
    inner = merged_config({"a": first, "b": second}, {"name": "ab"})
    readings = readings_of(merged_config({"ab": inner, "c": third}, {"name": "abc"}), 32)
    assert {one.mask for one in readings} == {0.0, 0.1, 0.05}
    assert all(one.modalities == ("DX",) for one in readings)
    found = common(readings)
    assert (found.mask, sorted(found.views), found.modalities) == (0.1, ["", "AP", "PA"], ("DX",))
    assert sorted(found.adapter.split(" and ")) == ["films", "medmnist"]


def test_a_config_that_repeats_itself_by_aliases_ends() -> None:
    laughs: dict[str, Any] = {"settings": {}}
    for _ in range(30):
        laughs = {"merge": {"parts": [laughs] * 10}}
    endless: dict[str, Any] = {"merge": {"parts": []}}
    endless["merge"]["parts"].append(endless)
    for config in (laughs, endless):
        with pytest.raises(ReleaseError, match=r"^config.yaml: merged of more than 1000 parts"):
            readings_of(config, 32)
