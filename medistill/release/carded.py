"""Whether the card says what the other files do: it is written anew of them, and only what they cannot tell is free."""

import re
from collections.abc import Mapping
from typing import Any

from medistill.distill.distilled import Distilled
from medistill.errors import ReleaseError
from medistill.foreign import shown
from medistill.release.card import card
from medistill.release.manifest import AGAIN, AUDIT, CARD, EVALUATION, METADATA
from medistill.release.parse import DAMAGED, parse_yaml

LONGEST_HEAD = 64 << 10
FREE = ("What is in it", "Views of the same images")
"""Sections with counts of the source's films, which stand nowhere else, and with a share that rounding may change."""

# As Hugging Face finds it.
_HEAD = re.compile(r"\s*---[\r\n]+(.*?)[\r\n]+---(?:[\r\n]|$)", re.DOTALL)
_VERDICT = re.compile(r"overall\W*verdict")


def card_text(data: bytes) -> str:
    """The text of README.md; the YAML at its head must be plain."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{CARD}: not a text file; {AGAIN}") from error
    if text.lstrip("\ufeff \r\n").startswith("---"):
        _head(text)
    return text


def require_card(
    text: str,
    distilled: Distilled,
    evaluation: Mapping[str, Any],
    audit: Mapping[str, Any],
    source: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> None:
    """Raise a ReleaseError where the card's head or a section of it is not the one that is written of the files.

    Args:
        text: of README.md.
        distilled: the set.
        evaluation: evaluation.json.
        audit: audit.json.
        source: what `medistill.release.described.require_described` returns.
        metadata: metadata.json, verified.
    """
    views, accuracy = metadata["views"], metadata["views_accuracy"]
    try:
        own = card(distilled, dict(evaluation), dict(audit), dict(source), views, accuracy)
    except DAMAGED as error:
        why = f"{EVALUATION}, {AUDIT} or {METADATA} holds a value of another kind ({type(error).__name__})"
        raise ReleaseError(f"{CARD}: cannot be written of the other files, for {why}; {AGAIN}") from error
    if not text.startswith("---\n") or _head(text) != _head(own):
        raise ReleaseError(f"{CARD}: the YAML at its head, by which loaders find the pictures, is another; {AGAIN}")
    here, there = _sections(text), _sections(own)
    if [title for title, _ in here] != [title for title, _ in there]:
        raise ReleaseError(f"{CARD}: has other sections than the card of this release; {AGAIN}")
    for (title, said), (_, wanted) in zip(here, there, strict=True):
        if title in FREE:
            if _VERDICT.search(said.casefold()):
                raise ReleaseError(f"{CARD}: gives a verdict in {title!r}; {AGAIN}")
        elif said != wanted:
            raise ReleaseError(
                f"{CARD}: {shown(title or 'its beginning', 60)!r} is not what the other files say; {AGAIN}"
            )


def _sections(text: str) -> list[tuple[str, str]]:
    """Title and text of what stands before the first heading of level two, and behind each; the head is left out."""
    head = _HEAD.match(text)
    first, *parts = re.split(r"^## (.*)$", text[head.end() if head else 0 :], flags=re.MULTILINE)
    return [("", first.strip()), *((title, part.strip()) for title, part in zip(parts[::2], parts[1::2], strict=True))]


def _head(text: str) -> dict[str, Any]:
    """The YAML at the head of a card."""
    head = _HEAD.match(text.removeprefix("\ufeff"))
    if head is None or len(head[1]) > LONGEST_HEAD:
        raise ReleaseError(f"{CARD}: the YAML at its head does not end; {AGAIN}")
    return parse_yaml(CARD, head[1])
