"""Privacy promises of merged releases: bounds are those that hold for Gaussian mechanisms, exactly computed."""

import copy
import math

import pytest
from release.ledgers import ledger
from scipy.stats import norm

from medistill.errors import ReleaseError, UserError
from medistill.experts.accountant import spent
from medistill.experts.ledger import Entry
from medistill.release.composition import compose
from medistill.release.decision import Signed

APART = Signed("A. Example", "different cities, different years")


def exact_delta(epsilon: float, mu: float) -> float:
    """Delta of the Gaussian mechanism at a signal of mu standard deviations (Balle and Wang 2018, theorem 8)."""
    return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


def test_disjoint_patients_compose_in_parallel() -> None:
    """The whole's promise holds for a patient of any site, and is that of the weakest site."""
    parts = {"north": ledger("1", 4.0, 1e-4), "south": ledger("2", 2.0, 1e-5)}
    found = compose(parts, APART)
    assert found is not None and found["composition"] == "parallel" and found["unit"] == "patient"
    assert (found["epsilon"], found["delta"]) == (parts["south"]["spent"]["epsilon"], 1e-4)
    assert all(exact_delta(found["epsilon"], 2**0.5 / noise) <= found["delta"] for noise in (4.0, 2.0))
    assert found["disjoint"] == {"name": APART.name, "reason": APART.reason}
    assert "provided that no patient is in two" in found["explanation"] and "A. Example" in found["explanation"]
    assert found["parts"] == parts


def test_without_that_word_budgets_add_up() -> None:
    """It holds for a patient who is in both, where the squared signals of all mechanisms add up."""
    parts = {"north": ledger("1", 4.0), "south": ledger("2", 2.0, 1e-5)}
    found = compose(parts, None)
    assert found is not None and found["composition"] == "sequence" and found["disjoint"] is None
    assert found["epsilon"] == pytest.approx(sum(part["spent"]["epsilon"] for part in parts.values()))
    assert found["delta"] == pytest.approx(1.1e-4)
    assert exact_delta(found["epsilon"], (2 / 4.0**2 + 2 / 2.0**2) ** 0.5) <= found["delta"]
    assert "added up" in found["explanation"]


def test_two_sets_of_one_account_spend_it_once_but_share_their_patients() -> None:
    """Both are made of the same noisy steps; the later one may have charged more."""
    early, late = ledger("1", 4.0), ledger("1", 4.0)
    late["entries"].append(vars(Entry("expert 2", 0, 1, 4.0, 1.0)))
    late["spent"]["epsilon"] = spent([Entry(**entry).mechanism for entry in late["entries"]], 1e-4).prv
    for order in ({"a": early, "b": late}, {"b": late, "a": early}):
        found = compose(order, None)
        assert found is not None and found["epsilon"] == late["spent"]["epsilon"] and found["delta"] == 1e-4
        with pytest.raises(UserError, match=r"--disjoint: . and . were drawn on one privacy account"):
            compose(order, APART)


def test_one_part_without_a_promise_leaves_none() -> None:
    found = compose({"north": ledger("1", 4.0), "south": None}, APART)
    assert found is not None and found["composition"] == "none"
    assert (found["epsilon"], found["delta"], found["unit"]) == (None, None, None)
    assert found["explanation"].startswith("no guarantee for the whole: south makes none")
    assert compose({"north": None, "south": None}, APART) is None


def test_units_are_not_mixed() -> None:
    found = compose({"north": ledger("1", 4.0), "south": ledger("2", 4.0, unit="image")}, APART)
    assert found is not None and found["composition"] == "none" and "units differ" in found["explanation"]


def test_a_merged_ledger_composes_again() -> None:
    """The word that was given for the first merging holds for it alone."""
    first, second, third = ledger("1", 4.0), ledger("2", 2.0), ledger("3", 8.0)
    pair = compose({"north": first, "south": second}, APART)
    epsilons = [part["spent"]["epsilon"] for part in (first, second, third)]
    apart, added = (compose({"pair": pair, "west": third}, word) for word in (APART, None))
    assert apart is not None and apart["epsilon"] == max(epsilons)
    assert added is not None and added["epsilon"] == pytest.approx(max(epsilons[:2]) + epsilons[2])
    with pytest.raises(UserError, match="one privacy account"):
        compose({"pair": pair, "again": second}, APART)
    none = compose({"north": first, "south": None}, None)
    whole = compose({"both": none, "west": third}, APART)
    assert whole is not None and whole["composition"] == "none" and "both makes none" in whole["explanation"]


def test_a_ledger_that_says_less_than_it_spends_is_refused() -> None:
    honest = ledger("1", 4.0)
    lower = copy.deepcopy(honest)
    lower["spent"]["epsilon"] /= 2
    with pytest.raises(ReleaseError, match=r"south: its privacy ledger records epsilon .*, but its entries spend"):
        compose({"north": honest, "south": lower | {"id": "2"}}, None)
    nan = copy.deepcopy(honest)
    nan["spent"]["epsilon"] = math.nan
    with pytest.raises(ReleaseError, match="records epsilon nan"):
        compose({"north": nan}, None)
    pair = compose({"a": honest, "b": ledger("2", 2.0)}, APART)
    assert pair is not None
    with pytest.raises(ReleaseError, match="pair: its privacy ledger says epsilon"):
        compose({"pair": pair | {"epsilon": 0.01}, "west": honest}, None)
    with pytest.raises(ReleaseError, match=r"pair: its privacy ledger is damaged \(ValueError\)"):
        compose({"pair": pair | {"parts": {"a": honest, "b": None}}}, None)


def test_a_ledger_merged_too_often_is_refused() -> None:
    endless = ledger("1", 4.0)
    for _ in range(16):
        endless = {"composition": "none", "disjoint": None, "parts": {"a": endless, "b": None}}
    with pytest.raises(ReleaseError, match="its privacy ledger is damaged") as told:
        compose({"north": endless}, None)
    assert len(str(told.value)) < 250


@pytest.mark.parametrize("key", ["id", "terms", "entries", "spent"])
def test_a_damaged_ledger_is_refused(key: str) -> None:
    damaged = {name: value for name, value in ledger("1", 4.0).items() if name != key}
    with pytest.raises(ReleaseError, match=r"north: its privacy ledger is damaged \(KeyError\)"):
        compose({"north": damaged}, None)


def test_no_noise_is_no_promise() -> None:
    """An infinite epsilon protects nobody, whatever the file calls it."""
    bare = ledger("1", 4.0)
    bare["entries"][0]["noise_multiplier"], bare["spent"]["epsilon"] = 0.0, math.inf
    found = compose({"north": bare, "south": ledger("2", 4.0)}, APART)
    assert found is not None and found["composition"] == "none" and "north makes none" in found["explanation"]
