"""Byte mutators: each takes a content, a source of chance and other contents, and gives a changed content."""

from collections.abc import Callable, Sequence
from random import Random

Mutator = Callable[[bytes, Random, Sequence[bytes]], bytes]

EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def place(body: bytes, chance: Random) -> int:
    """A place in a content; every second one in its first 2 KiB, where headers stand."""
    end = len(body) if chance.random() < 0.5 else min(len(body), 2048)
    return chance.randrange(end) if end else 0


def flip_bits(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Flip 1 to 16 bits."""
    changed = bytearray(body)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if changed:
            changed[place(body, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def overwrite(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Put a run of one byte, or of any, over what is there."""
    start, length = place(body, chance), chance.choice((1, 2, 4, 8, 32, 256))
    run = chance.choice((b"\0" * length, b"\xff" * length, chance.randbytes(length)))
    return body[:start] + run[: len(body) - start] + body[start + length :]


def truncate(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Cut the end off."""
    return body[: place(body, chance)]


def delete(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Take a run out."""
    start = place(body, chance)
    return body[:start] + body[start + chance.choice((1, 2, 8, 64, 1024)) :]


def insert(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Put a run in between."""
    start, length = place(body, chance), chance.choice((1, 2, 8, 64, 4096))
    return body[:start] + chance.choice((b"\0" * length, chance.randbytes(length))) + body[start:]


def repeat(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Say a part again, up to 64 times."""
    start = place(body, chance)
    part = body[start : start + chance.choice((2, 16, 128))]
    return body[:start] + part * chance.choice((2, 3, 64)) + body[start:]


def inflate(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """Put a number at the edge of its range over 1, 2, 4 or 8 bytes, as a length that lies."""
    start, width = place(body, chance), chance.choice((1, 2, 4, 4, 8))
    number = chance.choice(EDGES) % 2 ** (8 * width)
    run = number.to_bytes(width, chance.choice(("little", "big")))
    return body[:start] + run[: len(body) - start] + body[start + width :]


def splice(body: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    """The start of this content and the end of another."""
    other = chance.choice(others) if others else body
    return body[: place(body, chance)] + other[place(other, chance) :]


MUTATORS: tuple[Mutator, ...] = (flip_bits, overwrite, truncate, delete, insert, repeat, inflate, splice)


def mutate(
    body: bytes, chance: Random, others: Sequence[bytes] = (), more: Sequence[Mutator] = (), rounds: int = 3
) -> bytes:
    """1 to `rounds` mutators, one after another; every second one of `more` where there are such."""
    for _ in range(chance.randint(1, rounds)):
        kinds = more if more and chance.random() < 0.5 else MUTATORS
        body = chance.choice(kinds)(body, chance, others)
    return body
