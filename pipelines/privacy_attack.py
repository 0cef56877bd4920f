"""Membership inference beside each accuracy: offline LiRA (Carlini et al. 2022) on students of the distilled set.

The attacked runs used all training patients; the held-out ones are the non-members. Shadows come in twins that share
out all patients of both kinds by chance, so half of them have not seen a given patient. Because train and held-out
films of a benchmark may differ by themselves, each shadow is also attacked with the others but its twin: there chance
alone decides who is a member.
"""

from typing import Any

import numpy as np
import torch
from privacy_films import Films
from torch import Tensor

from medistill import seeds
from medistill.audit.attack_roc import Scores, measure
from medistill.audit.attack_scores import lira
from medistill.experts.accountant import Mechanism, max_tpr

FPR = np.logspace(-3, 0, 61)


def halves(films: Films, count: int) -> Tensor:
    """(count, G) True for the patients of each shadow; rows 2j and 2j + 1 share out every class evenly."""
    kind, rows = films.kind, []
    for pair in range(count // 2):
        order = torch.randperm(len(kind), generator=seeds.generator(0, "privacy", "halves", pair))
        order = order[kind[order].argsort(stable=True)]
        first = torch.zeros(len(kind), dtype=torch.bool)
        first[order[::2]] = True
        rows += [first, ~first]
    return torch.stack(rows)


def membership(films: Films, targets: Tensor, shadows: Tensor, inside: Tensor, mechanism: Mechanism) -> dict[str, Any]:
    """What the attack reaches on runs (S, G) and on shadows (K, G), and the most that epsilon allows.

    Args:
        targets: confidence of the runs on all training patients.
        shadows: confidence of the runs on halves.
        inside: (K, G) the halves.
        mechanism: all steps of all experts of a run.
    """
    attacked = torch.stack([_levelled(lira(target, shadows, ~inside, False)) for target in targets])
    others = [[k for k in range(len(shadows)) if k // 2 != j // 2] for j in range(len(shadows))]
    crossed = torch.stack([_levelled(lira(shadows[j], shadows[k], ~inside[k], False)) for j, k in enumerate(others)])
    runs, twins = Scores.of(attacked, films.member.expand_as(attacked)), Scores.of(crossed, inside)
    theory = max_tpr([mechanism], FPR)
    found: dict[str, Any] = {
        name: measure(scores, seeds.generator(0, "privacy", "bootstrap"), resamples=200).to_json()
        for name, scores in (("runs", runs), ("shadows", twins))
    }
    false, true = runs.curve
    measured = [float(true[np.searchsorted(false, rate, side="right") - 1]) for rate in FPR]
    allowed = {
        "tpr_at_0.01": float(max_tpr([mechanism], [0.01])[0]),
        "tpr_at_0.001": float(max_tpr([mechanism], [0.001])[0]),
    }
    return found | {"theory": allowed, "roc": {"fpr": FPR.tolist(), "measured": measured, "theory": theory.tolist()}}


def _levelled(scores: Tensor) -> Tensor:
    """Scores (G,) from their median, so that one threshold serves all runs."""
    return scores - scores.median()
