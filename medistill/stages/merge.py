"""MERGE: releases of several hospitals become one, from what they released and from nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from medistill.config.merge import Merge
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.files import digest_of
from medistill.foreign import shown
from medistill.release.bundle import write_release
from medistill.release.composition import compose
from medistill.release.decision import Signed
from medistill.release.keys import read_private_key
from medistill.release.load import release_digest
from medistill.release.manifest import IMAGES, SUMS
from medistill.release.merge import PARTS, combine
from medistill.release.merged_audit import merged_audit, start_of, words_of
from medistill.release.merged_config import merged_config
from medistill.release.part import Part, read_parts
from medistill.release.terms import merged_terms

NOT_MEASURED = "the merged set was not measured; what each release reached alone stands under its name"

UNLIKE = 3
"""Learning rates that differ by more than this factor are told."""


def merge(settings: Merge, say: Callable[[str], None]) -> None:
    """`medistill merge`: write the merged release, and say what it is, promises and was not measured for.

    Raises:
        UserError: the releases do not fit together, one is there twice, a key is none, or `out` lies in a release.
        ReleaseError: a release is not what it claims to be.
    """
    key = read_private_key(Path(settings.key)) if settings.key else None
    disjoint = Signed.parse("--disjoint", settings.disjoint)
    parts = read_parts([Path(folder) for folder in settings.folders], [Path(pub) for pub in settings.pub])
    ledger = compose({part.name: part.ledger for part in parts}, disjoint)
    final = _merged(parts, settings, disjoint)
    folder = Path(settings.out or f"merged-{digest_of(final.provenance)[:8]}")
    _require_outside(folder)
    write_release(
        folder,
        distilled=final,
        config_yaml=_config(parts, settings),
        evaluation={"arms": {}, "note": NOT_MEASURED, "parts": {part.name: part.verified.evaluation for part in parts}},
        audit=merged_audit(parts, ledger),
        overview=_overview(parts),
        ledger=ledger,
        published=True,
        key=key,
        **words_of(parts),
    )
    for line in _told(parts, final, ledger):
        say(line)
    say(f"merge: release {release_digest(folder)} -> {folder}")


def _require_outside(folder: Path) -> None:
    """Raise a UserError for a folder within a release, which holds its own files and nothing else."""
    for above in folder.resolve().parents:
        if (above / SUMS).is_file() and (above / IMAGES).is_file():
            raise UserError(
                f"--out {shown(folder)}: lies in the release {shown(above.name)}, which could be verified no more; "
                "name a folder outside it"
            )


def _merged(parts: Sequence[Part], settings: Merge, disjoint: Signed | None) -> Distilled:
    """The set of all, with the record of each in its provenance."""
    made = combine([part.distilled for part in parts], [part.name for part in parts], settings.classes)
    story = {"method": "merge", "start": start_of(parts), PARTS: [part.record() for part in parts]}
    return replace(made, provenance=story | ({"disjoint": vars(disjoint)} if disjoint else {}))


def _config(parts: Sequence[Part], settings: Merge) -> str:
    """The YAML of what all were made with, and of how they were merged; its terms are those of the whole."""
    configs = {part.name: part.verified.config for part in parts}
    config = merged_config(configs, {"classes": settings.classes, "disjoint": settings.disjoint})
    config["data"] = {**config.get("data", {}), **_overview(parts)}
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _overview(parts: Sequence[Part]) -> dict[str, Any]:
    """The sources, as `medistill.release.card.card` takes one."""
    terms = merged_terms({part.name: part.source for part in parts})
    return {"name": ", ".join(part.name for part in parts), **terms}


def _told(parts: Sequence[Part], final: Distilled, ledger: Mapping[str, Any] | None) -> list[str]:
    """What a person needs to know of the merged set."""
    lines = []
    for part in parts:
        one, signed = part.distilled, part.verified.fingerprint
        who = f"signed by {signed}" if signed else "signed by nobody"
        told = f"{len(one.images)} images, alpha {one.lr:.4g}, {part.verified.audit['verdict']}, {who}"
        lines.append(f"merge: {shown(part.name)}: {told}")
    counts = final.targets.bincount(minlength=len(final.classes)).tolist()
    here = ", ".join(f"{shown(name)} {count}" for name, count in zip(final.classes, counts, strict=True))
    lines.append(f"merge: {len(final.images)} images ({here}), alpha {final.lr:.4g}")
    if len({(net.name, net.width, net.depth) for net in (part.distilled.architecture for part in parts)}) > 1:
        net = final.architecture
        lines.append(
            f"note: distilled on different networks; taken is {net.name}, width {net.width}, depth {net.depth}"
        )
    rates = [part.distilled.lr for part in parts]
    if max(rates) > UNLIKE * min(rates):
        lines.append(
            f"note: the learning rates differ {max(rates) / min(rates):.3g}-fold, so no common one fits all; "
            "choose it on films of your own (medistill train --lr), and measure"
        )
    if ledger is not None:
        whole = ledger["composition"] != "none"
        stated = f"epsilon {ledger['epsilon']:.4g}, delta {ledger['delta']:.3g}, " if whole else ""
        lines.append(f"privacy: {stated}{ledger['explanation']}")
    else:
        lines.append("privacy: no release makes a formal promise, so the merged set makes none")
    return [*lines, "note: neither the worth of the merged set nor an attack on the whole of it was measured"]
