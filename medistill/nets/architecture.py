"""Networks by name and size."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from medistill.config.net import DEPTH, PUBLISHED_WIDTH, misfit, parse_network
from medistill.errors import UserError
from medistill.nets.alexnet import alexnet
from medistill.nets.convnet import convnet
from medistill.nets.densenet import densenet121
from medistill.nets.resnet import resnet18
from medistill.nets.vgg import vgg11
from medistill.nets.vit import vit

# torch's own generator, from which layers draw their start, is one for all threads
_BUILDING = threading.Lock()

Build = Callable[[int, int, int, int, int], nn.Module]
"""A network of channels, classes, size, width and depth, drawn from torch's global generator."""

NETWORKS: dict[str, Build] = {
    "convnet": convnet,
    "resnet18": resnet18,
    "vgg11": vgg11,
    "alexnet": alexnet,
    "densenet121": densenet121,
    "vit": vit,
}


@dataclass(frozen=True)
class Architecture:
    """What is needed to build the same network again; stored in every file that holds parameters."""

    name: str
    channels: int
    classes: int
    size: int
    width: int
    depth: int

    def build(self, generator: torch.Generator) -> nn.Module:
        """A freshly initialised network on the CPU, drawn from the generator alone.

        Raises:
            UserError: no network of these sizes can be built.
        """
        if wrong := misfit(self.name, self.size, self.width, self.depth):
            raise UserError(wrong)
        with _BUILDING, torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return NETWORKS[self.name](self.channels, self.classes, self.size, self.width, self.depth)


def architecture_named(text: str, like: Architecture, option: str = "evaluate.architectures") -> Architecture:
    """The network NAME or NAME:WIDTH for the images and classes of `like`, as an option gives it.

    Without a width it is `like` itself if that is of the name, else of the published width. A ConvNet beside another
    network is as deep as the field's (3 blocks at 32 px, 4 at 64, 5 at 112), a vit has 4 blocks. Raises UserError for
    what cannot be built.
    """
    name, width = parse_network(option, text)
    own = name == like.name
    found = replace(
        like,
        name=name,
        width=width or (like.width if own else PUBLISHED_WIDTH[name]),
        depth=like.depth if own else _usual_depth(like.size) if name == "convnet" else DEPTH,
    )
    if wrong := misfit(found.name, found.size, found.width, found.depth):
        raise UserError(f"{option}: {text!r}: {wrong}")
    return found


def _usual_depth(size: int) -> int:
    """Halvings until 3 to 5 pixels of a side are left."""
    return 1 + _usual_depth(size // 2) if size > 5 else 0
