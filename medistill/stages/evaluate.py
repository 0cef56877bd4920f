"""EVALUATE: students on the distilled set and on what it must beat, and what is made of their answers."""

from collections import Counter
from dataclasses import asdict
from typing import Any

from medistill.distill import initial
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.evaluate.evaluation import Measured, evaluation
from medistill.evaluate.subgroups import attributes_of
from medistill.files import read_json, write_json
from medistill.report.clinical import calibration_figure, decision_curve_figure
from medistill.report.comparison import comparison_figure
from medistill.report.plots import confusion_figure, report_picture, roc_figure
from medistill.stages.architectures import on_other_networks
from medistill.stages.baselines import baselines, score
from medistill.stages.distill import FILE as DISTILLED
from medistill.stages.distill import distilled
from medistill.stages.load import Splits, cohort_table, load
from medistill.stages.session import Session, Work
from medistill.stages.students import measure, recipe_of

FILE = "evaluation.json"
SITES = "sites.json"
"""The sites' names, which stay in the house."""

VIEWS = ("", "PA", "AP", "AP SUPINE", "LL", "RL", "LATERAL")
FIGURES = ("report.png", "roc.png", "confusion.png", "calibration.png", "decision_curve.png")
COMPARISONS = "comparisons.png"
"""Drawn where there are baselines."""


def evaluate(session: Session) -> None:
    """`medistill evaluate`: measure the distilled set on the test films, beside its baselines."""
    splits = load(session)
    made, final = distilled(session, splits)
    work = _work(session, made, splits)
    if session.done(work):
        session.say(f"evaluate: done already -> {work.folder / FILE}")
        return
    settings = session.config.evaluate
    session.say(f"evaluate: {settings.seeds} networks a set, {settings.steps} steps each")
    params = {"evaluate": asdict(settings), "net": asdict(session.config.net), "seed": session.config.seed}
    tags = {"data": splits.test.digest, "distilled": made.key, "set": made.digest(DISTILLED)}
    figures = [*FIGURES, COMPARISONS] if settings.baselines else FIGURES
    with session.stage(work, params, tags) as run:
        measured = [measure(session, splits, "distilled", final.images, final.labels, final.lr, final.sequence)]
        if settings.baselines:
            measured += baselines(session, splits)
        arms = [one.arm for one in measured]
        scored = score(session, splits, final, measured) if settings.baselines else None
        if session.group.leads:
            others = on_other_networks(session, splits, final, recipe_of(session))
            _write(
                session, work, splits, final, measured, {"scores": scored and asdict(scored), "architectures": others}
            )
        if run:
            run.input(splits.test.name, splits.test.digest, "test", {"films": len(splits.test)})
            for arm in arms:
                run.metrics(0, {f"{metric}/{arm.name}": mean for metric, (mean, _) in arm.test_summary.items()})
            for figure in figures if final.provenance["start"] in initial.PUBLIC else figures[1:]:
                run.figure(work.folder / figure)
    if session.group.leads:
        work.finish({"distilled": made.key}, [FILE, SITES, *figures])
    session.group.wait()
    for arm in arms:
        accuracy, sd = arm.test_summary["balanced_accuracy"]
        area = arm.test_summary["auroc_positive"][0]
        session.say(
            f"evaluate: {arm.name}: balanced accuracy {accuracy:.3f} ± {sd:.3f}, AUROC {arm.positive} {area:.3f} "
            f"({arm.images} images, {len(arm.thresholds)} networks)"
        )
    session.say(f"evaluate: -> {work.folder / FIGURES[0]}")


def _write(
    session: Session, work: Work, splits: Splits, final: Distilled, measured: list[Measured], also: dict[str, Any]
) -> None:
    """Write the figures of all arms, and what else was found, with their pictures."""
    config, arms = session.config, [one.arm for one in measured]
    attributes, sites = _attributes(session)
    report = evaluation(
        measured,
        splits.val,
        splits.test,
        config.evaluate,
        attributes,
        config.seed,
        splits.left_out,
    )
    write_json(work.folder / FILE, report | also)
    write_json(work.folder / SITES, sites)
    if report["comparisons"]:
        comparison_figure(report["comparisons"], "balanced_accuracy", work.folder / COMPARISONS)
    films, name = final.pictures().clamp(0, 1), config.data.name
    report_picture(films, final.targets, final.classes, arms, f"{name}: distilled set", work.folder / "report.png")
    roc_figure(arms, work.folder / "roc.png")
    confusion_figure(arms[0].confusion, final.classes, work.folder / "confusion.png")
    classifier, positive = report["arms"]["distilled"]["classifier"], config.data.positive
    calibration_figure(classifier["calibration"], positive, work.folder / "calibration.png")
    point = classifier["operating_point"]["threshold"]
    decision_curve_figure(classifier["decision_curve"], positive, work.folder / "decision_curve.png", point)


def _attributes(session: Session) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What is recorded of the patients of each test film, none of a benchmark; and the name of each numbered site.

    Sites are numbered, from the one with the most test films on, and unusual views called other: a cohort's table may
    name anything there, and an evaluation is shared.
    """
    table = cohort_table(session)
    test = table[table["split"] == "test"]
    columns = {name: list(test[name]) if name in test else [""] * len(test) for name in ("sex", "age", "view", "site")}
    columns["view"] = [view.upper() if view.upper() in VIEWS else "other" for view in columns["view"]]
    sizes = Counter(site for site in columns["site"] if site)
    numbers = {site: f"site {number}" for number, (site, _) in enumerate(sorted(sizes.items(), key=_largest), start=1)}
    columns["site"] = [numbers.get(site, "") for site in columns["site"]]
    return attributes_of(columns), {number: site for site, number in numbers.items()}


def _largest(site: tuple[str, int]) -> tuple[int, str]:
    return -site[1], site[0]


def evaluated(session: Session, splits: Splits) -> tuple[Work, dict[str, Any]]:
    """The evaluation of this config; it must have been made."""
    made, _ = distilled(session, splits)
    work = _work(session, made, splits)
    if not work.done:
        raise UserError(
            "evaluate: this config was not evaluated yet; run `medistill evaluate` with the same options first, "
            "or `medistill run` for every stage"
        )
    return work, read_json(work.file(FILE))


def _work(session: Session, made: Work, splits: Splits) -> Work:
    decides = {
        "distilled": made.key,
        "set": made.digest(DISTILLED),
        "evaluate": asdict(session.config.evaluate),
        "positive": session.config.data.positive,
        "data": splits.digests,
        "patients": _attributes(session),
        "seed": session.config.seed,
    }
    return session.work("evaluate", decides)
