"""The folder that leaves the house: written whole or not at all, the same bytes every time."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.files import sha256, write_json, write_text
from medistill.release.card import card
from medistill.release.croissant import FILE as CROISSANT
from medistill.release.croissant import croissant
from medistill.release.decision import decide
from medistill.release.guarded import WITHHELD as WITHHELD_FIGURES
from medistill.release.guarded import verdicts_only
from medistill.release.manifest import AUDIT, CARD, CONFIG, EVALUATION, IMAGES, METADATA, SIGNATURE, SUMS
from medistill.release.metadata import metadata
from medistill.release.redact import redact
from medistill.release.signature import write_signature
from medistill.release.verify import verify
from medistill.release.views import described, write_views
from medistill.versions import environment

PREVIEW = "preview.png"
LEDGER = "privacy_ledger.json"
ENVIRONMENT = "environment.json"


def refuse_whitened(distilled: Distilled) -> None:
    """Raise a UserError for a set made on whitened data: the matrix is a statistic of the training films."""
    if distilled.zca is not None:
        raise UserError(
            "data.zca: the set was distilled from whitened data and is of no use without the whitening, which tells "
            "about the training data, so nothing is released; set data.zca to false and distil again"
        )


def write_release(
    folder: Path,
    *,
    distilled: Distilled,
    config_yaml: str,
    evaluation: dict[str, Any],
    audit: dict[str, Any],
    overview: dict[str, Any],
    ledger: dict[str, Any] | None = None,
    override: str = "",
    accept: str = "",
    failed_before: Sequence[str] = (),
    view_accuracy: Mapping[str, Any] | None = None,
    published: bool = False,
    key: Ed25519PrivateKey | None = None,
) -> Path:
    """Write a release: images with their views, config, evaluation, audit, card and SHA256SUMS; return the folder.

    The files are written to a folder beside and renamed at the end. An identical release is left as it is. The
    decision to release, with who answers for it, stands in the release's audit.json under "decision". With a privacy
    ledger, which is written too, figures measured on real patients are left out: they are outside epsilon.
    The config and the provenance pass through `redact` here, whatever the caller did. Formats: see `card`; what each
    file is: docs/release.md.

    Args:
        folder: absent, empty, or the same release.
        distilled: the set.
        config_yaml: the run's config.
        evaluation: as `card` takes it.
        audit: what `medistill.audit.gate.audit_json` returns.
        overview: the source, as `card` takes it.
        ledger: of a set with a guarantee.
        override: "name: reason" of who releases it against the audit.
        accept: "name: reason" of who accepts what is open.
        failed_before: checks that failed in other audits of this set.
        view_accuracy: what networks reach on the views: {"networks": n, "metric": name, "master": {"mean", "sd"},
            VIEW: {"mean", "sd", "difference", "difference_sd", "interval": [low, high] or None}} with the views'
            names of `medistill.release.views.KINDS`, or {"withheld": why}; None: not measured.
        published: everything told here left the houses before, in releases that are merged: nothing is left out.
        key: signs the release; an identical one that nobody signed yet is signed where it stands.

    Raises:
        UserError: the audit does not allow it (see `medistill.release.decision.decide`), the set was made on
            whitened data, or the folder holds something else or another key's signature already.
    """
    refuse_whitened(distilled)
    start = distilled.provenance.get("start", "unknown")
    decision = decide(audit, start, override=override, accept=accept, failed_before=failed_before)
    accuracy = view_accuracy or {}
    if ledger is not None and not published:
        audit, evaluation, overview = verdicts_only(audit), WITHHELD_FIGURES, _without_counts(overview)
        accuracy = WITHHELD_FIGURES
    audit = audit | {"decision": decision}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write_text(temporary / CONFIG, _config(config_yaml))
        write_json(temporary / EVALUATION, evaluation)
        write_json(temporary / AUDIT, audit)
        if ledger is not None:
            write_json(temporary / LEDGER, ledger)
        distilled = replace(distilled, provenance=redact(distilled.provenance))
        _write_set(temporary, distilled, evaluation, audit, overview, accuracy)
        write_sums(temporary)
        if folder.is_dir() and any(folder.iterdir()):
            _require_same(folder, temporary)
            if key is not None:
                write_signature(folder, key)
        else:
            if key is not None:
                write_signature(temporary, key)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write_set(
    folder: Path,
    distilled: Distilled,
    evaluation: dict[str, Any],
    audit: dict[str, Any],
    overview: dict[str, Any],
    accuracy: Mapping[str, Any],
) -> None:
    """Write the master, its views, and what describes them."""
    distilled.save(folder / IMAGES)
    views = described(folder / IMAGES, write_views(folder, distilled, sha256(folder / IMAGES)), accuracy)
    write_json(folder / METADATA, metadata(distilled, audit, overview, views, accuracy))
    write_json(folder / ENVIRONMENT, environment())
    write_json(folder / CROISSANT, croissant(folder, distilled, overview))
    write_text(folder / CARD, card(distilled, evaluation, audit, overview, views, accuracy))
    _preview(folder / PREVIEW, distilled)


def _without_counts(overview: Mapping[str, Any]) -> dict[str, Any]:
    """An overview without the numbers of films and patients, which are functions of the patients."""
    return {key: value for key, value in overview.items() if key not in ("counts", "patients")}


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over every file of a folder but itself and its signature, sorted, as `sha256sum -c` reads it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names if name not in (SUMS, SIGNATURE)]
    write_text(folder / SUMS, "".join(lines))


def _config(text: str) -> str:
    """A config's YAML redacted; comments are lost, for they may hold a path as well."""
    config = yaml.safe_load(text)
    if not isinstance(config, dict):
        raise UserError(f"{CONFIG}: a {type(config).__name__} where a mapping belongs; pass the run's config")
    return yaml.safe_dump(redact(config), sort_keys=True, allow_unicode=True)


def _preview(path: Path, distilled: Distilled) -> None:
    """Draw the images by class."""
    from medistill.report.plots import distilled_grid

    distilled_grid(distilled.pictures().clamp(0, 1), distilled.targets, distilled.classes, path)


def _require_same(folder: Path, written: Path) -> None:
    """Raise a UserError unless an existing folder is an intact release of the same bytes."""
    remedy = "name another folder, or move the old one away"
    if not (folder / SUMS).is_file():
        raise UserError(f"{folder}: exists and holds no release; {remedy}")
    if (folder / SUMS).read_bytes() != (written / SUMS).read_bytes():
        raise UserError(f"{folder}: holds a different release; {remedy}")
    verify(folder)
