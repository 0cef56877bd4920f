"""medistill distils a hospital's chest X-rays into a few synthetic images that can be shared."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is first asked for: `medistill --help` must not pay for torch."""
    if name == "load":
        from medistill.release.load import load

        return load
    raise AttributeError(name)
