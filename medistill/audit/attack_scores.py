"""Membership scores of the two strongest published attacks, both offline, with the patient as their unit.

LiRA (Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022) asks how far a network's
confidence in a film lies above that of networks which have not seen it; RMIA (Zarifzadeh et al., "Low-Cost High-Power
Membership Inference Attacks", ICML 2024) asks how the same rise compares with that of other patients' films. The films
of a patient are averaged into one score. Shapes: N films, G patients, K shadow models, C classes.
"""

import math

import torch
from torch import Tensor

OWN_VARIANCE_FROM = 64
"""Shadows from which LiRA estimates each patient's variance alone; below it the pooled one makes a better attack."""

A = 0.3
"""RMIA's guess p_in = a p_out + 1 - a, fixed beforehand at its authors' value for CIFAR-10."""

GAMMA = 1.0
"""RMIA's likelihood ratio from which another patient is dominated: with a large one weak signals are all ties at 0."""


def confidence(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The logit of the probability of a film's own class, log p_y - log (1 - p_y) (Carlini et al.'s phi).

    The other classes are summed, so that nothing is lost where p_y is next to 1.

    Args:
        probabilities: (..., N, C).
        labels: (N,) int64.

    Returns:
        (..., N) float64.
    """
    p = probabilities.double()
    own = torch.zeros(p.shape[-2:], dtype=torch.bool, device=p.device).scatter_(1, labels[:, None].to(p.device), True)
    tiny = torch.finfo(torch.float32).tiny
    true, others = (p * own).sum(-1), (p * ~own).sum(-1)
    return true.clamp(min=tiny).log() - others.clamp(min=tiny).log()


def probability(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(..., N) float64, the probability of each film's own class, from (..., N, C)."""
    index = labels.to(probabilities.device).view(-1, 1).expand(*probabilities.shape[:-1], 1)
    return probabilities.double().gather(-1, index).squeeze(-1)


def patient_means(values: Tensor, patient: Tensor) -> Tensor:
    """(..., G) the mean of each patient's films, from values (..., N) and patients (N,) numbered 0 to G - 1."""
    count = torch.bincount(patient).to(values)
    sums = values.new_zeros(*values.shape[:-1], len(count)).index_add_(-1, patient, values)
    return sums / count


def lira(target: Tensor, shadows: Tensor, out: Tensor, own_variance: bool) -> Tensor:
    """Offline LiRA: standard deviations by which the target's confidence exceeds that of the models without a patient.

    The paper's score, 1 - Pr[Z > phi] with Z normal with the mean and variance of the OUT models, is the normal
    distribution function of it and orders patients alike.

    Args:
        target: (G,) confidence of the attacked model.
        shadows: (K, G) confidence of the shadow models.
        out: (K, G) True where the shadow model has not seen the patient.
        own_variance: of each patient, else one variance for all, pooled.

    Raises:
        ValueError: where a patient has too few OUT models.
    """
    count = out.sum(0)
    if count.min() < 1 + own_variance:
        raise ValueError(f"a patient has {int(count.min())} shadow models that have not seen it")
    mean = (shadows * out).sum(0) / count
    squares = ((shadows - mean) * out).square()
    spread = (squares.sum(0), count - 1) if own_variance else (squares.sum(), (count - 1).sum().clamp(min=1))
    variance = spread[0] / spread[1]
    return (target - mean) / variance.sqrt().clamp(min=torch.finfo(torch.float32).tiny)


def rmia(target: Tensor, shadows: Tensor, out: Tensor, patient: Tensor, a: float = A, gamma: float = GAMMA) -> Tensor:
    """Offline RMIA: the share of other patients over whom a patient's likelihood ratio dominates by `gamma`.

    A film's ratio is p(x | target) / p(x) with p(x) = ((1 + a) p_out(x) + 1 - a) / 2, where p_out is the mean over the
    OUT models; a patient's is the geometric mean over its films. The population is all other patients: the attacker
    need not know who of them is a member.

    Args:
        target: (N,) probability of its own class that the attacked model gives each film.
        shadows: (K, N) the same of the shadow models.
        out: (K, G) True where the shadow model has not seen the patient.
        patient: (N,) of each film.
        a: slope of the line that guesses p_in from p_out.
        gamma: ratio from which the other patient is dominated.

    Returns:
        (G,) in [0, 1].

    Raises:
        ValueError: where a patient has no OUT model.
    """
    unseen = out[:, patient]
    if unseen.sum(0).min() < 1:
        raise ValueError("a patient has 0 shadow models that have not seen it")
    p_out = (shadows * unseen).sum(0) / unseen.sum(0)
    p = ((1 + a) * p_out + 1 - a) / 2
    tiny = torch.finfo(torch.float32).tiny
    ratio = patient_means(target.clamp(min=tiny).log() - p.log(), patient)
    dominated = torch.searchsorted(ratio.sort().values, ratio - math.log(gamma), right=True)
    itself = 1 if gamma <= 1 else 0
    return (dominated - itself).double() / (len(ratio) - 1)


def attack(
    target: tuple[Tensor, Tensor], shadows: tuple[Tensor, Tensor], out: Tensor, patient: Tensor
) -> dict[str, Tensor]:
    """Both scores (G,) of one attacked model.

    Args:
        target: confidence and probability (N,) of each film.
        shadows: the same (K, N) of the shadow models.
        out: (K, G) True where the shadow model has not seen the patient.
        patient: (N,) of each film.
    """
    confidences = [patient_means(values[0], patient) for values in (target, shadows)]
    own_variance = len(out) >= OWN_VARIANCE_FROM
    return {
        "LiRA": lira(confidences[0], confidences[1], out, own_variance),
        "RMIA": rmia(target[1], shadows[1], out, patient),
    }


def lira_each(values: Tensor, inside: Tensor, patient: Tensor) -> Tensor:
    """LiRA's scores (K, G) of every shadow as the target, from film values (K, N), the others as shadows but its twin.

    Shadows come in twins 2j and 2j + 1 that share out the patients. Without the target's twin every patient has the
    same number of OUT models, whether it is in the target or not; with it, members would have one more, so that the
    noise of the two would differ. The scores of each target are counted in quartile ranges from their median, which
    keeps their order and lets one threshold serve all targets.

    Args:
        values: of each shadow model, higher for films it has seen.
        inside: (K, G) True where the model has seen the patient.
        patient: (N,) of each film.
    """
    means = patient_means(values, patient)
    own_variance = len(inside) >= OWN_VARIANCE_FROM
    scores = [lira(means[k], means[others], ~inside[others], own_variance) for k, others in _rivals(len(inside))]
    return torch.stack([_levelled(score) for score in scores])


def rmia_each(probabilities: Tensor, inside: Tensor, patient: Tensor) -> Tensor:
    """RMIA's scores (K, G) of every shadow as the target, as `lira_each`; shares of patients need no levelling."""
    rivals = _rivals(len(inside))
    return torch.stack([rmia(probabilities[k], probabilities[o], ~inside[o], patient) for k, o in rivals])


def _rivals(count: int) -> list[tuple[int, list[int]]]:
    """Each model and all others but its twin."""
    return [(k, [other for other in range(count) if other // 2 != k // 2]) for k in range(count)]


def _levelled(scores: Tensor) -> Tensor:
    """Scores (G,) in quartile ranges from their median."""
    low, middle, high = scores.quantile(scores.new_tensor([0.25, 0.5, 0.75]))
    return (scores - middle) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
