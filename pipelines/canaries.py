"""What canaries prove about the private trainer, over several runs: honest noise, planted faults, and no noise.

Every arm claims epsilon at delta 1e-4 for 8 experts of 30 steps and draws its own noise through the trainer that
hospitals use; "per expert" has the noise that one expert alone would need, as if each had an account of its own.

    python pipelines/canaries.py        docs/results/canaries.json, minutes on one core
"""

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from medistill.audit.canaries import Plan, canary_check
from medistill.experts.accountant import Mechanism, spent
from medistill.experts.ledger import Noise, Terms
from medistill.files import write_json

RUNS, EXPERTS, STEPS, PATIENTS = 10, 8, 30, 1000
ARMS = {  # claimed epsilon, rate, experts that the noise is made for, and the share of it that is drawn
    "honest, epsilon 3": (3.0, 1.0, EXPERTS, 1.0),
    "honest, epsilon 3, rate .25": (3.0, 0.25, EXPERTS, 1.0),
    "honest, epsilon 8": (8.0, 1.0, EXPERTS, 1.0),
    "per expert, epsilon 3": (3.0, 1.0, 1, 1.0),
    "per expert, epsilon 3, rate .25": (3.0, 0.25, 1, 1.0),
    "per expert, epsilon 8": (8.0, 1.0, 1, 1.0),
    "half the noise, epsilon 3": (3.0, 1.0, EXPERTS, 0.5),
    "next to no noise, epsilon 3": (3.0, 1.0, EXPERTS, 1e-3),
}
KEPT = ("ceiling", "canaries", "guesses", "noise_multiplier")
MEASURED = ("epsilon_lower", "epsilon_estimated", "right")


def summary(values: list[float]) -> dict:
    return {"mean": np.mean(values), "sd": np.std(values, ddof=1), "min": min(values), "max": max(values)}


def arm(epsilon: float, rate: float, experts: int, share: float) -> dict:
    terms = Terms("patient", PATIENTS, epsilon, 0.1 / PATIENTS, 1.0, rate, EXPERTS, STEPS, 0, 0.0)
    plan = Plan(terms, share * Noise.solve(replace(terms, experts=experts)).step, rate, EXPERTS, STEPS)
    checks = [canary_check(plan, seed=seed) for seed in range(RUNS)]
    top = checks[0].statistic["ceiling"]
    return {
        "terms": asdict(terms),
        "epsilon_of_this_noise": spent([Mechanism(plan.sigma, rate, EXPERTS * STEPS)], terms.delta).prv,
        "verdicts": Counter(check.verdict for check in checks),
        "without_noise_at_the_ceiling": sum(check.positive_control["epsilon_lower"] == top for check in checks),
        "without_canaries_p": [check.negative_control["p"] for check in checks],
        **{name: checks[0].statistic[name] for name in KEPT},
        **{name: summary([check.statistic[name] for check in checks]) for name in MEASURED},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = {"runs": RUNS, "arms": {name: arm(*chosen) for name, chosen in ARMS.items()}}
    write_json(Path("docs/results/canaries.json"), result)
