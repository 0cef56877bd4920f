"""One of the releases that are merged: verified, with what its own files tell of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError, UserError
from medistill.foreign import shown
from medistill.release.composition import DEEPEST
from medistill.release.keys import fingerprint, read_public_key
from medistill.release.manifest import AGAIN, IMAGES, METADATA, SIGNATURE, read_manifest
from medistill.release.merge import PARTS
from medistill.release.parse import parse_object
from medistill.release.verify import Verified, verify

LEDGER = "privacy_ledger.json"
LONGEST = 80
"""Characters of a source's name that are shown."""


@dataclass(frozen=True, eq=False)
class Part:
    """A release among several.

    Attributes:
        name: of its source, unique among the releases merged.
        verified: what it holds.
        images: the SHA-256 of its master file.
        source: {"name", "citation", "licence"} of its source, None where it tells none.
        ledger: its privacy ledger; None: it makes no formal promise.
    """

    name: str
    verified: Verified
    images: str
    source: dict[str, Any]
    ledger: dict[str, Any] | None

    @property
    def distilled(self) -> Distilled:
        """Its set."""
        return self.verified.distilled

    def record(self) -> dict[str, Any]:
        """What the provenance of a merged set keeps of it."""
        made, audit = self.distilled.provenance, self.verified.audit
        decision, net = audit["decision"], self.distilled.architecture
        answered = {key: decision[key] for key in ("override", "accepted")}
        return {
            "name": self.name,
            "digest": self.verified.digest,
            "images_sha256": self.images,
            "signed_by": self.verified.fingerprint,
            "method": made.get("method"),
            "start": made.get("start"),
            "images": len(self.distilled.images),
            "classes": list(self.distilled.classes),
            "learning_rate": self.distilled.lr,
            "network": f"{net.name}, width {net.width}, depth {net.depth}",
            "verdict": audit["verdict"],
            **answered,
            "citation": self.source.get("citation"),
            "licence": self.source.get("licence"),
            **{key: made[key] for key in ("guarantee", "ledger") if key in made},
            **({PARTS: nested} if (nested := made.get(PARTS)) else {}),
        }


def read_parts(folders: Sequence[Path], pubs: Sequence[Path] = ()) -> list[Part]:
    """Verify the releases that are to be merged.

    Args:
        folders: the releases.
        pubs: files of public keys, of which each release must bear one's signature; empty: none is asked for.

    Raises:
        UserError: a folder or key is none, or a release is given twice, on its own or within a merged one.
        ReleaseError: a release is not what it claims to be, or is signed by none of the keys.
    """
    keys = [fingerprint(read_public_key(pub)) for pub in pubs]
    found = [_read(folder, keys) for folder in folders]
    parts = [_named(part, found) for part in found]
    _require_once(parts)
    return parts


def _read(folder: Path, keys: Sequence[str]) -> Part:
    """A release, named as its source is."""
    try:
        verified = verify(folder)
        manifest = read_manifest(folder)
        if manifest.digest != verified.digest:
            raise ReleaseError(f"SHA256SUMS: changed while it was read; {AGAIN}")
        if keys and verified.fingerprint not in keys:
            raise ReleaseError(_unsigned(verified.fingerprint, keys))
        told = parse_object(METADATA, manifest.read(METADATA)) if METADATA in manifest.listed else {}
        ledger = parse_object(LEDGER, manifest.read(LEDGER)) if LEDGER in manifest.listed else None
    except ReleaseError as error:
        raise ReleaseError(f"{folder.name}/{error}") from error
    source = told.get("source")
    source = source if isinstance(source, dict) else {}
    name = shown(source.get("name") or folder.name, LONGEST)
    if not _well_formed(verified.distilled.provenance.get(PARTS, [])):
        raise ReleaseError(f"{folder.name}/{IMAGES}: says that it is merged, but not of which releases; {AGAIN}")
    return Part(name, verified, manifest.listed[IMAGES], source, ledger)


def _well_formed(records: object, levels: int = DEEPEST) -> bool:
    """Whether these are records of releases, as far as they are relied upon, merged at most so many times."""
    return (
        isinstance(records, list)
        and (levels > 0 or not records)
        and all(
            isinstance(one, dict)
            and all(isinstance(one.get(key), str) for key in ("name", "digest", "images_sha256"))
            and _well_formed(one.get(PARTS, []), levels - 1)
            for one in records
        )
    )


def _unsigned(found: str | None, keys: Sequence[str]) -> str:
    """Why a release is refused that none of the keys signed."""
    if found is None:
        return f"{SIGNATURE}: missing, so nobody signed this release; ask its source for a signed one"
    return (
        f"{SIGNATURE}: signed by another key ({found}) than those given by --pub ({'; '.join(keys)}); ask the source "
        "which key is theirs"
    )


def _named(part: Part, all_parts: Sequence[Part]) -> Part:
    """A release whose name no other has: where two sources are called the same, the digest tells them apart."""
    if sum(other.name == part.name for other in all_parts) == 1:
        return part
    return replace(part, name=f"{part.name} ({part.verified.digest[:8]})")


def _require_once(parts: Sequence[Part]) -> None:
    """Raise a UserError where one release or one set of images is there twice: it would count double."""
    seen: dict[str, str] = {}
    for part in parts:
        here = {digest for record in _within(part.record()) for digest in (record["digest"], record["images_sha256"])}
        for digest in here:
            if digest in seen:
                raise UserError(
                    f"{part.verified.folder.name}: holds the same images as {seen[digest]}; give each release once"
                )
        seen |= dict.fromkeys(here, part.verified.folder.name)


def _within(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A release's record and those of all that were merged into it."""
    yield record
    for one in record.get(PARTS, ()):
        yield from _within(one)
