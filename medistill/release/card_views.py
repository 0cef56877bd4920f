"""The views in the words of the card: what each holds, and what it loses."""

from collections.abc import Mapping, Sequence
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.release.guarded import sentence
from medistill.release.markdown import table_of
from medistill.release.views import KINDS, MASTER

HOLDS = {
    MASTER: "float32, the master",
    "png": "8 bit, clamped to [0, 1], class folders",
    "npz": "8 bit, clamped to [0, 1], arrays named as MedMNIST does",
    "dicom": "16 bit, the whole range, Secondary Capture",
}


def views_words(distilled: Distilled, views: Sequence[Mapping[str, Any]], accuracy: Mapping[str, Any]) -> str:
    """A table of the views and what was measured of them.

    Args:
        distilled: the set.
        views: what `medistill.release.views.described` returns.
        accuracy: what was measured, in the form that `medistill.release.bundle.write_release` takes.
    """
    measured = [view["name"] for view in views if view["accuracy"]]
    header = ["file or folder", "holds", "bytes", "largest pixel error"]
    header += ["balanced accuracy", "difference to the master"] if measured else []
    pictures = distilled.pictures()
    outside = ((pictures < 0) | (pictures > 1)).double().mean().item()
    parts = [
        table_of(header, [_row(view, bool(measured)) for view in views]),
        f"{100 * outside:.2g} % of the master's pixels lie outside [0, 1]: black and white where a view is clamped. "
        "Soft labels and learning rate stand in each view.",
        _measured(accuracy) if measured else sentence(accuracy.get("withheld") or "what a view loses was not measured"),
    ]
    if distilled.images.shape[1] != 1:
        parts.append("The images are in colour, so there is no DICOM view.")
    return "\n\n".join(parts)


def _row(view: Mapping[str, Any], measured: bool) -> list[str]:
    """One line of the table."""
    name, found = view["name"], view["accuracy"]
    cells = [f"`{view['place']}`", HOLDS[name], f"{view['bytes']:,}", f"{view['largest_pixel_error']:.2g}"]
    if not measured:
        return cells
    same = {kind.name: kind.same for kind in KINDS}.get(name)
    if same or not found:
        return [*cells, "the same pixels as PNG" if same else "–", "–"]
    return [*cells, f"{found['mean']:.3f} ± {found['sd']:.3f}", _difference(found)]


def _difference(found: Mapping[str, Any]) -> str:
    """Mean ± standard deviation over the networks, and the interval where there is one."""
    if "difference" not in found:
        return "–"
    text = f"{_signed(found['difference'])} ± {found['difference_sd']:.3f}"
    return f"{text} [{', '.join(_signed(end) for end in found['interval'])}]" if found["interval"] else text


def _signed(number: float) -> str:
    """A difference with its sign, which a zero does not have."""
    return f"{number:+.3f}" if abs(number) >= 0.0005 else "0.000"


def _measured(accuracy: Mapping[str, Any]) -> str:
    """How the losses were measured."""
    return (
        f"Balanced accuracy of {accuracy['networks']} networks trained on each, as `config.yaml` says, on the held-out "
        "films: mean ± standard deviation. The n-th network starts from the same weights on each view, so differences "
        "are taken network by network: mean ± standard deviation [95 % interval over training seeds]. PNG and npz hold "
        "the same pixels and were measured once."
    )
