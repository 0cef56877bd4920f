"""Shadow experts of a run in DP mode: clipped and noised as the run's own, without an account.

They are made from real patients and stay in the house, so nothing is charged for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medistill.audit.shadow_training import Trainer
from medistill.config import Experts
from medistill.experts.ledger import Entry, Ledger, Noise, Terms
from medistill.nets import Architecture
from medistill.resources import Used


class Uncounted(Ledger):
    """The terms and the noise of a run, for networks that never leave the house: nothing is written down."""

    def charge(self, entry: Entry) -> None:
        """Charge nothing."""


def noisy_trainer(ledger: Mapping[str, Any], patient: Tensor) -> Trainer:
    """A trainer of shadows with the clipping, noise multiplier, rate and steps of a ledger, one film a patient.

    A step is divided by the expected patients of the part, as the run's by those of all: a patient's share in it is
    as loud against the noise as in the run.

    Args:
        ledger: as `privacy_ledger.json` holds it.
        patient: (N,) int64, of each film.
    """
    terms, noise = Terms(**ledger["terms"]), Noise(**ledger["noise"])
    unit = patient if terms.unit == "patient" else torch.arange(len(patient))

    def train(
        images: Tensor,
        labels: Tensor,
        parts: Sequence[Tensor],
        architecture: Architecture,
        settings: Experts,
        generators: Sequence[torch.Generator],
        films: int,
        compiled: bool | None = None,
        told: Callable[[Used], None] | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        # imported here, for opacus takes seconds
        from medistill.experts.private import train_private

        for number, (part, generator) in enumerate(zip(parts, generators, strict=True)):
            groups, seed = unit[part], int(torch.randint(2**62, (), generator=generator))
            own = replace(terms, patients=len(groups.unique()))
            here, classes = part.to(images.device), labels[part].to(images.device)
            expert = train_private(
                images[here], classes, groups, architecture, settings, seed, Uncounted(Path(), own, noise, []), [0]
            )
            yield from ((number, rows) for _, rows in expert)

    return train
