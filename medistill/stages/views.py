"""What a view of the distilled set loses in accuracy: students on its pixels against students on the master."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from medistill.data.imageset import normalise
from medistill.distill.distilled import Distilled
from medistill.evaluate.compare import paired
from medistill.evaluate.metrics import measure, summary
from medistill.files import plain
from medistill.release.views import MASTER, write_views
from medistill.stages.load import Splits
from medistill.stages.session import Session
from medistill.stages.students import ask, recipe_of

METRIC = "balanced_accuracy"


def view_accuracy(session: Session, splits: Splits, final: Distilled) -> dict[str, Any]:
    """What students reach on the test films from each view, as `medistill.release.bundle.write_release` takes it.

    They are trained as those of the evaluation, each on the same weights and batches as its fellow on the master, whose
    answers are the evaluation's own. Views that hold the same pixels are measured once.
    """
    with TemporaryDirectory() as folder:
        # identifiers in the files are of no concern here, their pixels are
        views = write_views(Path(folder), final, digest="")
    master = _reached(session, splits, final, "distilled", final.images)
    found: dict[str, Any] = {MASTER: _spread(master)}
    for view in views:
        if not view.kind.same:
            seen = normalise(view.pixels, final.mean, final.std)
            runs = _reached(session, splits, final, f"view {view.kind.name}", seen)
            found[view.kind.name] = _spread(runs) | _difference(runs, master)
    return {"metric": METRIC, "networks": len(master), **found}


def _reached(session: Session, splits: Splits, final: Distilled, name: str, images: Tensor) -> list[float]:
    """The metric of each student on the test films."""
    answers = ask(session, splits, name, images, final.labels, final.lr, recipe_of(session), final.sequence)
    test, positive = splits.test, session.config.data.positive
    # the metric takes the most probable class, so no threshold has a part in it
    return [measure(one, test.labels, test.classes, positive, 0.5)[METRIC] for one in answers.test]


def _spread(runs: list[float]) -> dict[str, Any]:
    """Mean and standard deviation over the students."""
    mean, sd = summary([{METRIC: run} for run in runs])[METRIC]
    return {"mean": mean, "sd": sd}


def _difference(runs: list[float], master: list[float]) -> dict[str, Any]:
    """How far a view's students are above those of the master, seed by seed."""
    gaps = [run - other for run, other in zip(runs, master, strict=True)]
    mean, sd = summary([{METRIC: gap} for gap in gaps])[METRIC]
    both = paired([runs], [master])
    interval = plain([both.low, both.high])
    return {"difference": mean, "difference_sd": sd, "interval": None if None in interval else interval}
