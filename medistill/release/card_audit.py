"""The audit in the words of the card: what was attacked, with which result, at which power."""

from collections.abc import Mapping, Sequence
from typing import Any

from medistill.release.markdown import inline, printed


def audit_words(audit: Mapping[str, Any]) -> str:
    """The verdicts in words: what was attacked, with which result, at which power."""
    checks: Sequence[Mapping[str, Any]] = audit.get("checks", [])
    if not checks:
        return "Nothing was attacked, so nothing is known about what these images tell of a patient."
    opening = (
        f"Overall verdict: **{inline(audit.get('verdict', 'unknown'))}**. This says what was tried "
        "against these images and what came of it; an attack not listed was not tried and may succeed."
    )
    formal = any(
        check.get("verdict") == "pass" and "dp" in str(check.get("name", "")).lower().split() and "site" not in check
        for check in checks
    )
    opening += _decision(audit.get("decision") or {})
    closing = [] if formal else ["No formal guarantee (differential privacy) is given."]
    return "\n\n".join([opening, "\n".join(_check(check) for check in checks), *closing])


def _decision(decision: Mapping[str, Any]) -> str:
    """Who answers for a release that the audit did not clear."""
    text = ""
    if not_run := decision.get("not_run"):
        text += f"\n\nNot run: {'; '.join(inline(name) for name in not_run)}."
    if signed := decision.get("override"):
        text += f"\n\n**Released against the audit** by {inline(signed['name'])}: {inline(signed['reason'])}"
    if signed := decision.get("accepted"):
        text += f"\n\nWhat is inconclusive or was not run was accepted by {inline(signed['name'])}: "
        text += inline(signed["reason"])
    return text


def _check(check: Mapping[str, Any]) -> str:
    """One check as an item of a list."""
    power = check.get("power")
    known = (
        "not measured"
        if power is None
        else f"{100 * power:.0f} %"
        if isinstance(power, float | int)
        else printed(power)
    )
    lines = [f"- **{inline(check.get('name', 'check'))}: {inline(check.get('verdict', 'unknown'))}.** "]
    lines[0] += inline(check.get("explanation", ""))
    statistic = check.get("statistic") or {}
    single = {key: value for key, value in sorted(statistic.items()) if not isinstance(value, Mapping | list | tuple)}
    lines += [f"  - measured: {printed(single)}"] if single else []
    if check.get("interval"):
        low, high = check["interval"]
        lines.append(f"  - 95 % interval: {printed(low)} to {printed(high)}")
    lines.append(f"  - power (share of planted leaks that the attack found): {known}")
    return "\n".join(lines)
