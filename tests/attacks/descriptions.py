"""Attacks on what programs read in place of the master: metadata.json and croissant.json."""

from typing import Any

from attacks.builders import Attack, edit_json, hidden, overwrite


def metadata(change: Any) -> Any:
    """An edit of metadata.json that nobody's signature covers."""
    return hidden(edit_json("metadata.json", change))


def croissant(change: Any) -> Any:
    """The same of croissant.json."""
    return hidden(edit_json("croissant.json", change))


def field(value: dict[str, Any], name: str) -> dict[str, Any]:
    """A field of the records."""
    return next(one for one in value["recordSet"][0]["field"] if one["name"] == name)


def said(key: str) -> str:
    """The sentence on a key of metadata.json."""
    return rf"metadata\.json: its '{key}' is not what"


RECORDS = r"croissant\.json: its 'recordSet' is not what"
FILES = r"croissant\.json: its 'distribution' is not what"
INVERT = {"transform": {"regex": "COVID", "replace": "normal"}}
ELSEWHERE = {"http://mlcommons.org/croissant/distribution": []}

ATTACKS = [
    Attack("class folders", metadata(lambda v: v["class_folders"].reverse()), said("class_folders")),
    Attack("counts", metadata(lambda v: v.update(images_per_class=[6, 0, 0])), said("images_per_class")),
    Attack("size", metadata(lambda v: v["size"].update(height=32)), said("size")),
    Attack("rule", metadata(lambda v: v["normalisation"].update(rule="pixel")), said("normalisation")),
    Attack("intended use", metadata(lambda v: v.update(intended_use=["diagnosis"])), said("intended_use")),
    Attack("key besides", metadata(lambda v: v.update(label_map={"0": "normal"})), said("label_map")),
    Attack("key gone", metadata(lambda v: v.pop("training")), said("training")),
    Attack("licence of no text", metadata(lambda v: v["source"].update(licence=["CC0"])), r"metadata\.json: its 'sour"),
    Attack("licence", metadata(lambda v: v["source"].update(licence="CC0")), r"croissant\.json: its 'license' is not"),
    Attack("name", metadata(lambda v: v.update(name="Distilled set of films")), said("name")),
    Attack("format", metadata(lambda v: v.update(format=3)), r"metadata\.json: format 3, this version reads format 2"),
    Attack("no metadata", hidden(overwrite("metadata.json", b"{}")), r"metadata\.json: format None, this version"),
    Attack("view left out", metadata(lambda v: v["views"].pop()), r"metadata\.json: its 'views' are not those"),
    Attack(
        "master elsewhere", metadata(lambda v: v["views"][0].update(place="distilled.npz")), r"metadata\.json: 'dis"
    ),
    Attack(
        "error of a view",
        metadata(lambda v: v["views"][1].update(largest_pixel_error=0.0)),
        r"metadata\.json: what it says of 'images' is none",
    ),
    Attack(
        "accuracy of a view",
        metadata(lambda v: v["views"][1].update(accuracy={"mean": 7.3})),
        r"metadata\.json: what it says of 'images' is none",
    ),
    Attack("labels transformed", croissant(lambda v: field(v, "class")["source"].update(INVERT)), RECORDS),
    Attack(
        "labels of a column",
        croissant(lambda v: field(v, "label")["source"]["extract"].update(column="index")),
        RECORDS,
    ),
    Attack("inline data", croissant(lambda v: v["recordSet"][0].update(data=[{"images/label": 2}])), RECORDS),
    Attack("files elsewhere", croissant(lambda v: v["distribution"][3].update(includes="data/*/*.png")), FILES),
    Attack(
        "second distribution", croissant(lambda v: v.update(ELSEWHERE)), r"croissant\.json: its 'http://mlc.*is not"
    ),
    Attack("other words", croissant(lambda v: v["@context"].update(column="cr:regex")), r"croissant\.json: its '@cont"),
    Attack("no description", hidden(overwrite("croissant.json", b"{}")), r"croissant\.json: its '@context' is not"),
]
