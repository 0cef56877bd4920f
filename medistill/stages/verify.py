"""VERIFY: what a person needs to know of a release before trusting it."""

from collections.abc import Callable
from pathlib import Path

from medistill.config.verify import Verify
from medistill.foreign import shown
from medistill.release import verify as release


def verify(settings: Verify, say: Callable[[str], None]) -> None:
    """`medistill verify`: check a release and tell what it is; a ReleaseError names what is wrong with it."""
    found = release.verify(Path(settings.folder), settings.pub or None)
    say(f"files: {found.files}, all as in SHA256SUMS")
    say(f"release: {found.digest}")
    say(f"signature: {_signature(found, settings.pub)}")
    for line in _audit(found):
        say(line)
    made = found.distilled.provenance
    say(f"made by: {shown(made.get('method', 'unknown'))}, start: {shown(made.get('start', 'unknown'))}")
    say("verified" if found.trusted else "the signature was not checked against a key; the files are verified")


def _signature(found: release.Verified, pub: str) -> str:
    """Whose signature the release bears, in words."""
    if found.fingerprint is None:
        return "none: nobody signed this release, so nobody vouches that it is the one that was shared"
    if found.trusted:
        return f"by the key in {shown(Path(pub).name)}, fingerprint {found.fingerprint}"
    return (
        f"by a key of fingerprint {found.fingerprint}; whose that is was not checked: "
        "compare it with the published one, and give their NAME.pub by --pub"
    )


def _audit(found: release.Verified) -> list[str]:
    """The verdict, and who answered for what it leaves open."""
    decision = found.audit["decision"]
    lines = [f"audit: {found.audit['verdict']}"]
    for key, told in (("failed", "failed"), ("inconclusive", "inconclusive"), ("not_run", "not run")):
        if decision[key]:
            lines.append(f"  {told}: {'; '.join(shown(name) for name in decision[key])}")
    if word := decision["override"]:
        lines.append(f"  released against the audit by {shown(word['name'])}: {shown(word['reason'], 2000)}")
    if word := decision["accepted"]:
        lines.append(f"  accepted by {shown(word['name'])}: {shown(word['reason'], 2000)}")
    return lines
