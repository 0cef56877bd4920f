"""metadata.json: what the set is and is meant for, for programs; nothing of it is a function of single patients."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.release.folders import class_folders

FORMAT = 2
"""Of the release's folder; the first had no views. `verify` writes card and descriptions anew and compares, so it is to
be raised when their words change."""

NAMED = "Distilled set of "

INTENDED = (
    "train and compare classifiers of such images in research, in place of the source's data",
    "study dataset distillation and what distilled images tell about the data behind them",
)
OUT_OF_SCOPE = (
    "not for diagnosis, treatment or any other decision about a person; not a medical device",
    "not for reading by eye: the images are a training signal, no radiographs, and show no anatomy one may rely on",
    "not for attempts to find out about the persons behind the source",
    "not for claims about films, scanners or patients unlike the source's without measuring there",
)


def set_name(overview: Mapping[str, Any]) -> str:
    """What the set is called."""
    return f"{NAMED}{overview.get('name', 'chest X-rays')}"


def metadata(
    distilled: Distilled,
    audit: Mapping[str, Any],
    overview: Mapping[str, Any],
    views: Sequence[Mapping[str, Any]],
    accuracy: Mapping[str, Any],
) -> dict[str, Any]:
    """What metadata.json holds.

    Args:
        distilled: the set that is released.
        audit: with the decision to release under "decision".
        overview: the source, as `medistill.release.card.card` takes it.
        views: what `medistill.release.views.described` returns.
        accuracy: what was measured of the views, or {"withheld": why}.
    """
    channels, height, width = distilled.images.shape[1:]
    return {
        "format": FORMAT,
        "name": set_name(overview),
        "intended_use": list(INTENDED),
        "out_of_scope": list(OUT_OF_SCOPE),
        "classes": list(distilled.classes),
        "class_folders": list(class_folders(distilled.classes)),
        "images": len(distilled.images),
        "images_per_class": [int((distilled.targets == index).sum()) for index in range(len(distilled.classes))],
        "size": {"channels": channels, "height": height, "width": width},
        "normalisation": {"mean": list(distilled.mean), "std": list(distilled.std), "rule": "(pixel - mean) / std"},
        "training": {
            "learning_rate": distilled.lr,
            "sequence": [list(pair) for pair in distilled.sequence],
            "augmentation": list(distilled.augment),
            "network": asdict(distilled.architecture),
        },
        "method": distilled.provenance.get("method"),
        "start": distilled.provenance.get("start"),
        "source": {key: overview.get(key) or None for key in ("name", "citation", "licence")},
        "privacy": {"verdict": audit["verdict"], "decision": audit["decision"]},
        "views": list(views),
        "views_accuracy": {key: accuracy.get(key) for key in ("metric", "networks", "withheld")},
    }
