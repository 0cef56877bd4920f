"""Under which terms merged releases stand: those of all of them, and what one forbids, the whole forbids."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# How sources say that money may not be made: CC BY-NC 4.0, non-commercial, "research purposes only", ...
_NON_COMMERCIAL = re.compile(
    r"\bnc\b|non[\s-]?commercial|research (use|purposes?)( only)?|(only|solely) for research|academic use",
    re.IGNORECASE,
)


def merged_terms(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """{"citation", "licence"} of releases by name, whose sources tell {"citation", "licence"}."""
    licences = {name: _line(source.get("licence")) for name, source in sources.items()}
    return {
        "citation": "; ".join(_each(_line(source.get("citation")) for source in sources.values())),
        "licence": _licence(licences),
    }


def _licence(licences: Mapping[str, str]) -> str:
    """All licences, each once with those whose it is, behind what binds the whole."""
    silent = [name for name, licence in licences.items() if not licence]
    told = list(dict.fromkeys(licence for licence in licences.values() if licence))
    if len(told) == 1 and not silent:
        return told[0]
    by = [f"{licence} ({', '.join(name for name in licences if licences[name] == licence)})" for licence in told]
    by += [f"not stated ({', '.join(silent)}): ask the owner before use"] if silent else []
    bound = [name for name, licence in licences.items() if _NON_COMMERCIAL.search(licence)]
    head = f"non-commercial use only, for {', '.join(bound)}: " if bound else ""
    return f"{head}{'; '.join(by)}"


def _each(texts: Sequence[str] | Any) -> list[str]:
    """Texts, each once, in their order, empty ones left out."""
    return list(dict.fromkeys(text for text in texts if text))


def _line(value: Any) -> str:
    return " ".join(str(value or "").split())
