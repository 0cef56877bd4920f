"""Check 7, canaries: does the trainer leak no more than its account says?

Canaries are pseudo-patients, each with a clipped gradient of norm C in a direction of its own. Fair coins decide who
takes part in a run of the private trainer with the steps, rate, noise and experts of the ledger; an attacker who sees
every checkpoint guesses the coins. If more guesses are right than the claimed epsilon allows, the claim is false.

The run holds canaries and a few phantom films, no patient: it spends nothing of the patients' budget and leaves their
ledger alone. The guarantee rests on the sum, its noise and the count of steps: these are the trainer's own code and
the ledger's numbers. What follows the noisy sum is post-processing, so network and step size are free, and small.
Class means that were paid for take no part: the bound is for the experts alone. Noise and sampling come from the
operating system, so that the check repeated gives other numbers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.stats import binomtest, norm
from torch import Tensor

from medistill.audit.check import Candidate, Check, Outcome, Private, Verdict, not_applicable
from medistill.audit.one_run import ceiling, guesses_for, lower_bound, right_guesses
from medistill.config import Experts
from medistill.config.experts import Private as PrivateSettings
from medistill.data.phantom import CLASSES, films
from medistill.experts.accountant import Mechanism, spent
from medistill.experts.ledger import Entry, Ledger, Noise, Terms
from medistill.nets import Architecture, flatten
from medistill.seeds import generator

NUMBER, NAME = 7, "canaries"
CANARIES = 2000
REACH = 1.0  # how far above the claim the ceiling shall lie, so that a breach can be told from the claim
ALARM = 1e-4  # of a control and of the estimate: noise is never drawn twice alike, so a false alarm cannot be repeated
SIDES = (float(norm.ppf(ALARM)), -1.96, 0.0, 1.96)  # standard errors off the estimate: lowest, and its 95 % interval
FILMS, SIDE = 2, 8  # phantom films a class, and their pixels a side
MOVE = 0.01  # about how far a step moves a weight

Array = NDArray[np.float64]
Coins = NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """The run that is repeated with canaries.

    Attributes:
        terms: of the ledger.
        sigma: noise multiplier of the experts' steps.
        rate: the chance of a unit to take part in a step.
        experts: how many.
        steps: of each.
    """

    terms: Terms
    sigma: float
    rate: float
    experts: int
    steps: int

    @classmethod
    def of(cls, ledger: dict[str, Any]) -> "Plan | None":
        """What the ledger charged the experts with, at the least noise of any; None where it charged none."""
        entries = [Entry(**entry) for entry in ledger["entries"] if entry["what"].startswith("expert ")]
        if not entries:
            return None
        return cls(
            terms=Terms(**ledger["terms"]),
            sigma=min(entry.noise_multiplier for entry in entries),
            rate=max(entry.rate for entry in entries),
            experts=len({entry.what for entry in entries}),
            steps=max(entry.first + entry.steps for entry in entries),
        )


@dataclass(frozen=True)
class Evidence:
    """What the checkpoints of all experts tell of each canary.

    Attributes:
        score: (m,) logarithm of the likelihood ratio of having taken part, up to a monotone change.
        total: (m,) the sum of all steps along the canary's direction, in units of C.
    """

    score: Array
    total: Array


class Unbound(Ledger):
    """An account of canaries, to whom nothing is promised: it takes every charge and writes nothing."""

    def charge(self, entry: Entry) -> None:
        """Let the noise be drawn."""


def check(candidate: Candidate, private: Private) -> Outcome:
    """Repeat the ledger's run with canaries, with and without noise, and guess who took part."""
    if candidate.ledger is None:
        return not_applicable(NUMBER, NAME, "no formal guarantee is claimed, so there is none to test")
    plan = Plan.of(candidate.ledger)
    if plan is None:
        return not_applicable(NUMBER, NAME, "the ledger charges no step of an expert")
    return Outcome(canary_check(plan, seed=private.config.seed, device=private.device, say=private.say))


def canary_check(
    plan: Plan, *, seed: int, device: torch.device | None = None, say: Callable[[str], None] = lambda line: None
) -> Check:
    """Run, guess and judge.

    The number of guesses follows from the claim and is fixed beforehand. Fails where the lower bound of epsilon exceeds
    the claim at the 5 % level; and where an estimate that takes the scores as Gaussian does so beyond chance (.01 %),
    because that sees a lack of noise also at an epsilon which no number of right guesses can refute.

    Args:
        plan: what was charged.
        seed: of coins, directions and first weights; nothing secret.
        device: where the run is done.
        say: told what is being done.
    """
    claim, delta = plan.terms.epsilon, plan.terms.delta
    included = (torch.rand(CANARIES, generator=generator(seed, "canaries")) < 0.5).numpy()
    guesses = guesses_for(claim + REACH, delta, CANARIES)
    say(f"canaries: {CANARIES} in a run of {plan.experts} experts; then without noise; then none of them")
    honest = audit_run(plan, included, seed, device)
    right = right_guesses(honest.score, included, guesses)
    lowest, low, middle, high = estimate(honest.total, included, plan, SIDES)
    statistic = {
        "epsilon_claimed": claim,
        "delta": delta,
        "epsilon_lower": lower_bound(delta, CANARIES, guesses, right),
        "ceiling": ceiling(delta, CANARIES, guesses),
        "epsilon_estimated": middle,
        "epsilon_estimated_lower": lowest,
        "canaries": CANARIES,
        "guesses": guesses,
        "right": right,
        "experts": plan.experts,
        "steps": plan.steps,
        "rate": plan.rate,
        "noise_multiplier": plan.sigma,
    }
    positive, negative = _controls(plan, included, guesses, seed, device)
    verdict, explanation = _judge(statistic, positive, negative)
    power = float(positive["epsilon_lower"] > claim)
    return Check(NUMBER, NAME, verdict, statistic, (low, high), power, positive, negative, explanation)


def _controls(
    plan: Plan, included: Coins, guesses: int, seed: int, device: torch.device | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Guesses where all must be right, and where chance alone decides."""
    bare = audit_run(replace(plan, sigma=0.0), included, seed, device)
    empty = audit_run(plan, np.zeros_like(included), seed, device)
    bare_right, empty_right = (right_guesses(found.score, included, guesses) for found in (bare, empty))
    positive = {
        "planted": "a run without noise",
        "right": bare_right,
        "epsilon_lower": lower_bound(plan.terms.delta, len(included), guesses, bare_right),
    }
    negative = {
        "planted": "a run without canaries",
        "right": empty_right,
        "p": float(binomtest(empty_right, guesses, 0.5).pvalue),
    }
    return positive, negative


def audit_run(plan: Plan, included: Coins, seed: int, device: torch.device | None = None) -> Evidence:
    """Train the plan's experts on phantom films and the included canaries, and score all canaries.

    Directions are rows of the orthonormal cosine transform with random signs: dense, so that no film's gradient lies
    along one of them.

    Args:
        plan: what is run.
        included: (m,) who takes part.
        seed: of directions, films and first weights.
        device: where it is done.
    """
    from medistill.experts.private import uniform

    count, clip = len(included), plan.terms.clip
    width = math.ceil(count / (12 + len(CLASSES) * (SIDE // 2) ** 2))
    architecture = Architecture("convnet", 1, len(CLASSES), SIDE, width, 1)
    size = len(flatten(architecture.build(generator(seed, "canary network"))))
    signs = 2.0 * torch.randint(2, (size,), generator=generator(seed, "canary signs")).numpy() - 1.0
    step = MOVE / max(plan.sigma, 1.0)  # how far a sum of norm C moves the weights

    def extra(expert: int, number: int) -> Tensor:
        taken = included & (uniform(count).numpy() < plan.rate)
        return torch.from_numpy(clip * signs * idct(taken.astype(np.float64), n=size, norm="ortho"))

    score, total = np.zeros(count), np.zeros(count)
    for rows in _trained(plan, architecture, step, extra, seed, device):
        sums = rows.double().diff(dim=0).numpy() / -step  # (T, P) in units of C
        along = dct(sums * signs, norm="ortho")[:, :count]  # (T, m)
        score += log_likelihood_ratio(along, plan.rate, plan.sigma)
        total += along.sum(0)
    return Evidence(score, total)


def _trained(
    plan: Plan,
    architecture: Architecture,
    step: float,
    extra: Callable[[int, int], Tensor],
    seed: int,
    device: torch.device | None,
) -> Iterator[Tensor]:
    """(T+1, P) of each expert; where all take part the sum of all steps says as much as each, so T is 1."""
    from medistill.experts.private import normal, train_private

    images, labels = films(FILMS, SIDE, seed)
    terms = replace(plan.terms, patients=max(plan.terms.patients, len(labels)))
    settings = Experts(
        lr=step * terms.expected_batch / terms.clip,
        augment=[],
        private=PrivateSettings(steps=plan.steps, rows=1 if plan.rate == 1 else plan.steps),
    )
    trained = train_private(
        ((images - 0.5) / 0.25).to(device),
        labels.to(device),
        torch.arange(len(labels)),
        architecture,
        settings,
        seed,
        Unbound(Path(), terms, Noise(plan.sigma), []),
        range(plan.experts),
        extra=extra,
        draw=normal if plan.sigma else torch.zeros,
    )
    return (rows for _, rows in trained)


def log_likelihood_ratio(along: Array, rate: float, sigma: float) -> Array:
    """(m,) for having taken part or not, of steps (T, m) along each direction in units of C.

    A step is N(0, sigma^2) without the canary, and with it a mixture: shifted by 1 at the given rate. Where all take
    part or no noise is drawn, the sum, of which it is a monotone function.
    """
    if rate == 1 or sigma == 0:
        return np.asarray(along.sum(0))
    return np.asarray(np.logaddexp(math.log1p(-rate), math.log(rate) + (along - 0.5) / sigma**2).sum(0))


def estimate(total: Array, included: Coins, plan: Plan, sides: Sequence[float]) -> list[float]:
    """Epsilon of the steps, taking each canary's total as Gaussian, so many standard errors off the estimate.

    Over N steps at rate q a canary adds q N to a noise of sd sqrt(N) sigma; what is found of both gives sigma, which
    the accountant turns into epsilon.
    """
    inside, outside = total[included], total[~included]
    steps = plan.experts * plan.steps
    noise = float(outside.std(ddof=1))
    signal = float(inside.mean() - outside.mean()) / noise
    error = math.sqrt(inside.var(ddof=1) / noise**2 / len(inside) + 1 / len(outside) + signal**2 / 2 / len(outside))

    def epsilon(snr: float) -> float:
        if snr <= 0:
            return 0.0
        sigma = plan.rate * math.sqrt(steps) / snr
        return spent([Mechanism(sigma, plan.rate, steps)], plan.terms.delta).prv

    return [epsilon(signal + side * error) for side in sides]


def _judge(found: dict[str, Any], positive: dict[str, Any], negative: dict[str, Any]) -> tuple[Verdict, str]:
    """The verdict and why."""
    claim, bound, top = found["epsilon_claimed"], found["epsilon_lower"], found["ceiling"]
    proved = (
        f"{found['right']} of {found['guesses']} guesses on {found['canaries']} canaries were right, which proves an "
        f"epsilon of {bound:.2f} or more; {claim:.3g} is claimed, {top:.2f} could have been proved, and by how far "
        f"canaries stand out of the noise it is about {found['epsilon_estimated']:.2f}"
    )
    low = found["epsilon_estimated_lower"]
    if bound > claim:
        return "fail", f"The claim is false: {proved}."
    if low > claim:
        return "fail", f"The claim is false: {proved}, and {low:.2f} or more beyond chance."
    if positive["epsilon_lower"] < top:
        return "inconclusive", f"Guesses were wrong even without noise: {proved}."
    if negative["p"] < ALARM:
        return "inconclusive", f"Canaries that took no part were not guessed by chance: {proved}."
    if top <= claim:
        return "inconclusive", f"No number of right guesses could have refuted the claim: {proved}."
    return "pass", f"No more leaks than is claimed: {proved}."
