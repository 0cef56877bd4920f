"""What is said of numbers, and how they are rounded and found."""

import re
from dataclasses import replace

import pytest

from medistill.report.html.numbers import FORMATS, Numbers, pointer
from medistill.report.html.sentences import benefit, calibration, loss


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("count", 1234567, "1\u202f234\u202f567"),
        ("two", 0.125, "0.12"),
        ("three", -0.0004, "0.000"),
        ("signed", 0.0525, "+0.052"),
        ("signed", -0.31, "-0.310"),
        ("signed", 0.0, "0.000"),
        ("percent", 0.625, "62\u202f%"),
        ("percent1", 0.0132890365, "1.3\u202f%"),
        ("p", 0.00099, "<\u202f0.001"),
        ("p", 0.001, "0.001"),
        ("significant", 0.0089, "0.0089"),
        ("significant", 2.6379e-8, "2.64\u202f×\u202f10⁻⁸"),
        ("significant", 3, "3"),
    ],
)
def test_a_number_is_rounded_for_the_reader(kind, value, text):
    assert FORMATS[kind](value) == text


def test_a_place_is_found_and_told_as_a_pointer():
    numbers = Numbers({"audit": {"max/tpr": {"0.001": [0.5, None]}}})
    assert numbers.value("audit", ("max/tpr", "0.001"), 0) == 0.5
    assert numbers.value("audit", "gone", "further") is None and numbers.value("audit", "max/tpr", "0.001", 7) is None
    assert 'data-path="audit/max~1tpr/0.001/0"' in numbers.number("audit", "max/tpr", "0.001", 0)
    assert pointer("a~b", 3) == "a~0b/3"
    assert numbers.interval("audit", "max/tpr", "0.001") == '<span class="none">–</span>'


def said(sentence):
    return re.sub("<[^>]*>", "", sentence)


def with_classifier(content, **changed):
    """The content with another classifier of the distilled set."""
    own = content.evaluation["arms"]["distilled"]
    own = own | {"classifier": own["classifier"] | changed}
    return replace(content, evaluation=content.evaluation | {"arms": content.evaluation["arms"] | {"distilled": own}})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ([0.3, 0.2, 0.1, 0.05], "every one of the films and calling none at thresholds from 0.20 to 0.40"),
        ([0.3, 0.2, -0.1, 0.05], "at some of the thresholds from 0.20 to 0.40"),
        ([0.3, 0.1, 0.0, -0.2], "At no threshold does calling by score beat both"),
    ],
)  # fmt: skip
def test_where_a_score_is_worth_something(content, model, words):
    curve = {"thresholds": [0.1, 0.2, 0.3, 0.4], "model": model, "treat_all": [0.3, 0.1, -0.2, -0.4]}
    one = with_classifier(content, decision_curve=curve)
    assert words in said(benefit(one, Numbers(one.sources)))


def test_how_scores_are_calibrated(content):
    fit = {"intercept": {"value": 0.9, "interval": [0.5, 1.3]}, "slope": {"value": 0.5, "interval": [0.2, 0.8]}}
    one = with_classifier(content, calibration=fit)
    expected = "Calibration: intercept 0.90, scores are too low on the whole; slope 0.50, scores are too extreme."
    assert said(calibration(one, Numbers(one.sources))) == expected
    fit = {"intercept": {"value": -0.9, "interval": [-1.5, 0.3]}, "slope": {"value": None, "interval": None}}
    one = with_classifier(content, calibration=fit)
    expected = "Calibration: intercept −0.90, not told apart from the best value; no slope can be told."
    assert said(calibration(one, Numbers(one.sources))) == expected


def test_the_loss_is_that_of_the_iterations_that_were_not_skipped(content):
    one = said(loss(content, Numbers(content.sources)))
    assert one == "The unweighted matching loss went from 1.250 to 0.500 in 300 iterations."
    other = replace(content, history={"loss": [3.0, 2.0], "phase": [0.0, 1.0]})
    assert said(loss(other, Numbers(other.sources))) == "The loss went from 3.000 to 2.000 in 300 iterations."
    none = replace(content, history={"loss_unweighted": [None, None]})
    assert said(loss(none, Numbers(none.sources))) == "Every iteration was skipped."
