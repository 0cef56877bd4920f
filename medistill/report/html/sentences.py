"""The sentences of the page that depend on what was measured: the summary, and what the figures show."""

from collections.abc import Sequence

from markupsafe import Markup

from medistill.report.html.content import Content
from medistill.report.html.numbers import Numbers

STARTS = {
    "noise": "random noise, which shows no patient",
    "phantom": "computer-made phantoms, which show no patient",
    "private_means": "class means under noise that the privacy account covers",
    "class_mean": "the mean {unit} of each class",
    "real": "real {unit} of patients",
}


VERDICTS = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}


def joined(parts: Sequence[str | Markup]) -> Markup:
    """One, two and three."""
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup(" and ").join([Markup(", ").join(parts[:-1]), parts[-1]])


def summary(content: Content, numbers: Numbers) -> list[Markup]:
    """Three sentences: what was made, what it is worth, what the audit says."""
    return [_made(content, numbers), _worth(content, numbers), _told(content, numbers)]


def _made(content: Content, numbers: Numbers) -> Markup:
    start = str(content.audit["context"]["start"])
    return Markup("From {} in the data set {}, {} synthetic images were distilled; they started from {}.").format(
        numbers.films(("audit", "context", "training_films"), ("audit", "context", "training_patients"), content.unit),
        content.name,
        numbers.number("audit", "context", "synthetic", kind="count"),
        STARTS.get(start, start).format(unit=content.unit),
    )


def _reached(numbers: Numbers, arm: str) -> Markup:
    """A balanced accuracy with its interval."""
    place = ("evaluation", "arms", arm)
    return Markup("{} ({})").format(
        numbers.number(*place, "mean", "balanced_accuracy", kind="two"),
        numbers.interval(*place, "interval", "balanced_accuracy", kind="two"),
    )


def _worth(content: Content, numbers: Numbers) -> Markup:
    others = {
        "full data": f"all training {content.unit}",
        "random real": f"as many real {content.unit} drawn at random",
    }
    rest = [
        Markup("{} on {}").format(_reached(numbers, arm), words)
        for arm, words in others.items()
        if arm in content.evaluation["arms"]
    ]
    return Markup(
        "A classifier trained on them alone reaches a balanced accuracy of {} on {}{} "
        "({} intervals over patients in brackets)."
    ).format(
        _reached(numbers, "distilled"),
        numbers.films(("evaluation", "test_films"), ("evaluation", "test_patients"), content.unit, "other"),
        Markup("; trained as long on real films instead, it reaches {}").format(joined(rest)) if rest else "",
        numbers.number("evaluation", "arms", "distilled", "classifier", "level", kind="percent"),
    )


def _told(content: Content, numbers: Numbers) -> Markup:
    names = [numbers.text("audit", "not_run", i, "name") for i in range(len(content.audit["not_run"]))]
    missing = Markup("Not run: {}.").format(Markup("; ").join(names)) if names else "All checks were run."
    return Markup("Audit of what they may tell about patients: <strong>{}</strong>. {} {}").format(
        VERDICTS[content.audit["verdict"]], numbers.text("audit", "words", 0), missing
    )


def loss(content: Content, numbers: Numbers) -> Markup:
    """How the distillation's loss went, from the first to the last iteration that was not skipped."""
    unweighted = "loss_unweighted" in content.history
    name = "loss_unweighted" if unweighted else "loss"
    known = [i for i, value in enumerate(content.history[name]) if value is not None]
    if not known:
        return Markup("Every iteration was skipped.")
    return Markup("The {} went from {} to {} in {} iterations.").format(
        "unweighted matching loss" if unweighted else "loss",
        numbers.number("history", name, known[0]),
        numbers.number("history", name, known[-1]),
        numbers.number("record", "method", "iterations", kind="count"),
    )


def roc(content: Content, numbers: Numbers) -> Markup:
    """The areas under the curves."""
    arms = [
        Markup("{} {}").format(arm, numbers.number("evaluation", "arms", arm, "mean", "auroc_positive"))
        for arm in content.arms
    ]
    return Markup("Mean area under the ROC curve, {} against the rest: {}.").format(
        content.evaluation["positive"], joined(arms)
    )


def calibration(content: Content, numbers: Numbers) -> Markup:
    """Whether scores are too high or too extreme, as far as the intervals tell."""
    place = ("evaluation", "arms", "distilled", "classifier", "calibration")
    found = content.evaluation["arms"]["distilled"]["classifier"]["calibration"]
    parts = []
    for name, perfect, below, above in (
        ("intercept", 0, "scores are too high on the whole", "scores are too low on the whole"),
        ("slope", 1, "scores are too extreme", "scores are not extreme enough"),
    ):
        fit = found[name]
        if fit["value"] is None or fit["interval"] is None:
            parts.append(Markup("no {} can be told").format(name))
            continue
        low, high = fit["interval"]
        said = above if low > perfect else below if high < perfect else "not told apart from the best value"
        parts.append(Markup("{} {}, {}").format(name, numbers.number(*place, name, "value", kind="two"), said))
    return Markup("Calibration: {}.").format(Markup("; ").join(parts))


def benefit(content: Content, numbers: Numbers) -> Markup:
    """At which thresholds calling by score beats calling every film and calling none."""
    curve = content.evaluation["arms"]["distilled"]["classifier"]["decision_curve"]
    better = [
        i
        for i, (model, everybody) in enumerate(zip(curve["model"], curve["treat_all"], strict=True))
        if model > max(everybody, 0)
    ]
    rivals = f"both calling every one of the {content.unit} and calling none"
    if not better:
        return Markup("At no threshold does calling by score beat {}.").format(rivals)
    place = ("evaluation", "arms", "distilled", "classifier", "decision_curve", "thresholds")
    whole = len(better) == better[-1] - better[0] + 1
    return Markup("Calling by score beats {} {} thresholds from {} to {}.").format(
        rivals,
        "at" if whole else "at some of the",
        numbers.number(*place, better[0], kind="two"),
        numbers.number(*place, better[-1], kind="two"),
    )


def subgroup_gaps(content: Content) -> Markup:
    """Which attributes have a gap beyond chance."""
    attributes = content.evaluation["subgroups"]["attributes"]
    found = [name for name, one in attributes.items() if any(gap.get("beyond_chance") for gap in one["gaps"].values())]
    told = [name for name, one in attributes.items() if any(gap["gap"] is not None for gap in one["gaps"].values())]
    if not told:
        return Markup("No gap between groups can be told: too few patients in each.")
    if not found:
        return Markup("No gap between groups of {} is beyond what chance makes.").format(joined(told))
    return Markup("Beyond what chance makes are the gaps between groups of {}.").format(joined(found))
