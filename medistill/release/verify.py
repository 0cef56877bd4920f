"""Verify a released folder: its files, whose signature it bears, and that its parts say the same.

Nothing is believed: first the files by name, then the signature over SHA256SUMS, then each file's bytes as they are
read, and only bytes that passed are parsed. Nothing is unpickled, followed, or unpacked without a bound.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.experts.ledger import FILE as LEDGER
from medistill.release.carded import card_text, require_card
from medistill.release.compare import require_views
from medistill.release.consistent import require_agreement, require_honest_audit, require_sound_evaluation
from medistill.release.described import CROISSANT, require_described
from medistill.release.keys import read_public_key
from medistill.release.manifest import (
    AGAIN,
    AUDIT,
    CARD,
    CONFIG,
    EVALUATION,
    IMAGES,
    METADATA,
    NEEDED,
    read_manifest,
    require_complete,
)
from medistill.release.master import parse_master
from medistill.release.parse import parse_object, parse_yaml
from medistill.release.promised import require_promise
from medistill.release.signature import check_signature
from medistill.release.strict_png import require_drawn

PREVIEW = "preview.png"
KNOWN = (*NEEDED, CROISSANT, "environment.json", LEDGER)
BESIDE = (".md", ".txt")
"""Kinds of files that anybody may lay beside those, for no program learns from them."""


@dataclass(frozen=True, eq=False)
class Verified:
    """What a verified release holds, parsed from the very bytes that were verified.

    Attributes:
        folder: the release.
        files: how many stand in its SHA256SUMS.
        digest: SHA-256 of its SHA256SUMS.
        images_sha256: of its distilled.safetensors.
        fingerprint: of the key that signed it; None: nobody did.
        trusted: whether that is the key the caller gave.
        distilled: the set.
        evaluation: evaluation.json.
        audit: audit.json.
        config: config.yaml.
    """

    folder: Path
    files: int
    digest: str
    images_sha256: str
    fingerprint: str | None
    trusted: bool
    distilled: Distilled
    evaluation: dict[str, Any]
    audit: dict[str, Any]
    config: dict[str, Any]


def verify(folder: Path, pub: str | Path | None = None) -> Verified:
    """Verify a folder that `write_release` wrote.

    The words of card, descriptions and slide headers are held against those that this version writes, unless `pub`
    signed them: then they are the signatory's, and a release of another version's words verifies as well.

    Args:
        folder: the release.
        pub: file of the public key whose signature it must bear; None: any or none will do.

    Raises:
        UserError: there is no such folder, or `pub` is no public key.
        ReleaseError: a file was changed, is missing, was added or holds what none can; the signature is missing, of
            another key or another release; a view does not show the master; a verdict does not follow from its checks.
            The text names the file.
    """
    key = read_public_key(Path(pub)) if pub else None
    manifest = read_manifest(folder)
    signature = check_signature(manifest, key)
    require_complete(manifest)
    distilled = parse_master(manifest.read(IMAGES))
    compared = require_views(manifest, distilled, wording=key is None)
    texts = {name: manifest.read(name) for name in manifest.listed if name not in compared and name != IMAGES}
    read = {name: parse_object(name, data) for name, data in texts.items() if name.endswith(".json")}
    config = parse_yaml(CONFIG, texts[CONFIG])
    for name, data in texts.items():
        _require_plain(name, data)
    evaluation, audit = read[EVALUATION], read[AUDIT]
    require_sound_evaluation(evaluation, distilled.classes)
    require_honest_audit(audit, distilled.provenance.get("start", "unknown"))
    text = card_text(texts[CARD])
    require_agreement(distilled, audit, config, text)
    require_promise(distilled.provenance, audit, read.get(LEDGER))
    if key is None:
        source = require_described(manifest, distilled, audit, read)
        require_card(text, distilled, evaluation, audit, source, read[METADATA])
    return Verified(
        folder=folder,
        files=len(manifest.listed),
        digest=manifest.digest,
        images_sha256=manifest.listed[IMAGES],
        fingerprint=signature.fingerprint if signature else None,
        trusted=key is not None,
        distilled=distilled,
        evaluation=evaluation,
        audit=audit,
        config=config,
    )


def _require_plain(name: str, data: bytes) -> None:
    """Raise a ReleaseError for data that no part of a release is, from which a program could learn something else."""
    if name == PREVIEW:
        require_drawn(name, data)
    elif name not in KNOWN and not name.lower().endswith(BESIDE):
        raise ReleaseError(
            f"{name}: no part of a release, which holds nothing besides but {' and '.join(BESIDE)}; {AGAIN}"
        )
