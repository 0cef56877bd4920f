"""The privacy ledger of a release: the account of this set, spent by its own noise, and stated the same everywhere."""

from collections.abc import Callable
from typing import Any

import pytest
from release.conftest import toy_parts
from release.ledgers import kept, ledger

from medistill.errors import ReleaseError
from medistill.release.composition import compose
from medistill.release.decision import Signed
from medistill.release.promised import require_promise

Change = Callable[[dict[str, Any]], object]


def parts_of(account: str = "1", noise: float = 4.0) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Provenance, audit and ledger of a release in DP mode."""
    parts = kept(toy_parts(), ledger(account, noise))
    return parts["distilled"].provenance, parts["audit"], parts["ledger"]


def test_an_honest_account_passes_and_so_does_none() -> None:
    require_promise(*parts_of())
    require_promise({"start": "noise"}, toy_parts()["audit"], None)


def test_the_ledger_is_there_when_the_set_promises_and_only_then() -> None:
    made, audit, account = parts_of()
    with pytest.raises(ReleaseError, match=r"^privacy_ledger\.json: missing, though the set says"):
        require_promise(made, audit, None)
    with pytest.raises(ReleaseError, match=r"^privacy_ledger\.json: not the account of this set"):
        require_promise({"start": "noise"}, audit, account)
    with pytest.raises(ReleaseError, match=r"^privacy_ledger\.json: not the account of this set"):
        require_promise(made, audit, account | {"id": "2"})
    with pytest.raises(ReleaseError, match=r"^audit\.json: states a guarantee, but the set makes none"):
        require_promise({"start": "noise"}, audit, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a["spent"].update(epsilon=0.1), r"records epsilon 0\.1, but its entries spend"),
        (lambda a: a["spent"].update(epsilon=1e-6), "records epsilon 1e-06, but its entries spend"),
        (lambda a: a["entries"].clear(), "does not charge all that the set was made of"),
        (lambda a: a["entries"].pop(), "does not charge all"),
        (lambda a: a["entries"][0].update(steps=0), "does not charge all"),
        (lambda a: a["terms"].update(delta=1e-9), "promises something else than the set says"),
        (lambda a: a["terms"].update(epsilon=30.0), "promises something else than the set says"),
        (lambda a: a["spent"].update(delta=1e-9), "promises something else than the set says"),
        (lambda a: a["entries"][0].update(noise_multiplier=40.0), "charges noise that this account does not draw"),
        (lambda a: a["entries"][0].update(rate=0.1), "charges noise that this account does not draw"),
        (lambda a: a.pop("entries"), "damaged, or not the account"),
        (lambda a: a["entries"].append("x"), "damaged, or not the account"),
        (lambda a: a.update(terms=[]), "damaged, or not the account"),
    ],
)
def test_a_ledger_that_says_something_else_is_refused(change: Change, says: str) -> None:
    made, audit, account = parts_of()
    change(account)
    audit["checks"][-1]["statistic"]["epsilon_recorded"] = account["spent"]["epsilon"]
    audit["checks"][-1]["statistic"]["epsilon"] = account["spent"]["epsilon"]
    with pytest.raises(ReleaseError, match=f"privacy_ledger.json: .*{says}"):
        require_promise(made, audit, account)


def test_more_noise_everywhere_is_not_what_the_audit_states() -> None:
    """Who raises the noise of terms and entries alike has a smaller epsilon, of which the audit knows nothing."""
    made, audit, _ = parts_of()
    other = ledger("1", 40.0) | {"terms": parts_of()[2]["terms"]}
    with pytest.raises(ReleaseError, match=r"^audit\.json: states another guarantee"):
        require_promise(made, audit, other)


@pytest.mark.parametrize(("key", "value"), [("epsilon", 0.01), ("delta", 1e-9), ("unit", "image"), ("experts", 1)])
def test_an_audit_that_states_another_guarantee_is_refused(key: str, value: object) -> None:
    made, audit, account = parts_of()
    audit["checks"][-1]["statistic"][key] = value
    with pytest.raises(ReleaseError, match=r"^audit\.json: states another guarantee"):
        require_promise(made, audit, account)
    audit["checks"].pop()
    with pytest.raises(ReleaseError, match=r"^audit\.json: does not state the guarantee"):
        require_promise(made, audit, account)


def merged(word: dict[str, str] | None = None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Provenance, audit and ledger of two releases merged."""
    records, checks, ledgers = [], [], {}
    for name, noise in (("north", 4.0), ("south", 2.0)):
        made, audit, account = parts_of(name, noise)
        records.append({"name": name, **{key: made[key] for key in ("guarantee", "ledger")}})
        checks += [check | {"site": name} for check in audit["checks"]]
        ledgers[name] = account
    whole = compose(ledgers, Signed(**word) if word else None)
    assert whole is not None
    stated = {key: whole[key] for key in ("composition", "epsilon", "delta", "unit")}
    checks.append({"number": 10, "name": "whole", "verdict": "pass", "statistic": stated})
    return {"parts": records} | ({"disjoint": word} if word else {}), {"checks": checks}, whole


def test_a_merged_ledger_is_composed_anew() -> None:
    require_promise(*merged())
    require_promise(*merged({"name": "A", "reason": "other cities"}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda made, audit, whole: whole.update(epsilon=whole["epsilon"] / 2), "says something else than its parts"),
        (lambda made, audit, whole: whole.update(composition="parallel"), "says something else than its parts"),
        (lambda made, audit, whole: made.update(disjoint={"name": "A", "reason": "b"}), "says something else than"),
        (lambda made, audit, whole: whole["parts"].update(south=whole["parts"]["north"]), "not the account of this"),
        (lambda made, audit, whole: whole["parts"].update(south=None), "missing, though the set says"),
        (lambda made, audit, whole: whole["parts"].pop("south"), "of other parts than the set"),
        (lambda made, audit, whole: made["parts"][1].pop("guarantee"), "not the account of this set"),
        (lambda made, audit, whole: made.update(parts=[1]), "damaged, or not the account"),
        (lambda made, audit, whole: audit["checks"].pop(), "states another guarantee"),
        (lambda made, audit, whole: audit["checks"][-1]["statistic"].update(epsilon=0.1), "states another guarantee"),
    ],
)
def test_a_merged_ledger_that_says_something_else_is_refused(change: Callable[..., object], says: str) -> None:
    made, audit, whole = merged()
    change(made, audit, whole)
    with pytest.raises(ReleaseError, match=says):
        require_promise(made, audit, whole)


def test_a_ledger_that_would_take_days_to_compose_does_not() -> None:
    made, audit, account = parts_of()
    account["terms"] |= {"rate": 1e-3, "steps": 10**9}
    account["noise"]["step"] = 1e5
    for entry in account["entries"]:
        entry.update(rate=1e-3, steps=10**9, noise_multiplier=1e5)
    require_promise(made, audit, account)  # records more than RDP finds
    account["spent"]["epsilon"] = 1e-6
    audit["checks"][-1]["statistic"] |= {"epsilon": 1e-6, "epsilon_recorded": 1e-6}
    with pytest.raises(ReleaseError, match="its entries spend"):
        require_promise(made, audit, account)
