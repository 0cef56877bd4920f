"""Of which releases a merged set is made, in the words of the card."""

from collections.abc import Mapping
from typing import Any

from medistill.release.markdown import inline, printed, table_of
from medistill.release.merge import PARTS

COLUMNS = {
    "name": "source",
    "images": "images",
    "classes": "classes",
    "method": "method",
    "start": "start",
    "learning_rate": "learning rate",
    "verdict": "audit",
    "licence": "licence",
}


def merged_words(provenance: Mapping[str, Any]) -> list[str]:
    """A section of the card of a merged set; none for any other."""
    parts = provenance.get(PARTS)
    if not parts:
        return []
    rows = [[printed(part.get(key)) for key in COLUMNS] for part in parts]
    known = [_known(part) for part in parts]
    return [
        "\n\n".join(
            [
                "## Of which releases it is made",
                "The images of these releases stand side by side in this order; nothing was distilled anew, and no "
                "film was read. For images of a release that lacks a class its probability is 0. The learning rate is "
                "the geometric mean of theirs, weighted by images. What each release reached alone, and its whole "
                "audit, are in `evaluation.json` and `audit.json` under its name; the merged set was neither measured "
                "nor attacked as a whole.",
                table_of(list(COLUMNS.values()), rows),
                "\n".join(known),
            ]
        )
    ]


def _known(part: Mapping[str, Any]) -> str:
    """What tells a release apart, and who answered for it."""
    words = [f"release `{inline(part.get('digest', 'unknown'))}`"]
    signed = part.get("signed_by")
    words.append(f"signed by the key {inline(signed)}" if signed else "signed by nobody")
    for key, told in (("override", "released against the audit by"), ("accepted", "accepted by")):
        if word := part.get(key):
            words.append(f"{told} {inline(word['name'])}: {inline(word['reason'])}")
    return f"- {inline(part.get('name', 'a release'))}: {'; '.join(words)}"
