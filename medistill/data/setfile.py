"""An image set's file, written a few images at a time, so that memory does not grow with their number."""

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from medistill.files import atomic

if TYPE_CHECKING:  # who only reads a set needs no decoder
    from medistill.data.store import Images

BLOCK = 64
"""Images held at a time."""


def write_set(
    path: Path, images: "Images", index: Tensor, labels: Tensor, groups: Tensor, metadata: dict[str, Any]
) -> None:
    """Write the images at these indices, atomically, byte for byte as `ImageSet.save` would.

    The layout is that of safetensors (https://github.com/huggingface/safetensors, "Format"): the length of the
    header, the header in JSON filled up to a multiple of 8 bytes, then the tensors, the widest type first.

    Args:
        path: the file.
        images: of which these are some.
        index: (N,) which.
        labels: of all images, int64.
        groups: likewise.
        metadata: the set's attributes that are no tensors; its digest is added.
    """
    shape = (len(index), *images.shape[1:])
    small = {"groups": groups[index].numpy(), "labels": labels[index].numpy()}
    state = hashlib.sha256(set_identity(metadata["classes"], shape, metadata["mean"], metadata["std"]))
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(_header(shape, metadata, "0" * 64))  # as long as the one to come, whose digest is not known yet
        for tensor in small.values():
            file.write(tensor.data)
        for block in index.split(BLOCK):
            pixels = images[block].contiguous().numpy()
            state.update(pixels.data)
            file.write(pixels.data)
        for name in ("labels", "groups"):
            state.update(small[name].data)
        file.seek(0)
        file.write(_header(shape, metadata, state.hexdigest()))


def set_identity(
    classes: tuple[str, ...], shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> bytes:
    """What a set's digest begins with, before pixels, labels and groups."""
    return repr((classes, shape, mean, std)).encode()


def _header(shape: tuple[int, ...], metadata: dict[str, Any], digest: str) -> bytes:
    """The length of the header and the header."""
    count = shape[0]
    ends = [0, 8 * count, 16 * count, 16 * count + 4 * math.prod(shape)]
    layout = [("groups", "I64", [count]), ("labels", "I64", [count]), ("images", "F32", list(shape))]
    header: dict[str, Any] = {
        "__metadata__": {"medistill": json.dumps(metadata | {"digest": digest}, sort_keys=True, allow_nan=False)}
    }
    for (name, kind, size), place in zip(layout, pairwise(ends), strict=True):
        header[name] = {"dtype": kind, "shape": size, "data_offsets": list(place)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
