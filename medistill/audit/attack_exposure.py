"""The patients whom an attack finds most easily: an average hides them.

Of two twin shadows, which share out the patients, the attack guesses that a patient is in the one where the score is
higher. Over all pairs that makes as many games a patient, half of which chance wins.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WORST = 0.1


@dataclass(frozen=True)
class Exposure:
    """How often patients are told apart.

    Attributes:
        games: a patient.
        won: (G,) the share of games that the attack wins, in falling order: nobody is named.
        share: of games won against the most exposed tenth of the patients. Who they are is decided on one half of the
            pairs and the games are counted on the other, both ways, because the luckiest tenth of pure chance would
            look exposed too.
        interval: its 95 % interval over patients.
    """

    games: int
    won: NDArray[np.float64]
    share: float
    interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Numbers for a report."""
        return {"games": self.games, "share_of_games_won": self.share, "interval": list(self.interval)}


def exposure(scores: Tensor, inside: Tensor, generator: torch.Generator, resamples: int = 1000) -> Exposure:
    """The most exposed patients.

    Args:
        scores: (K, G) of every shadow as the target, on one scale; rows 2j and 2j + 1 are twins.
        inside: (K, G) True where the shadow was made from the patient.
        generator: of the bootstrap.
        resamples: of the bootstrap.
    """
    sign = torch.where(inside[::2], 1.0, -1.0).double()
    lead = sign * (scores[::2] - scores[1::2])  # (K / 2, G), positive where the game is won
    won = (lead > 0).double() + (lead == 0).double() / 2
    half = len(lead) // 2
    tenth = max(1, round(WORST * lead.shape[1]))
    patients, shares = [], []
    for chosen_on, counted_on in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        worst = lead[chosen_on].mean(0).argsort(descending=True, stable=True)[:tenth]
        patients.append(worst)
        shares.append(won[counted_on, worst].mean(0))
    patient, share = torch.cat(patients).numpy(), torch.cat(shares).numpy()
    names, number = np.unique(patient, return_inverse=True)
    drawn = torch.randint(len(names), (resamples, len(names)), generator=generator).numpy()
    times = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])[:, number]
    low, high = np.quantile((times * share).sum(1) / times.sum(1), [0.025, 0.975])
    ranked = won.mean(0).sort(descending=True).values.numpy()
    return Exposure(len(lead), ranked, float(share.mean()), (float(low), float(high)))
