"""Private experts: DP-SGD (Abadi et al. 2016, arXiv 1607.00133) whose unit is the patient.

A step is theta <- theta - lr / B (sum of clipped gradients + C sigma N(0, 1)), B a public constant. Which film stands
for a patient depends on that patient's films alone, and nothing else that a step computes of a patient depends on
another, so that taking one patient away changes a step's sum by C at most.
"""

import hashlib
import math
import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from medistill import augment, seeds
from medistill.config import Experts
from medistill.errors import UserError
from medistill.experts.ledger import Ledger
from medistill.nets import Architecture, flatten

Draw = Callable[[int], Tensor]
"""So many standard normal numbers, (count,) float64."""

Extra = Callable[[int, int], Tensor]
"""From an expert and a step to the sum (P,) of the clipped gradients of records that have no film."""

BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1."""


def uniform(*shape: int) -> Tensor:
    """Uniform numbers on (0, 1), float64, from the operating system's entropy.

    torch's CPU generator keeps 32 bits of a seed, which whoever knows the other patients could try one by one;
    here there is no seed, and so none that could be stored.
    """
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=torch.float64)
    words = torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64).view(shape)
    return ((words & (2**53 - 1)).double() + 0.5) * 2**-53


def normal(count: int) -> Tensor:
    """(count,) standard normal numbers, float64, from the operating system's entropy (Box and Muller).

    Each is half the sum of four, which hides what the rounding of a single one would tell of the sum it is added to
    (Holohan and Braghin 2021, arXiv 2107.10138), as in Opacus' secure mode.
    """
    radius, turn = uniform(2, 4, count)
    return ((-2 * radius.log()).sqrt() * (2 * math.pi * turn).cos()).sum(0) / 2


def poisson(count: int, rate: float) -> Tensor:
    """The records (n,) int64 of `count` that take part in a step, each with chance `rate`."""
    return torch.nonzero(uniform(count) < rate).flatten()


def one_film_each(images: Tensor, groups: Tensor, seed: int) -> Tensor:
    """The film of each patient that stands for him: (patients,) int64, ascending.

    Of a patient's films the one whose keyed hash is the smallest: a draw of the seed and this patient's pixels alone,
    so that another patient's coming or going changes nothing. A mere order of drawing would.

    Args:
        images: (N, C, H, W).
        groups: (N,) the patients.
        seed: base seed.
    """
    key = f"one film each:{seed}".encode()
    chosen: dict[int, tuple[bytes, int]] = {}
    for row, (image, patient) in enumerate(zip(images.cpu(), groups.tolist(), strict=True)):
        digest = hashlib.sha256(key + image.contiguous().numpy().tobytes()).digest()
        chosen[patient] = min(chosen.get(patient, (digest, row)), (digest, row))
    return torch.tensor(sorted(row for _, row in chosen.values()), dtype=torch.int64)


class SecretNoise(DPOptimizer):
    """Opacus' optimiser with noise from the operating system.

    Attributes:
        draw: where the noise comes from.
        extra: what is added to the sum of clipped gradients (P,) before the noise, or None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, ledger: Ledger, draw: Draw):
        super().__init__(
            optimizer,
            noise_multiplier=ledger.noise.step,
            max_grad_norm=ledger.terms.clip,
            expected_batch_size=ledger.terms.expected_batch,
        )
        self.draw = draw
        self.extra: Tensor | None = None

    def clip_and_accumulate(self) -> None:
        """Clip each record's gradient and add it to the sum; what is not finite counts as 0.

        A NaN passes any clipping, and a single patient's would show in every parameter.
        """
        for p in self.params:
            p.grad_sample = torch.nan_to_num(p.grad_sample, nan=0.0, posinf=0.0, neginf=0.0)
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Noise in float64 on the sum of all parameters at once."""
        summed = torch.cat([p.summed_grad.reshape(-1) for p in self.params]).double()  # (P,)
        if self.extra is not None:
            summed += self.extra.to(summed)
        summed += self.noise_multiplier * self.max_grad_norm * self.draw(len(summed)).to(summed.device)
        for p, part in zip(self.params, summed.split([p.numel() for p in self.params]), strict=True):
            p.grad = part.to(p.dtype).view_as(p)


class Pupil:
    """An expert in training.

    Args:
        module: the network, changed in place.
        images: (n, C, H, W), one record of each patient, on the module's device.
        labels: (n,) int64.
        settings: step size, class weights, augmentation and how many films are worked at once.
        ledger: clipping norm, rate and noise; what is drawn is charged beforehand, by the caller.
        draw: where the noise comes from.
    """

    def __init__(
        self, module: nn.Module, images: Tensor, labels: Tensor, settings: Experts, ledger: Ledger, draw: Draw = normal
    ):
        self.images, self.labels, self.settings, self.rate = images, labels, settings, ledger.terms.rate
        given = settings.private.class_weights
        self.weights = images.new_tensor(given)[labels] if given else images.new_ones(len(labels))  # (n,)
        self.optimizer = SecretNoise(torch.optim.SGD(module.parameters(), lr=settings.lr), ledger, draw)
        self.module = GradSampleModule(module, loss_reduction="sum")

    def step(self, extra: Tensor | None = None) -> None:
        """One step on the loss sum_i w[y_i] CE_i / B, worked in pieces of `batch` films.

        Args:
            extra: (P,), added to the sum of clipped gradients before the noise.
        """
        count, batch = len(self.labels), self.settings.batch
        taken = poisson(count, self.rate) if self.rate < 1 else torch.arange(count)
        taken = taken.to(self.images.device)
        pieces = taken.split(batch)  # one empty piece where nobody was drawn, for that step takes noise all the same
        operation = secrets.choice(self.settings.augment) if self.settings.augment and len(taken) else None
        self.optimizer.extra = extra
        for number, index in enumerate(pieces, start=1):
            numbers = uniform(len(index), 3).float().clamp(max=BELOW_ONE)
            x = augment.apply(self.images[index], augment.Drawn(operation, numbers))
            with warnings.catch_warnings():
                # the images need no gradient, of which torch's backward hooks warn
                warnings.filterwarnings("ignore", "Full backward hook is firing")
                loss = F.cross_entropy(self.module(x), self.labels[index], reduction="none")
                (self.weights[index] * loss).sum().backward()
            self.optimizer.signal_skip_step(number < len(pieces))
            self.optimizer.step()
            self.optimizer.zero_grad()


def train_private(
    images: Tensor,
    labels: Tensor,
    groups: Tensor,
    architecture: Architecture,
    settings: Experts,
    seed: int,
    ledger: Ledger,
    indices: Sequence[int],
    *,
    begun: Mapping[int, Tensor] | None = None,
    keep: Callable[[int, Tensor], None] = lambda index, rows: None,
    extra: Extra | None = None,
    draw: Draw = normal,
) -> Iterator[tuple[int, Tensor]]:
    """Train private experts on one film of each patient; yields a number and its trajectory (T+1, P) on the CPU.

    All of them are charged to one ledger, each row's steps before their noise is drawn. Initialisation depends on the
    seed and the index; sampling, augmentation and noise come from the operating system and are never the same twice.
    Losses are not computed: they would be a function of the patients outside epsilon.

    Args:
        images: (N, C, H, W), normalised by public constants, on the device that trains.
        labels: (N,) int64.
        groups: (N,) the patients; one film of each is used.
        architecture: the network; no record's gradient may depend on another (no batch norm).
        settings: step size, augmentation, rows and steps.
        seed: base seed, of what needs no secret.
        ledger: the account, which also holds clipping norm, rate and noise.
        indices: numbers of the experts.
        begun: rows (r, P) that an aborted run has left, by the expert's number.
        keep: told the rows so far, (r, P), after each: what `begun` may be next time.
        extra: for the audit: records without a film, with gradients of their own.
        draw: for the audit: another source of noise, or none.

    Raises:
        UserError: more patients than the ledger's terms state, a film or parameter that is not finite, or the budget
            is spent.
    """
    chosen = one_film_each(images, groups, seed).to(images.device)
    images, labels = images[chosen], labels[chosen]
    _require(images, ledger)
    private = settings.private
    each = private.steps // private.rows
    for index in indices:
        module = architecture.build(seeds.generator(seed, "expert", index)).to(images)
        rows = list((begun or {}).get(index, flatten(module)[None]).cpu())
        vector_to_parameters(rows[-1].to(images, copy=True), module.parameters())
        pupil = Pupil(module, images, labels, settings, ledger, draw)
        for row in range(len(rows), private.rows + 1):
            first = (row - 1) * each
            ledger.charge_steps(index, first, each)
            for number in range(first, first + each):
                pupil.step(extra(index, number) if extra else None)
            rows.append(flatten(module).cpu())
            if not rows[-1].isfinite().all():
                raise UserError(f"experts: expert {index} is not finite after step {first + each}; lower experts.lr")
            keep(index, torch.stack(rows))
        yield index, torch.stack(rows)


def _require(images: Tensor, ledger: Ledger) -> None:
    """Raise a UserError when the films are not what the ledger's terms are about."""
    if len(images) > ledger.terms.patients:
        raise UserError("experts: there are more patients than the ledger's terms state; open it on the right terms")
    if not images.isfinite().all():
        raise UserError("experts: a film holds values that are not finite; run `medistill check`")
