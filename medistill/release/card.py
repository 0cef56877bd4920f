"""The card of a release: what it is, how it is used, what it is worth and what it may give away."""

from collections.abc import Mapping, Sequence
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.release.card_audit import audit_words
from medistill.release.card_merged import merged_words
from medistill.release.card_views import views_words
from medistill.release.front_matter import front_matter
from medistill.release.guarded import sentence
from medistill.release.markdown import counted, counted_together, inline, printed, table_of
from medistill.release.merge import PARTS
from medistill.release.metadata import set_name

# Where the reader puts the name of the folder in the example.
FOLDER = "path/to/this/folder"

EXAMPLE = f"""\
import torch
import medistill

data = medistill.load("{FOLDER}")  # refuses files that were changed
network = data.network(seed=0)
optimiser = torch.optim.SGD(network.parameters(), lr=data.lr, momentum=0.9, weight_decay=5e-4)
for _ in range(300):
    loss = torch.nn.functional.cross_entropy(network(data.images), data.labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
"""

ORDERED_EXAMPLE = f"""\
import torch
import medistill

data = medistill.load("{FOLDER}")  # refuses files that were changed
network = data.network(seed=0)
for n, lr in data.sequence:  # the first n images at that learning rate, in this order
    optimiser = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    for _ in range(300):
        loss = torch.nn.functional.cross_entropy(network(data.images[:n]), data.labels[:n])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
"""

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auroc_macro": "AUROC, mean of classes",
    "auroc_positive": "AUROC, {positive}",
    "sensitivity": "sensitivity, {positive}",
    "specificity": "specificity, {positive}",
}


def card(
    distilled: Distilled,
    evaluation: dict[str, Any],
    audit: dict[str, Any],
    overview: dict[str, Any],
    views: Sequence[Mapping[str, Any]],
    accuracy: Mapping[str, Any],
) -> str:
    """The README.md of a release; its numbers come from the arguments, and what they lack is left out.

    Args:
        distilled: the set that is released.
        evaluation: {"classes", "positive", "seeds": n, "test_films": n, "test_patients": n, "arms": {name:
            {"mean": {metric: x}, "sd": {metric: x}, "interval": {metric: [low, high]}}}} with the arms
            "distilled", "random real", "full data" and others, and the metrics of `METRICS`.
        audit: what `medistill.audit.gate.audit_json` returns.
        overview: the source {"name", "citation", "licence", "counts": {split: {class: films}},
            "patients": {split: n}}, each optional.
        views: what `medistill.release.views.described` returns; where it is empty, nothing is said of views.
        accuracy: what was measured of them, in the form that `medistill.release.bundle.write_release` takes.
    """
    source = inline(overview.get("name", "chest X-rays"))
    sections = [
        front_matter(set_name(overview), len(distilled.images), overview) + f"\n# Distilled set of {source}",
        _introduction(distilled, source),
        "## What is in it\n\n" + _contents(distilled, overview),
        "## How it was made\n\n" + _making(distilled),
        *merged_words(distilled.provenance),
        "## How to use it\n\n" + _usage(distilled, measured="arms" in evaluation),
        "## What it is worth\n\n" + _accuracy(evaluation),
        "## Views of the same images\n\n" + views_words(distilled, views, accuracy),
        "## What it may give away\n\n" + audit_words(audit),
        "## Limits\n\n" + _limits(distilled, evaluation),
        "## Source and terms\n\n" + _terms(overview),
    ]
    return "\n\n".join(sections) + "\n"


def _introduction(distilled: Distilled, source: str) -> str:
    """What this is, in one paragraph."""
    m, channels, height, width = distilled.images.shape
    return (
        f"{m} synthetic images of {height} × {width} pixels ({channels} channel{'s' * (channels > 1)}) in "
        f"{len(distilled.classes)} classes, distilled from {source}. A classifier is trained on them "
        "instead of on the source. **For research, not for diagnosis.**"
    )


def _contents(distilled: Distilled, overview: Mapping[str, Any]) -> str:
    """The classes with their images here and their films in the source."""
    counts = {split: films for split, films in overview.get("counts", {}).items() if isinstance(films, Mapping)}
    here = [int((distilled.targets == index).sum()) for index in range(len(distilled.classes))]
    columns = [counted_together([films.get(name) for name in distilled.classes]) for films in counts.values()]
    rows = [[inline(name), *cells] for name, *cells in zip(distilled.classes, here, *columns, strict=True)]
    table = table_of(["class", "synthetic images", *(f"source films, {split}" for split in counts)], rows)
    known = overview.get("patients", {})
    patients = [f"{split} {told}" for split, told in zip(known, counted_together([*known.values()]), strict=True)]
    return table + (f"\n\nPatients in the source: {', '.join(patients)}." if patients else "")


def _making(distilled: Distilled) -> str:
    """Method, start and the rest of the provenance."""
    net = distilled.architecture
    known = {
        **{inline(key): value for key, value in sorted(distilled.provenance.items()) if key != PARTS},
        "network": f"{net.name}, width {net.width}, depth {net.depth}, {net.size} × {net.size} pixels",
        "augmentation": ", ".join(distilled.augment) or "none",
        "learning rate": _rates(distilled),
        "normalisation": f"(pixel − {list(distilled.mean)}) / {list(distilled.std)}, pixels in [0, 1]",
    }
    text = "\n".join(f"- {key}: {printed(value)}" for key, value in known.items())
    if distilled.provenance.get("start") in ("real", "class_mean"):
        text += (
            "\n\nThe images started from real films of the source. Such a start can leave traces of them; "
            "there is no formal guarantee."
        )
    return text


def _rates(distilled: Distilled) -> str:
    """The learning rate, or those of an ordered set one after another."""
    if not distilled.sequence:
        return f"{distilled.lr:.6g}"
    return "in this order " + ", then ".join(f"{lr:.6g} on the first {n} images" for n, lr in distilled.sequence)


def _usage(distilled: Distilled, measured: bool) -> str:
    """The example that a test executes."""
    net = distilled.architecture
    return (
        f"```python\n{ORDERED_EXAMPLE if distilled.sequence else EXAMPLE}```\n\n"
        f"For films `x` of shape (B, {net.channels}, {net.size}, {net.size}) with pixels in [0, 1], "
        "`network(data.normalise(x)).softmax(1)` gives the probabilities of "
        f"{', '.join(inline(name) for name in distilled.classes)}. "
        + "The networks measured below were trained as `config.yaml` says. "
        * measured
        + "`preview.png` shows the images; "
        "`sha256sum -c SHA256SUMS` checks the files without Python; `metadata.json` and `croissant.json` tell programs "
        "what is here, `environment.json` what wrote it."
    )


def _accuracy(evaluation: Mapping[str, Any]) -> str:
    """The table of arms and how far the distilled set comes towards the full data."""
    told: dict[str, Any] = evaluation.get("arms", {})
    arms = dict(sorted(told.items(), key=lambda arm: (arm[0] != "distilled", arm[0] == "full data", arm[0])))
    measured = [metric for metric in METRICS if any(metric in arm.get("mean", {}) for arm in arms.values())]
    if "withheld" in evaluation:
        return sentence(inline(evaluation["withheld"]))
    if not measured:
        return "It was not measured; nothing is known about its worth."
    positive = inline(evaluation.get("positive", "positive class"))
    header = ["trained on", *(METRICS[metric].format(positive=positive) for metric in measured)]
    rows = [[name, *(_measure(arm, metric) for metric in measured)] for name, arm in arms.items()]
    parts = [_protocol(evaluation), table_of(header, rows)]
    if evaluation.get("left_out"):
        parts.append(f"{counted(evaluation['left_out'])} files of the source could not be read and were left out.")
    reached = _of_full(arms)
    return "\n\n".join([*parts, reached] if reached else parts)


def _protocol(evaluation: Mapping[str, Any]) -> str:
    """How the table was measured."""
    films, patients, seeds = (evaluation.get(key) for key in ("test_films", "test_patients", "seeds"))
    on = "held-out films" if films is None else f"{counted(films)} held-out films"
    of = "" if patients is None else f" of {counted(patients)} patients"
    networks = "" if seeds is None else f" by {seeds} freshly trained networks"
    return f"Measured on {on}{of}{networks}: mean ± standard deviation [interval], where they were computed."


def _measure(arm: Mapping[str, Any], metric: str) -> str:
    """One cell: mean ± sd [low, high], as far as known."""
    mean, sd = arm.get("mean", {}).get(metric), arm.get("sd", {}).get(metric)
    interval = arm.get("interval", {}).get(metric)
    if mean is None:
        return "–"
    text = f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"
    return text if not interval else f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _of_full(arms: Mapping[str, Any]) -> str:
    """The share of the full data's accuracy that the distilled set reaches."""
    means = [arms.get(name, {}).get("mean", {}).get("accuracy") for name in ("distilled", "full data")]
    if None in means or not means[1]:
        return ""
    return f"That is {100 * means[0] / means[1]:.0f} % of the accuracy that the full data give."


def _limits(distilled: Distilled, evaluation: Mapping[str, Any]) -> str:
    """What the reader must not do with it."""
    limits = [
        "Not for diagnosis, not a medical device: no clinical use was tested.",
        "The images are no radiographs; what they show is a training signal, not anatomy.",
        f"They fit the network they were distilled on ({distilled.architecture.name}); others may differ.",
        "The numbers hold for films like those of the source; other scanners, hospitals and patients were "
        "not measured, unless the table says so.",
    ]
    if "full data" not in evaluation.get("arms", {}):
        limits.append("There is no comparison with training on the full data.")
    return "\n".join(f"- {limit}" for limit in limits)


def _terms(overview: Mapping[str, Any]) -> str:
    """Citation and licence of the source, as given."""
    lines = [f"- {key}: {inline(overview[key])}" for key in ("citation", "licence") if overview.get(key)]
    return "\n".join(lines) or "The source gave neither citation nor licence; ask its owner before using the set."
