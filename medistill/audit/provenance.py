"""Check 0, provenance: did patients' films, or numbers taken from them, go into the set directly?

A list, not an attack: what the set started from, which statistics of real films stand in it, whether real films chose
it, and whether a privacy ledger covers what the experts learned. A list finds no leak, so it cannot fail, with one
exception: a record that contradicts itself or the ledger promises what is not so.

It passes when all is on record and no patient was used but through the experts. A start from films, or a statistic of
them, is no leak that was found, but it is the likely one: attacks of finite power that stay silent do not turn
patients' films into public ones. The answer to "is that all right?" is then not this program's, so the verdict is
inconclusive: somebody has to answer for it by name.

Two entries are looked up rather than believed: a start film that is known although the record names another start, and
normalisation constants that are the training films' own mean and standard deviation.
"""

from typing import Any

import torch

from medistill.audit.check import Candidate, Check, Outcome, Private, Verdict
from medistill.distill.initial import PUBLIC

NUMBER, NAME = 0, "provenance"
FIXED = ("last iteration, fixed beforehand",)
"""Ways to choose the result that look at no film."""
PAID = "private_means"
"""Class means with noise, which the ledger has to charge as `CHARGED`."""
CHARGED = "class means"
CLOSE = 0.005
NO_GUARANTEE = "no formal guarantee"
_NOTHING = "none: a list has nothing to plant"


def check(candidate: Candidate, private: Private) -> Outcome:
    """List what the set was made from."""
    record, ledger = candidate.distilled.provenance, candidate.ledger
    start, selected = record.get("start"), record.get("selected")
    statistics = _statistics(candidate, private)
    selection = "not recorded" if selected is None else "fixed beforehand" if selected in FIXED else "on real films"
    origin = _origin(start, ledger)
    direct = [*(["start from films"] if origin == "films" else []), *statistics]
    if selection == "on real films":
        direct.append("selection on real films")
    wrong = _contradictions(start, origin, direct, private, ledger)
    missing = [name for name, value in (("start", start), ("selection", selected)) if value is None]
    covered = ledger is not None and not (direct or wrong or missing)
    label = "differential privacy through the experts' ledger (check 10)" if covered else NO_GUARANTEE
    statistic = {
        "start": "not recorded" if start is None else str(start),
        "start_from": origin,
        "statistics_of_real_films": statistics,
        "selection": selection,
        "ledger": ledger is not None,
        "contradictions": wrong,
        "label": label,
    }
    verdict, explanation = _judge(statistic, direct, missing)
    return Outcome(Check(NUMBER, NAME, verdict, statistic, None, None, _NOTHING, _NOTHING, explanation))


def _origin(start: str | None, ledger: dict[str, Any] | None) -> str:
    """Where a start comes from: noise, public, films, paid for, or not recorded."""
    if start is None:
        return "not recorded"
    if start == PAID:
        return "films" if ledger is None else "paid for"
    return "films" if start not in PUBLIC else "noise" if start == "noise" else "public"


def _statistics(candidate: Candidate, private: Private) -> list[str]:
    """Statistics of real films that stand in the set."""
    distilled, films = candidate.distilled, private.train.images
    found = [] if distilled.zca is None else ["ZCA whitening"]
    if distilled.provenance.get("start") == "class_mean":
        found.append("class means")
    own = torch.cat([films.mean((0, 2, 3)), films.std((0, 2, 3))])
    constants = torch.tensor([*distilled.mean, *distilled.std])
    # a constant of two decimals, as .5 or .25, is a convention that may lie near by chance
    rounded = (constants * 100).frac().abs().minimum(1 - (constants * 100).frac().abs()) < 1e-3
    if bool(((constants - own).abs() < CLOSE).all()) and not rounded.all():
        found.append("normalisation by the films' own mean and deviation")
    return found


def _contradictions(
    start: str | None, origin: str, direct: list[str], private: Private, ledger: dict[str, Any] | None
) -> list[str]:
    """What the record says that cannot be so."""
    wrong = []
    if private.start is not None and start != "real":
        wrong.append("the start films are known, but the record names another start")
    if start == PAID and ledger is None:
        wrong.append("class means that are said to be paid for, without a ledger")
    if origin == "paid for" and ledger is not None:
        charged = [entry.get("what") for entry in ledger.get("entries", [])]
        if CHARGED not in charged:
            wrong.append("class means that the ledger does not charge")
    if direct and ledger is not None:
        wrong.append("a ledger whose guarantee does not cover: " + ", ".join(direct))
    return wrong


def _judge(statistic: dict[str, Any], direct: list[str], missing: list[str]) -> tuple[Verdict, str]:
    """The verdict and its sentence."""
    label = statistic["label"]
    if statistic["contradictions"]:
        return "fail", f"The record is not true: {'; '.join(statistic['contradictions'])}; {label}."
    if direct:
        return (
            "inconclusive",
            f"Patients went into the set directly ({', '.join(direct)}); whether it may leave is a person's decision, "
            f"whatever the attacks find; {label}.",
        )
    if missing:
        return "inconclusive", f"The record does not name the {' and the '.join(missing)}; {label}."
    return (
        "pass",
        f"Started from {statistic['start']} ({statistic['start_from']}), no statistic of real films in the set, "
        f"selection {statistic['selection']}; patients reached it through the experts alone; {label}.",
    )
