"""A siamese network that tells whether two films show one patient: the attacker of check 4.

Two films go through one network, and the cosine of the two embeddings is their score, as in Packhäuser et al. (Sci.
Rep. 12:14851, 2022), who had the 112,120 films of ChestX-ray14. A hospital has hundreds of patients, so the network is
small, every batch compares all films of all its patients with each other (the supervised contrastive loss of Khosla et
al., NeurIPS 2020), and pose, exposure and noise are drawn anew each time that a film is seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medistill.seeds import generator

SIDE = 64
FILMS = 3  # of a patient in a batch
PATIENTS = 43  # in a batch, which so holds about 128 films
WIDTH = 48
DIMENSIONS = 128
TEMPERATURE = 0.1
LEARNING_RATE = 2e-3
WARM_UP = 0.1  # the share of the steps in which the learning rate rises
VIEWS = 8  # poses of a film whose embeddings are averaged
BLOCK = 256
_FLAT = 1e-3  # a film whose standard deviation is below this is flat

# Two films of a patient differ by about this much, either way; half as much again halved what was recognised.
ROTATION = 0.12  # radians
ZOOM = 0.2  # of the logarithm of the scale
SHIFT = 0.09  # of half the side
RAMP = 0.3  # of the exposure from the middle to the border, in standard deviations of the film
BEND = 0.2  # of the tone curve
NOISE = 0.4  # its largest standard deviation, in those of the film


@dataclass(frozen=True)
class Siamese:
    """A trained network and the poses in which it looks at a film.

    Attributes:
        net: (B, C, SIDE, SIDE) -> (B, DIMENSIONS).
        poses: (VIEWS, 4) of numbers in [-1, 1], as `posed` takes them.
        device: where the network is.
    """

    net: nn.Module
    poses: Tensor
    device: torch.device

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """(B, DIMENSIONS) unit vectors, on the CPU, of images (B, C, H, W) in any units: the mean over the poses."""
        parts = []
        for block in images.split(BLOCK):
            films = prepared(block.to(self.device))
            seen = self.net(films)
            for pose in self.poses.to(self.device):
                seen = seen + self.net(standard(posed(films, pose.expand(len(films), 4))))
            parts.append(F.normalize(seen, dim=1).cpu())
        return torch.cat(parts)


def train_siamese(
    images: Tensor,
    groups: Tensor,
    *,
    seed: int,
    steps: int,
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
) -> Siamese:
    """Train a network to place the films of a patient together.

    Adam on `contrastive_loss`; the learning rate rises and falls once (Smith and Topin 2019).

    Args:
        images: (N, C, H, W) in [0, 1].
        groups: (N,) the patient of each film; every patient has several.
        seed: base seed of all random numbers.
        steps: batches of `PATIENTS` patients with `FILMS` films each.
        device: where to train.
        say: told the loss now and then.
    """
    films = prepared(images).to(device)
    rows = [torch.nonzero(groups == patient)[:, 0] for patient in groups.unique()]
    source = generator(seed, "siamese", "train")
    net = network(images.shape[1], source).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1, pct_start=WARM_UP)
    for step in range(steps):
        index, patients = draw_batch(rows, source)
        loss = contrastive_loss(net(varied(films[index.to(device)], source)), patients.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            say(f"siamese network: step {step + 1} of {steps}, loss {loss.item():.3f}")
    poses = torch.rand(VIEWS, 4, generator=generator(seed, "siamese", "poses")) * 2 - 1
    return Siamese(net.eval(), poses, device)


def network(channels: int, source: torch.Generator) -> nn.Module:
    """(B, channels, 64, 64) -> (B, DIMENSIONS): four convolutions, and a linear layer that still sees places."""
    layers: list[nn.Module] = []
    shape = (
        (channels, WIDTH, 7, 4),
        (WIDTH, 2 * WIDTH, 3, 1),
        (2 * WIDTH, 4 * WIDTH, 3, 1),
        (4 * WIDTH, 4 * WIDTH, 3, 1),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=source)))
        for number, (inputs, outputs, kernel, stride) in enumerate(shape):
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
            if number in (1, 3):
                layers.append(nn.MaxPool2d(2))
        net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * WIDTH * (SIDE // 16) ** 2, DIMENSIONS))
    return net.to(memory_format=torch.channels_last)


def draw_batch(rows: Sequence[Tensor], source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the films of a batch: (B,) of their indices, and (B,) of their patients.

    Args:
        rows: the indices of each patient's films.
        source: of the random numbers.

    Returns:
        `FILMS` films of each of `PATIENTS` patients at most; of a patient with fewer, some stand there again.
    """
    chosen = torch.randperm(len(rows), generator=source)[:PATIENTS]
    films = []
    for patient in chosen.tolist():
        order = rows[patient][torch.randperm(len(rows[patient]), generator=source)]
        films.append(order.repeat(-(-FILMS // len(order)))[:FILMS])
    return torch.cat(films), chosen.repeat_interleave(FILMS)


def contrastive_loss(embeddings: Tensor, patients: Tensor) -> Tensor:
    """The supervised contrastive loss (Khosla et al. 2020, L_out of equation 2), a mean over the films.

    Args:
        embeddings: (B, D), of any length.
        patients: (B,) the patient of each; every patient has several.
    """
    unit = F.normalize(embeddings, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    same = (patients[:, None] == patients) & ~itself
    share = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(1)
    return -(share.masked_fill(~same, 0).sum(1) / same.sum(1)).mean()


def prepared(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as the network sees them: 64 x 64, mean 0 and standard deviation 1."""
    images = images.float()
    if images.shape[2:] != (SIDE, SIDE):
        images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return standard(images)


def standard(images: Tensor) -> Tensor:
    """Images (B, C, H, W) with mean 0 and standard deviation 1 each."""
    images = images - images.mean((1, 2, 3), keepdim=True)
    images = images / images.std((1, 2, 3), keepdim=True).clamp_min(_FLAT)
    return images.contiguous(memory_format=torch.channels_last)


def varied(images: Tensor, source: torch.Generator) -> Tensor:
    """Prepared images (B, C, H, W) in another pose, under another exposure and with noise."""
    number = torch.rand(len(images), 8, generator=source).to(images) * 2 - 1
    images = standard(posed(images, number[:, :4]))
    right, down, bend = (number[:, i].view(-1, 1, 1, 1) for i in (4, 5, 6))
    axis = torch.linspace(-1, 1, SIDE, device=images.device)
    images = images + RAMP * (right * axis + down * axis[:, None]) + BEND * bend * images.square()
    noise = torch.randn(images.shape, generator=source).to(images)
    return standard(images + NOISE * number[:, 7].abs().view(-1, 1, 1, 1) * noise)


def posed(images: Tensor, numbers: Tensor) -> Tensor:
    """Images (B, C, H, W) rotated, scaled and shifted by numbers (B, 4) in [-1, 1]; borders are continued."""
    angle, zoom = ROTATION * numbers[:, 0], torch.exp(ZOOM * numbers[:, 1])
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    right, down = SHIFT * numbers[:, 2], SHIFT * numbers[:, 3]
    matrix = torch.stack([torch.stack([cos, -sin, right], 1), torch.stack([sin, cos, down], 1)], 1)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")
