"""Every random number descends from one base seed and the name of the place that draws it."""

import hashlib

import torch


def derive(base: int, *place: str | int) -> int:
    """A 63-bit seed from the base seed and a place such as ("distill", 17): the same on every machine."""
    text = ":".join(str(part) for part in (base, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(base: int, *place: str | int) -> torch.Generator:
    """A CPU generator for one place; drawing on the CPU keeps a run the same whatever the device."""
    return torch.Generator().manual_seed(derive(base, *place))
