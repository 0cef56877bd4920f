"""LiRA and RMIA against hand calculations, few-line versions written anew, and double loops."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from medistill.audit import attack_scores
from medistill.audit.attack_scores import (
    attack,
    confidence,
    lira,
    lira_each,
    patient_means,
    probability,
    rmia,
    rmia_each,
)
from medistill.seeds import generator


def numbers(*shape: int, name: str = "x") -> Tensor:
    return torch.randn(*shape, generator=generator(0, name), dtype=torch.float64)


PATIENT = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 4])
INSIDE = torch.tensor(
    [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0], [1, 1, 0, 0, 1], [0, 0, 1, 1, 0], [1, 0, 0, 1, 0], [0, 1, 1, 0, 1]]
).bool()


def test_confidence_by_hand_and_where_a_class_is_all_but_certain() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    expected = [math.log(0.25 / 0.75), math.log(0.7 / 0.3)]
    assert confidence(p, torch.tensor([1, 2])).tolist() == pytest.approx(expected, rel=1e-6)
    sure = torch.tensor([[1.0, 1e-20, 1e-20], [0.0, 1.0, 0.0]])
    found = confidence(sure[None], torch.tensor([0, 0]))[0]
    assert found[0].item() == pytest.approx(-math.log(2e-20), rel=1e-6)
    assert found[1].item() == pytest.approx(math.log(torch.finfo(torch.float32).tiny))
    logits = numbers(4, 6, 3) * 9
    expected_all = torch.logit(logits.softmax(-1)[..., 1])
    torch.testing.assert_close(confidence(logits.softmax(-1), torch.ones(6).long()), expected_all)


def test_probability_and_patient_means_by_hand() -> None:
    p = torch.tensor([[[0.2, 0.8], [0.6, 0.4]], [[0.5, 0.5], [0.1, 0.9]]])
    assert probability(p, torch.tensor([1, 0])).flatten().tolist() == pytest.approx([0.8, 0.6, 0.5, 0.1])
    means = patient_means(torch.tensor([[1.0, 3.0, 10.0], [0.0, 1.0, 5.0]]), torch.tensor([1, 1, 0]))
    assert means.tolist() == [[10, 2], [5, 0.5]]


def test_lira_by_hand() -> None:
    """Patient 0: OUT models say 1 and 3; patient 1: 0, 0 and 6. Pooled variance (2 + 24) / (1 + 2), own 2 and 12."""
    shadows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [100.0, 6.0]]).double()
    out = torch.tensor([[1, 1], [1, 1], [0, 1]]).bool()
    target = torch.tensor([4.0, 1.0]).double()
    pooled = math.sqrt(26 / 3)
    assert lira(target, shadows, out, own_variance=False).tolist() == pytest.approx([2 / pooled, -1 / pooled])
    assert lira(target, shadows, out, own_variance=True).tolist() == pytest.approx([2 / 2**0.5, -1 / 12**0.5])


@pytest.mark.parametrize("own_variance", [False, True])
def test_lira_orders_patients_as_an_independent_one(own_variance: bool) -> None:
    target, shadows = numbers(9, name="t"), numbers(6, 9, name="s")
    scores = []
    residuals = []
    for person in range(5):
        films = np.flatnonzero(PATIENT.numpy() == person)
        away = [shadows[k].numpy()[films].mean() for k in range(6) if not INSIDE[k, person]]
        residuals.append(np.array(away) - np.mean(away))
        scores.append((target.numpy()[films].mean(), np.mean(away), np.std(away, ddof=1)))
    fixed = math.sqrt(sum((r**2).sum() for r in residuals) / sum(len(r) - 1 for r in residuals))
    expected = [1 - norm.sf(phi, mean, own if own_variance else fixed) for phi, mean, own in scores]
    found = lira(patient_means(target, PATIENT), patient_means(shadows, PATIENT), ~INSIDE, own_variance)
    np.testing.assert_allclose(norm.cdf(found.numpy()), expected, rtol=1e-9)


@pytest.mark.parametrize(("a", "gamma"), [(0.3, 1.0), (0.3, 2.0), (1.0, 1.2), (0.0, 0.9)])
def test_rmia_equals_a_double_loop(a: float, gamma: float) -> None:
    target, shadows = (3 * numbers(9, name="t")).sigmoid(), (3 * numbers(6, 9, name="s")).sigmoid()

    def ratio(person: int) -> float:
        logs = []
        for film in np.flatnonzero(PATIENT.numpy() == person):
            p_out = np.mean([shadows[k, film].item() for k in range(6) if not INSIDE[k, person]])
            p_in = a * p_out + 1 - a
            logs.append(math.log(target[film].item() / ((p_in + p_out) / 2)))
        return math.exp(float(np.mean(logs)))

    expected = [np.mean([ratio(x) / ratio(z) >= gamma for z in range(5) if z != x]) for x in range(5)]
    found = rmia(target, shadows, ~INSIDE, PATIENT, a, gamma)
    assert found.tolist() == pytest.approx(expected)
    assert 0 < found.mean() < 1


def test_rmia_gives_patients_their_rank_whoever_is_a_member() -> None:
    target, shadows = numbers(9, name="t").sigmoid(), numbers(6, 9, name="s").sigmoid()
    assert sorted(rmia(target, shadows, ~INSIDE, PATIENT).tolist()) == [0, 0.25, 0.5, 0.75, 1]


def test_each_shadow_is_attacked_without_its_twin() -> None:
    values, p = numbers(6, 9, name="s"), numbers(6, 9, name="p").sigmoid()
    found, ranks = lira_each(values, INSIDE, PATIENT), rmia_each(p, INSIDE, PATIENT)
    for target, others in ((0, [2, 3, 4, 5]), (3, [0, 1, 4, 5]), (5, [0, 1, 2, 3])):
        assert (~INSIDE[others]).sum(0).tolist() == [2] * 5
        means = patient_means(values, PATIENT)
        raw = lira(means[target], means[others], ~INSIDE[others], False).numpy()
        low, middle, high = np.percentile(raw, [25, 50, 75])
        np.testing.assert_allclose(found[target].numpy(), (raw - middle) / (high - low), rtol=1e-9)
        assert torch.equal(ranks[target], rmia(p[target], p[others], ~INSIDE[others], PATIENT))


def test_the_variance_is_a_patients_own_from_64_shadows_on(monkeypatch: pytest.MonkeyPatch) -> None:
    values = numbers(6, 9, name="s")
    seen: list[bool] = []
    original = attack_scores.lira

    def spy(target: Tensor, shadows: Tensor, out: Tensor, own_variance: bool) -> Tensor:
        seen.append(own_variance)
        return original(target, shadows, out, own_variance)

    monkeypatch.setattr(attack_scores, "lira", spy)
    for count in (63, 64):
        out = torch.zeros(count, 5, dtype=torch.bool)
        out[::2] = True
        many = numbers(count, 9, name="many")
        attack((values[0], values[0].sigmoid()), (many, many.sigmoid()), out, PATIENT)
    assert seen == [False, True]
    lira_each(values, INSIDE, PATIENT)
    assert seen[2:] == [False] * 6


def test_scores_of_patients_nobody_has_seen_are_those_of_members() -> None:
    """Nothing to find: the share of members among the highest scores is their share among all."""
    patients = 3000
    first = torch.rand(4, patients, generator=generator(0, "inside")) < 0.5
    inside = torch.stack([first, ~first], 1).reshape(8, patients)
    found = lira_each(numbers(8, patients, name="null"), inside, torch.arange(patients))
    top = found.flatten().argsort(descending=True)[:2400]
    assert inside.flatten()[top].double().mean() == pytest.approx(0.5, abs=0.03)
    assert found[inside].var().item() == pytest.approx(found[~inside].var().item(), rel=0.05)


def test_a_patient_whom_every_shadow_has_seen_is_refused() -> None:
    values, out = numbers(3, 2), torch.tensor([[True, False]] * 3)
    with pytest.raises(ValueError, match="0 shadow models"):
        lira(values[0], values, out, False)
    with pytest.raises(ValueError, match="0 shadow models"):
        rmia(values[0].sigmoid(), values.sigmoid(), out, torch.arange(2))
    with pytest.raises(ValueError, match="1 shadow models"):
        lira(values[0], values, torch.tensor([[True, True], [True, False], [True, False]]), True)
