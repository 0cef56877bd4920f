"""Check 5, membership inference: do networks trained on the set betray whose films it was made from?

The attacks (LiRA, RMIA), calibrated on shadow distillations, are run on two targets:

- the release: patients of the training films against those of the holdout. It is what is about to leave the house, but
  a few hundred holdout patients cannot tell a false positive rate of 0.1 % from a larger one;
- the procedure: every shadow in turn against the others, patients it was made from against those it was not. These are
  many times as many, and speak of sets made like the release in the shadows' budget, not of this very one.

The rule is applied to the target that has enough patients for it, to both where both have. The procedure speaks for the
release only where that started as the shadows did and gives away no more than they do.
"""

from functools import partial
from typing import Any

from torch import Tensor

from medistill import seeds
from medistill.audit.attack_exposure import exposure
from medistill.audit.check import Candidate, Check, Figure, Outcome, Private, not_applicable
from medistill.audit.membership_attack import (
    FPR,
    Attacked,
    allowed_curve,
    attack_release,
    in_words,
    judge,
    leaks_more,
    limit_of,
    negative_control,
    patients_needed,
    percent,
    planted_control,
    scores_of_each,
)
from medistill.audit.shadow_pool import Pool
from medistill.audit.shadow_training import students_on
from medistill.audit.shadows import Shadows, run_shadows
from medistill.report.membership import Curve, exposure_figure, membership_figure

NUMBER, NAME = 5, "membership inference"


def check(candidate: Candidate, private: Private, shadows: Shadows | None = None) -> Outcome:
    """Attack networks trained on the release, and all shadows, which are made where they are not given."""
    pool = Pool.of(private)
    if reason := pool.unfit(private.config.distill):
        return not_applicable(NUMBER, NAME, reason)
    shadows = shadows or run_shadows(private, candidate.ledger)
    final = candidate.distilled
    compiled = {"auto": None, "always": True, "never": False}[private.config.compile]
    answers = students_on(private, pool, final.images, final.labels, final.lr, ("release",), compiled, final.sequence)
    limit, curve = limit_of(candidate.ledger), allowed_curve(candidate.ledger)
    start = private.config.distill.start
    alike = final.provenance.get("start") == start
    unlike = "" if alike else f"the release did not start from {start}, as the shadows did, which cannot speak for it"
    return membership_check(shadows, answers, private.config.seed, limit, unlike, curve)


def membership_check(
    shadows: Shadows, answers: Tensor, seed: int, limit: float, unlike: str = "", curve: Curve | None = None
) -> Outcome:
    """Measure and judge.

    Args:
        shadows: what the shadows answer.
        answers: (S, N, C) class probabilities that networks trained on the release give all films of the pool.
        seed: base seed of bootstrap and controls.
        limit: the highest true positive rate at FPR that passes.
        unlike: why the shadows cannot speak for the release.
        curve: what the privacy budget allows, for the figure.
    """
    found = scores_of_each(shadows, shadows.students, shadows.inside)
    procedure = Attacked.of(found, shadows.inside, seed, "procedure")
    release = attack_release(shadows, answers, seed)
    upper_scores = scores_of_each(shadows, shadows.experts[:, :, -1], shadows.inside)
    upper = Attacked.of(upper_scores, shadows.inside, seed, "real films")
    positive = planted_control(shadows, seed) | {"trained_on_all_real_films": upper.to_json()}
    negative = negative_control(found, shadows.inside, seed)
    worst = exposure(found["LiRA"], shadows.inside, seeds.generator(seed, "audit", "membership", "exposure"))

    targets = {"release": release, "procedure": procedure}
    if not unlike and leaks_more(release, procedure):
        unlike = "the release gives away more than shadow distillations do, which cannot speak for it"
    verdict, why = judge(targets, limit, positive, negative, unlike)
    able = {name: target.resolves(limit) for name, target in targets.items()}
    judged = release if able["release"] and release.rate.interval[1] > procedure.rate.interval[1] else procedure
    if verdict == "fail":
        judged = max(targets.values(), key=lambda target: target.rate.interval[0])
    needed = {"release": patients_needed(limit, 1), "procedure": patients_needed(limit, len(shadows.inside))}
    statistic: dict[str, Any] = {
        "fpr": FPR,
        "limit": limit,
        "shadows": len(shadows.inside),
        **{name: target.to_json() | {"enough_patients": able[name]} for name, target in targets.items()},
        "shadows_speak_for_release": not unlike,
        "patients_needed": needed,
        "most_exposed_tenth": worst.to_json(),
    }
    explanation = _explanation(procedure, release, upper, positive["power"], worst.share, why)
    if not any(able.values()):
        explanation += f" It would take {needed['procedure']} patients, {needed['release']} for the release itself."
    if verdict == "pass" and not able["release"]:
        explanation += " The release alone has too few other patients to show it; sets made like it do."
    found_out = Check(
        NUMBER, NAME, verdict, statistic, judged.rate.interval, positive["power"], positive, negative, explanation
    )
    curves = {f"procedure, {name}": scores.curve for name, scores in procedure.scores.items()}
    curves |= {f"release, {name}": scores.curve for name, scores in release.scores.items()}
    curves |= {"networks trained on the films": upper.scores[upper.best].curve}
    draw = partial(membership_figure, curves, allowed=curve)
    return Outcome(
        found_out,
        (Figure("roc_5.png", draw), Figure("exposure_5.png", partial(exposure_figure, worst.won, worst.games))),
    )


def _explanation(
    procedure: Attacked, release: Attacked, upper: Attacked, power: float, exposed: float, why: str
) -> str:
    """What was measured, in sentences."""
    area = procedure.rocs[procedure.best]
    return (
        f"At {percent(FPR)} false positives the better attack finds {in_words(procedure.rate)} of the patients that "
        f"shadow distillations were made from, and {in_words(release.rate)} of those behind the release: {why}. "
        f"The area under the curve is {area.auc:.3f} ({area.auc_interval[0]:.3f} to {area.auc_interval[1]:.3f}), "
        f"{upper.rocs[upper.best].auc:.3f} for networks trained on the films themselves; of the patients whose films "
        f"were planted {percent(power)} are found; the most exposed tenth is told apart in {percent(exposed)} of "
        "guesses (chance: 50 %)."
    )
