"""What a setting must keep to; a mistake is one sentence."""

import math
from typing import Any

from medistill.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raise a UserError with the message unless the condition holds."""
    if not condition:
        raise UserError(message)


def check_augment(option: str, names: list[str]) -> None:
    """Raise a UserError for a name that is no augmentation."""
    known = ("color", "crop", "cutout", "flip", "scale", "rotate")
    for name in names:
        require(name in known, f"{option}: {name!r} is not an augmentation; choose from {', '.join(known)}")


def require_plain(settings: dict[str, Any], before: str = "") -> None:
    """Raise a UserError for a number that is not finite and for a text that no file can hold or terminal show."""
    for name, value in settings.items():
        if isinstance(value, dict):
            require_plain(value, f"{before}{name}.")
        for one in value if isinstance(value, list) else [value]:
            finite = not isinstance(one, float) or math.isfinite(one)
            require(finite, f"{before}{name} is {one}; give a finite number")
            plain = not isinstance(one, str) or one.replace("\n", "").isprintable()
            require(plain, f"{before}{name} holds characters that are not printable; write it without them")
