"""The card: what it says, what it leaves out, and a head that the hub reads."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml

from medistill.release.card import card
from medistill.release.front_matter import front_matter


def text_of(toy: dict[str, Any], accuracy: dict[str, Any] | None = None, colour: bool = False) -> str:
    accuracy = accuracy or {}
    places = {"master": "distilled.safetensors", "png": "images", "npz": "distilled.npz", "dicom": "dicom"}
    views = [
        {"name": name, "place": place, "bytes": 12345, "largest_pixel_error": 0.00196, "accuracy": accuracy.get(name)}
        for name, place in places.items()
        if name != "dicom" or not colour
    ]
    return card(toy["distilled"], toy["evaluation"], toy["audit"], toy["overview"], views, accuracy)


def test_the_card_says_what_was_measured(toy: dict[str, Any]) -> None:
    text = text_of(toy)
    for expected in (
        "# Distilled set of Toy films",
        "6 synthetic images of 16 × 16 pixels (1 channel) in 3 classes",
        "| COVID | 2 | 10 or more |",
        "| lung opacity | 2 | fewer than 10 |",
        "| normal | 2 | 300 |",
        "- method: iadd",
        "- start: noise",
        "- experts: 8",
        "400 held-out films of 310 patients by 5 freshly trained networks",
        "| distilled | 0.812 ± 0.011 [0.770, 0.850] | 0.800 ± 0.011 | 0.910 ± 0.011 | 0.930 ± 0.011 |",
        "| random real | 0.613 | – | – | – |",
        "| full data | 0.928 ± 0.004 | – | – | – |",
        "88 % of the accuracy that the full data give",
        "Overall verdict: **pass**",
        "**nearest real neighbour: pass.** No synthetic image",
        "measured: fired 0, of 6",
        "95 % interval: 0.81 to 0.99",
        "found): 94 %",
        "No formal guarantee",
        "not for diagnosis",
        "- citation: Planted et al. 2021",
        "- licence: CC BY 4.0",
    ):
        assert expected in text, expected
    assert "anonym" not in text.lower() and "started from real films" not in text


def test_the_card_of_a_real_start_and_of_missing_numbers(toy: dict[str, Any]) -> None:
    toy["distilled"].provenance["start"] = "real"
    toy["evaluation"] = {"arms": {"distilled": {"mean": {"accuracy": 0.5}}}}
    toy["audit"]["checks"][0]["power"] = None
    toy["overview"] = {}
    text = text_of(toy)
    assert "started from real films" in text and "No formal guarantee" in text
    assert "| distilled | 0.500 |" in text and "no comparison with training on the full data" in text
    assert "found): not measured" in text and "neither citation nor licence" in text
    toy["audit"], toy["evaluation"] = {"verdict": "inconclusive", "checks": []}, {}
    assert "Nothing was attacked" in text_of(toy) and "It was not measured" in text_of(toy)


def test_only_a_passed_dp_statement_is_a_formal_guarantee(toy: dict[str, Any]) -> None:
    statement = {"name": "DP statement", "verdict": "inconclusive", "explanation": "Planted."}
    toy["audit"]["checks"].append(statement)
    assert "No formal guarantee" in text_of(toy)
    statement["verdict"] = "pass"
    assert "No formal guarantee" not in text_of(toy)


def test_names_cannot_break_out_of_the_card(toy: dict[str, Any]) -> None:
    toy["overview"]["name"] = "films\n\n# Approved <script>"
    toy["distilled"] = replace(toy["distilled"], classes=("COVID|x", "lung opacity", "normal"))
    text = text_of(toy)
    assert "\n# Approved" not in text and "\\<script" in text and "| COVID\\|x | 2 |" in text


def head_of(text: str) -> dict[str, Any]:
    opening, head, _ = text.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(head)


def test_the_head_is_what_the_hub_reads(toy: dict[str, Any]) -> None:
    head = head_of(text_of(toy))
    assert head == {
        "pretty_name": "Distilled set of Toy films",
        "license": "cc-by-4.0",
        "task_categories": ["image-classification"],
        "annotations_creators": ["machine-generated"],
        "size_categories": ["n<1K"],
        "tags": ["dataset-distillation", "synthetic", "not-for-diagnosis"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": ["images/metadata.jsonl", "images/**/*.png"]}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("CC BY-NC-SA 4.0", {"license": "cc-by-nc-sa-4.0"}),
        ("CC0 1.0", {"license": "cc0-1.0"}),
        ("", {"license": "unknown"}),
        (None, {"license": "unknown"}),
        ("ask: Dr. B\n---\nx: 1", {"license": "other", "license_name": "ask: Dr. B --- x: 1"}),
    ],
)
def test_the_licence_is_named_as_the_hub_names_it(licence: str | None, said: dict[str, str]) -> None:
    head = head_of(front_matter("toy", 6, {"licence": licence}))
    assert {key: value for key, value in head.items() if key.startswith("license")} == said


@pytest.mark.parametrize(
    ("images", "category"),
    [(999, "n<1K"), (1_000, "1K<n<10K"), (9_999, "1K<n<10K"), (10_000, "10K<n<100K"), (2_000_000, "1M<n<10M")],
)
def test_the_size_is_the_hubs(images: int, category: str) -> None:
    assert head_of(front_matter("toy", images, {}))["size_categories"] == [category]


ACCURACY: dict[str, Any] = {
    "metric": "balanced_accuracy",
    "networks": 5,
    "master": {"mean": 0.8004, "sd": 0.0111},
    "png": {"mean": 0.7, "sd": 0.02, "difference": -0.1004, "difference_sd": 0.015, "interval": [-0.12, -0.08]},
    "dicom": {"mean": 0.8004, "sd": 0.0111, "difference": 0.0, "difference_sd": 0.0, "interval": None},
}
ACCURACY["npz"] = ACCURACY["png"]


def test_the_card_says_what_a_view_loses(toy: dict[str, Any]) -> None:
    text = text_of(toy, ACCURACY)
    for line in (
        "| `distilled.safetensors` | float32, the master | 12,345 | 0.002 | 0.800 ± 0.011 | – |",
        "| `images` | 8 bit, clamped to [0, 1], class folders | 12,345 | 0.002 | 0.700 ± 0.020 "
        "| -0.100 ± 0.015 [-0.120, -0.080] |",
        "| `distilled.npz` | 8 bit, clamped to [0, 1], arrays named as MedMNIST does | 12,345 | 0.002 "
        "| the same pixels as PNG | – |",
        "| `dicom` | 16 bit, the whole range, Secondary Capture | 12,345 | 0.002 | 0.800 ± 0.011 | 0.000 ± 0.000 |",
        "Balanced accuracy of 5 networks trained on each",
    ):
        assert line in text, line
    assert "no DICOM view" not in text


def test_the_card_tells_how_much_is_clamped(toy: dict[str, Any]) -> None:
    images = torch.full((6, 1, 16, 16), 0.0)  # a pixel of .5
    images[0, 0, 0, :3], images[1, 0, 5, 5] = 2.1, -2.1  # pixels of 1.025 and -.025
    images[2, 0, 0, 0], images[3, 0, 0, 0] = 2.0, -2.0  # pixels of 1 and 0
    toy["distilled"] = replace(toy["distilled"], images=images)
    assert f"{100 * 4 / (6 * 256):.2g} % of the master's pixels lie outside [0, 1]" in text_of(toy)


def test_the_card_says_why_a_loss_is_not_told(toy: dict[str, Any]) -> None:
    text = text_of(toy, {"withheld": "a class has fewer than 10 test patients"})
    assert "A class has fewer than 10 test patients." in text and "balanced accuracy | difference" not in text
    assert "What a view loses was not measured." in text_of(toy)


def test_a_set_in_colour_has_no_dicom_view(toy: dict[str, Any]) -> None:
    toy["distilled"] = replace(
        toy["distilled"], images=toy["distilled"].images.repeat(1, 3, 1, 1), mean=(0.5,) * 3, std=(0.25,) * 3
    )
    assert "The images are in colour, so there is no DICOM view." in text_of(toy, ACCURACY, colour=True)


def test_small_numbers_of_films_are_not_told(toy: dict[str, Any]) -> None:
    toy["overview"]["counts"] = {"a": {"COVID": 9, "lung opacity": 9, "normal": 10}, "b": {"COVID": 10, "normal": 0}}
    toy["overview"]["patients"]["test"] = 3
    toy["evaluation"] |= {"test_films": 8, "test_patients": 2, "left_out": 1}
    text = text_of(toy)
    assert "| COVID | 2 | fewer than 10 | 10 |" in text and "| lung opacity | 2 | fewer than 10 | – |" in text
    assert "| normal | 2 | 10 | 0 |" in text and "test fewer than 10." in text
    assert "fewer than 10 held-out films of fewer than 10 patients" in text
    assert "fewer than 10 files of the source could not be read" in text


def test_a_small_number_cannot_be_taken_from_a_total(toy: dict[str, Any]) -> None:
    """One small cell in a column: with the column's sum, which the audit tells, it would be known."""
    toy["overview"]["counts"] = {"train": {"COVID": 300, "lung opacity": 3, "normal": 10}}
    text = text_of(toy)
    assert "| COVID | 2 | 300 |" in text and "| normal | 2 | 10 or more |" in text


def test_differences_have_a_sign_and_zero_has_none(toy: dict[str, Any]) -> None:
    found = {"mean": 0.5, "sd": 0.1, "difference": -1e-4, "difference_sd": 0.01, "interval": [-0.02, 0.0198]}
    text = text_of(toy, ACCURACY | {"png": found, "npz": found})
    assert "| 0.500 ± 0.100 | 0.000 ± 0.010 [-0.020, +0.020] |" in text
