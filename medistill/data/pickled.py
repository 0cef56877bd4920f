"""Pickles of other people, read without running anything in them.

A pickle can run any code, so these are read by an unpickler that builds bytes, numbers, lists, dicts and stand-ins
for numpy's arrays, and refuses whatever else a file asks for; numpy itself never sees a file's state.
"""

import math
import pickle
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RefusedError(Exception):
    """A pickle asked for something that no array of bytes needs; the text names it."""


class Stand:
    """What a pickle builds in place of a numpy object: how it was called, and the state it was given."""

    def __init__(self, *made: Any) -> None:
        self.made = made
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads protocol 2 as Python 2 and Python 3 write it; every name outside a short list is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """A harmless stand-in for a name that a pickled array of bytes consists of.

        Bound methods are handed out because a hostile pickle cannot set attributes on them.
        """
        known = {
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): self._stand,
            ("numpy.core.multiarray", "_reconstruct"): self._stand,
            ("numpy._core.multiarray", "_reconstruct"): self._stand,
            ("_codecs", "encode"): self._bytes,
        }
        if (module, name) not in known:
            raise RefusedError(f"{module}.{name}"[:80])
        return known[module, name]

    def _stand(self, *made: Any) -> Stand:
        return Stand(*made)

    def _bytes(self, text: str, encoding: Any) -> bytes:
        """How Python 3 writes bytes in protocol 2."""
        if encoding not in ("latin1", b"latin1"):
            raise RefusedError("an encoding other than latin1")
        return text.encode("latin1")


def unpickle(content: bytes) -> Any:
    """The value in a pickle, text as bytes, built without running anything of the pickle's.

    Raises:
        RefusedError: it asks for a name outside the short list.
        Exception: a damaged pickle can raise whatever its opcodes run into.
    """
    return _Unpickler(BytesIO(content), encoding="bytes").load()


def byte_array(stand: Any) -> NDArray[np.uint8] | None:
    """The array of bytes that a stand-in describes, or None: numpy's state is (version, shape, dtype, order, bytes)."""
    try:
        _, shape, dtype, fortran, raw = stand.state
        if dtype.made[0] not in (b"u1", "u1") or len(raw) != math.prod(shape):
            return None
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError):
        return None
