"""Figures on films of one's own: those of the mean probability, and withheld where they speak of few."""

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

from medistill.seeds import generator
from medistill.stages.own_films import OwnFilms, few, measure

CLASSES = ("a", "b", "c")


def films(labels: torch.Tensor, groups: torch.Tensor) -> OwnFilms:
    return OwnFilms(torch.zeros(len(labels), 1, 2, 2), labels, groups, 3)


def test_the_classifier_is_the_mean_and_the_spread_that_of_its_networks() -> None:
    labels = torch.arange(60) % 3
    answers = torch.rand(4, 60, 3, generator=generator(0, "answers")) + torch.eye(3)[labels] / 3
    answers = answers / answers.sum(2, keepdim=True)
    found = measure(answers, films(labels, torch.arange(60) // 2), CLASSES, None, 0)
    guess = answers.mean(0).argmax(1)
    assert found["metrics"]["macro_f1"]["value"] == pytest.approx(f1_score(labels, guess, average="macro"))
    each = torch.tensor([balanced_accuracy_score(labels, p.argmax(1)) for p in answers])
    row = found["metrics"]["balanced_accuracy"]
    assert (row["mean"], row["sd"]) == (pytest.approx(float(each.mean())), pytest.approx(float(each.std())))
    assert row["value"] == pytest.approx(balanced_accuracy_score(labels, guess)) and row["value"] != row["mean"]
    table = confusion_matrix(labels, guess)
    assert found["confusion"] == table.tolist()
    assert [found["classes"][name]["recall"] for name in CLASSES] == pytest.approx(table.diagonal() / table.sum(1))
    assert "auroc_positive" not in found["metrics"] and found["left_out"] == 3


@pytest.mark.parametrize(("patients", "withheld"), [(1, True), (9, True), (10, False), (0, False)])
def test_a_class_of_fewer_than_ten_patients_withholds_everything(patients: int, withheld: bool) -> None:
    labels = torch.cat([torch.zeros(24), torch.ones(24), torch.full((patients,), 2)]).long()
    groups = torch.cat([torch.arange(24) // 2, 50 + torch.arange(24) // 2, 99 + torch.arange(patients)])
    answers = torch.full((1, len(labels), 3), 1 / 3)
    assert few(measure(answers, films(labels, groups), CLASSES, "a", 0)) is withheld
