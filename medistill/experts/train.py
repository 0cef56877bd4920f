"""Training experts: plain SGD with differentiable augmentation, parameters kept after every epoch."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from medistill import augment, seeds
from medistill.config import Experts
from medistill.errors import UserError
from medistill.nets import Architecture, flatten


def train_expert(
    images: Tensor,
    labels: Tensor,
    architecture: Architecture,
    settings: Experts,
    seed: int,
    index: int,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Tensor:
    """Train expert number `index` and return its trajectory (T+1, P) on the CPU.

    MTT, section 3.1 (Cazenavette et al. 2022): SGD on cross entropy, the data set one tensor on the
    device. Initialisation, order and augmentation depend on the seed and the index alone, so experts can
    be trained in any order or number. A short last batch is used, not dropped.

    Args:
        images: (N, C, H, W), normalised, on the device that trains.
        labels: (N,) int64, likewise.
        architecture: the network.
        settings: epochs, step size, batch, augmentation.
        seed: base seed.
        index: number of the expert.
        progress: called after every epoch with the epoch and its mean loss.

    Raises:
        UserError: when the loss is no longer finite.
    """
    generator = seeds.generator(seed, "expert", index)
    module = architecture.build(generator).to(images.device)
    optimizer = torch.optim.SGD(module.parameters(), lr=settings.lr, momentum=settings.momentum)
    rows = [flatten(module).cpu()]
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        for index_batch in torch.randperm(len(labels), generator=generator).split(settings.batch):
            drawn = augment.draw(settings.augment, len(index_batch), generator)
            picked = index_batch.to(images.device)
            loss = F.cross_entropy(module(augment.apply(images[picked], drawn)), labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(picked)
        if not total < float("inf"):
            raise UserError(f"experts: the loss of expert {index} is not finite in epoch {epoch}; lower experts.lr")
        rows.append(flatten(module).cpu())
        progress(epoch, total / len(labels))
    return torch.stack(rows)
