"""MGDD's generator: synthetic images from start images, as many as there are; and its file."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medistill import seeds
from medistill.errors import UserError

CODE = 8
"""Numbers that tell the generator a class. They are fixed, so that it serves data sets of any number of classes."""


class Generator(nn.Module):
    """A start image and its class become a synthetic image, each on its own.

    An encoder of three halvings and a decoder with skips, both of 3x3 convolutions and layer norms; what they answer
    is added to the start image, and at first is 0. Each class is told by constant planes, for a start of noise does not
    show it. The paper says no more of its network than that it is conditioned on the start images.

    Args:
        channels: of the images, of any size.
        width: channels of the first layer.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        first, *halving = (channels + CODE, width), (width, 2 * width), (2 * width, 2 * width), (2 * width, 2 * width)
        self.down = nn.ModuleList([_layer(*first), *(_layer(*pair, stride=2) for pair in halving)])
        joining = (4 * width, 2 * width), (4 * width, width), (2 * width, width)
        self.up = nn.ModuleList(_layer(*pair) for pair in joining)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, start: Tensor, classes: Tensor) -> Tensor:
        """Images (M, C, H, W) from start images (M, C, H, W) and classes (M,) int64."""
        planes = codes(classes).to(start)[:, :, None, None].expand(-1, -1, *start.shape[2:])
        x, kept = torch.cat([start, planes], 1), []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        beside = kept[-2::-1]
        for layer, skip in zip(self.up, beside, strict=True):
            x = layer(torch.cat([F.interpolate(x, skip.shape[2:]), skip], 1))
        out: Tensor = start + self.last(x)
        return out


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.GroupNorm(1, outputs), nn.ReLU(inplace=True)
    )


def codes(classes: Tensor) -> Tensor:
    """(M, CODE) float32 on the CPU for classes (M,) int64: a class's numbers are the same in every run."""
    rows = [torch.randn(CODE, generator=seeds.generator(0, "class code", k)) for k in range(int(classes.max()) + 1)]
    return torch.stack(rows)[classes.cpu()]


def fresh(channels: int, width: int, generator: torch.Generator) -> Generator:
    """A generator on the CPU, drawn from the random numbers of `generator` alone; it answers the start images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return Generator(channels, width)


def load(path: Path, into: Generator) -> None:
    """Take over the parameters in a file of `Course.made().also`.

    Raises:
        UserError: the file is missing, no safetensors file, or that of another network.
    """
    option = f"distill.mgdd.generator: {path.name}"
    try:
        found = load_file(path)
    except OSError as error:
        raise UserError(
            f"{option} cannot be read ({type(error).__name__}); name learned.safetensors of a run"
        ) from error
    except SafetensorError as error:
        raise UserError(f"{option} is no safetensors file ({error}); name learned.safetensors of a run") from error
    wanted = {name: tuple(part.shape) for name, part in into.state_dict().items()}
    shapes = {name: tuple(part.shape) for name, part in found.items()}
    if shapes != wanted:
        name = min(name for name in wanted | shapes if wanted.get(name) != shapes.get(name))
        raise UserError(
            f"{option} holds {name} of shape {shapes.get(name)}, this run's generator has {wanted.get(name)}; give "
            "distill.mgdd.width as it was there, and images of as many channels"
        )
    if not all(part.is_floating_point() and part.isfinite().all() for part in found.values()):
        raise UserError(f"{option} holds numbers that are not finite; make it again")
    into.load_state_dict(found)
