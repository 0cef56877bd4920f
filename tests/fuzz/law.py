"""What a refusal must be: one sentence of bounded length that names its file or option and what to do."""

import re

LONGEST = 600


def sentence(text: str, named: str, longest: int = LONGEST) -> None:
    """Raise an AssertionError unless a text is such a sentence; `named` is a pattern that it begins with."""
    assert re.match(named, text), f"names nothing: {text[:300]!r}"
    assert len(text) <= longest, f"has {len(text)} characters: {text[:300]!r}"
    assert text.isprintable(), f"holds unprintable characters: {text!r}"
    assert not re.search(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}", text), f"holds raw bytes: {text!r}"
    assert not re.search(r"Traceback|<class |object at 0x", text), f"speaks of Python: {text!r}"
    remedy = text.rpartition(";")[2]
    assert ";" in text and re.search(r"[a-z]{2,}", remedy), f"says not what to do: {text!r}"
