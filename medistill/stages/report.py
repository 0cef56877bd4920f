"""REPORT: the page that people look at, from what the stages before have written."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import medistill
from medistill.audit.page import SIGN
from medistill.audit.table import TABLE
from medistill.data.imageset import ImageSet
from medistill.distill import initial
from medistill.distill.distilled import Distilled
from medistill.evaluate.small_cells import withheld
from medistill.files import read_json, write_text
from medistill.release.redact import redact
from medistill.report.forest import forest_figure
from medistill.report.html import Content, render
from medistill.report.html.pictures import png
from medistill.stages.audit import PRIVATE, audited
from medistill.stages.distill import FILE as DISTILLED
from medistill.stages.distill import WEIGHTS, distilled
from medistill.stages.evaluate import evaluated
from medistill.stages.experts import experts_key
from medistill.stages.load import Splits, load
from medistill.stages.session import Session, Work
from medistill.versions import code, environment

SPLITS = {"train": "training", "val": "validation", "test": "test"}

FILE, FOREST = "report.html", "forest.png"

SHOWN = 20
"""Most images of a class in the gallery."""


def write_report(session: Session) -> Path:
    """`medistill report`: one HTML file of evaluation and audit, which must have been made; returns its path."""
    splits = load(session)
    made, final = distilled(session, splits)
    measured, evaluation = evaluated(session, splits)
    checked, audit = audited(session, splits)
    config = _config(session)
    work = session.work(
        "report",
        {
            "distilled": made.key,
            "evaluate": measured.key,
            "audit": checked.key,
            "config": config,
            "medistill": medistill.__version__,
        },
    )
    path = work.folder / FILE
    if work.done:
        work.file(FILE)
        session.say(f"report: done already -> {path}")
        return path
    tags = {"distilled": made.key, "evaluate": measured.key, "audit": checked.key}
    with session.stage(work, {"report": session.config.data.name}, tags) as run:
        figures = _figures(work, made, measured, evaluation)
        content = Content(
            name=session.config.data.name,
            unit=_unit(session),
            evaluation=evaluation,
            audit=audit,
            history=read_json(made.file("history.json")),
            record=_record(session, splits, made, final, tags),
            questions={row.number: row.question for row in TABLE},
            answers=SIGN,
            shows_patients=final.provenance["start"] not in initial.PUBLIC,
            gallery=_gallery(final),
            figures={name: file.read_bytes() for name, file in figures.items()},
            check_figures=_check_figures(checked),
            commands=_commands(session),
            config=config,
            private=session.config.experts.private.on,
            citation=session.config.data.citation,
            licence=session.config.data.licence,
            few=few(splits.test),
        )
        write_text(path, render(content))
        if run:
            run.text(FILE, path.read_text())
    work.finish(tags, [FILE, *([FOREST] if "forest" in figures else [])])
    session.say(f"report: -> {path}")
    return path


def few(test: ImageSet) -> tuple[str, ...]:
    """The classes of few test patients, with those whose count would give theirs away."""
    everyone = test.groups.unique()
    present = [[torch.isin(everyone, test.groups[test.labels == k]).numpy()] for k in range(len(test.classes))]
    return tuple(test.classes[row] for row in sorted(withheld(np.array(present))))


def _unit(session: Session) -> str:
    """What one image of the source is called."""
    return "films" if session.config.data.adapter == "films" else "images"


def _config(session: Session) -> str:
    """The settings as YAML, without paths, nor who answers for a release."""
    config = {key: value for key, value in session.config.to_dict().items() if key != "release"}
    return yaml.safe_dump(redact(config), sort_keys=False, allow_unicode=True)


def _figures(work: Work, made: Work, measured: Work, evaluation: Mapping[str, Any]) -> dict[str, Path]:
    """The pictures of the stages before, and the forest plot, drawn here."""
    files = {name: measured.file(f"{name}.png") for name in ("roc", "calibration", "decision_curve")}
    files["curves"] = made.file("curves.png")
    if (made.folder / WEIGHTS).exists():
        files["weights"] = made.file(WEIGHTS)
    if evaluation["subgroups"]:
        forest_figure(evaluation["subgroups"], work.folder / FOREST)
        files["forest"] = work.folder / FOREST
    return files


def _gallery(final: Distilled) -> dict[str, tuple[bytes, ...]]:
    """The first images of each class; none that show patients."""
    if final.provenance["start"] not in initial.PUBLIC:
        return {}
    pictures = final.pictures()
    return {
        name: tuple(png(picture) for picture in pictures[final.targets == k][:SHOWN])
        for k, name in enumerate(final.classes)
    }


def _check_figures(checked: Work) -> dict[int, tuple[bytes, ...]]:
    """The pictures of the checks that show no patient."""
    found = {}
    for row in TABLE:
        kept = checked.folder / PRIVATE / f"check_{row.number:02d}.json"
        if kept.exists():
            figures = [figure["name"] for figure in read_json(kept)["figures"] if not figure["shows_patients"]]
            found[row.number] = tuple(checked.file(name).read_bytes() for name in figures)
    return found


def _record(
    session: Session, splits: Splits, made: Work, final: Distilled, keys: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What neither evaluation.json nor audit.json holds."""
    config, ipc = session.config, session.config.distill.ipc
    versions = environment()
    packages = versions.pop("packages")
    unit = _unit(session)
    commit = code().get("mlflow.source.git.commit")
    return {
        "gallery": {"shown": min(ipc, SHOWN), "per_class": ipc},
        "method": redact(final.provenance)
        | {"images_per_class": ipc, "step_size": final.lr, "augmentation": ", ".join(final.augment) or "none"},
        "network": asdict(final.architecture),
        "seeds": {"base_seed": config.seed, "distillation_seed": config.distill.seed},
        "digests": {
            **{f"{words} {unit}": splits.digests[name] for name, words in SPLITS.items()},
            DISTILLED: read_json(made.folder / "done.json")["files"][DISTILLED],
            "key of experts": experts_key(session, splits),
            **{f"key of {name}": key for name, key in keys.items()},
        },
        "versions": versions | packages | ({"commit": commit} if commit else {}),
    }


def _commands(session: Session) -> tuple[str, ...]:
    """What makes the run and this page again."""
    option = f"--config config.yaml --run {shlex.quote(Path(session.config.run).name)}"
    return (f"medistill run {option}", f"medistill report {option}")
