"""Check 6, membership inference on the experts: what someone could learn who got hold of the networks themselves.

The experts stay in the house, so without DP nothing is judged: the numbers bound from above what a set made of them
can leak, as far as these attacks reach. In DP mode the experts are covered by the guarantee, and must keep it.

Every shadow's experts are attacked with the others', in white box: their answers at the last epoch, their answers along
the whole trajectory, and the norm of the gradient that a film has in their parameters, small where it was learned.
"""

from functools import partial
from typing import Any

import torch

from medistill.audit.attack_scores import lira_each
from medistill.audit.check import Candidate, Check, Figure, Outcome, Private, not_applicable
from medistill.audit.membership_attack import (
    FPR,
    Attacked,
    allowed_curve,
    in_words,
    judge,
    limit_of,
    negative_control,
    patients_needed,
    percent,
    planted_control,
    scores_of_each,
)
from medistill.audit.shadow_pool import Pool
from medistill.audit.shadows import Shadows, run_shadows
from medistill.report.membership import Curve, membership_figure

NUMBER, NAME = 6, "membership inference, experts"


def check(candidate: Candidate, private: Private, shadows: Shadows | None = None) -> Outcome:
    """Attack the experts of all shadows, which are made where they are not given."""
    if reason := Pool.of(private).unfit(private.config.distill):
        return not_applicable(NUMBER, NAME, reason)
    shadows = shadows or run_shadows(private, candidate.ledger)
    guaranteed = candidate.ledger is not None and shadows.noisy
    limit, curve = limit_of(candidate.ledger), allowed_curve(candidate.ledger)
    return experts_check(shadows, private.config.seed, limit, guaranteed, curve)


def experts_check(shadows: Shadows, seed: int, limit: float, guaranteed: bool, curve: Curve | None = None) -> Outcome:
    """Measure and, where the experts are guaranteed to keep to the limit, judge.

    Args:
        shadows: what the shadows' experts answer.
        seed: base seed of bootstrap and controls.
        limit: the highest true positive rate at FPR that passes.
        guaranteed: whether the shadows' experts were trained with the noise of a DP run.
        curve: what the privacy budget allows, for the figure.
    """
    inside, patient = shadows.inside, shadows.pool.patient
    along = scores_of_each(shadows, shadows.experts.flatten(1, 2), inside)
    tiny = torch.finfo(torch.float32).tiny
    flatness = -shadows.slopes.double().clamp(min=tiny).log().mean(1)  # (K, N)
    found = {
        **{f"last epoch, {name}": v for name, v in scores_of_each(shadows, shadows.experts[:, :, -1], inside).items()},
        **{f"trajectory, {name}": v for name, v in along.items()},
        "gradient norm, LiRA": lira_each(flatness, inside, patient),
    }
    experts = Attacked.of(found, inside, seed, "experts")
    positive, negative = planted_control(shadows, seed), negative_control(along, inside, seed)
    needed = patients_needed(limit, len(inside))
    statistic: dict[str, Any] = {
        "fpr": FPR,
        "limit": limit if guaranteed else None,
        "shadows": len(inside),
        "experts": experts.to_json() | {"enough_patients": experts.resolves(limit)},
        "patients_needed": needed,
    }
    roc = experts.rocs[experts.best]
    measured = (
        f"At {percent(FPR)} false positives the best of {len(found)} attacks finds {in_words(experts.rate)} of the "
        f"patients that shadow experts were trained on; the area under the curve is {roc.auc:.3f}"
    )
    if guaranteed:
        verdict, why = judge({"experts": experts}, limit, positive, negative)
        explanation = f"{measured}: {why}."
    else:
        verdict = "not applicable"
        explanation = f"{measured}. It is an upper reference: the experts stay in the house and nothing was promised."
    found_out = Check(
        NUMBER,
        NAME,
        verdict,
        statistic,
        experts.rate.interval,
        positive["power"],
        positive,
        negative,
        explanation,
    )
    curves = {name: scores.curve for name, scores in experts.scores.items()}
    return Outcome(found_out, (Figure("roc_6.png", partial(membership_figure, curves, allowed=curve)),))
