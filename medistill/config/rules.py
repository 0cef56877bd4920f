"""What a setting must keep to; a mistake is one sentence."""

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
