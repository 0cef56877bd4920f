"""What of a config leaves the house: no value that locates data, people or machines."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

WITHHELD = "(withheld)"

# Keys of a config, at any depth, that tell where data lie, who made the run, or how pseudonyms were salted.
WITHHELD_KEYS = (
    "cache",
    "cohort",
    "columns",
    "csv",
    "dir",
    "directory",
    "file",
    "files",
    "folder",
    "folders",
    "host",
    "hosts",
    "master_addr",
    "out",
    "output",
    "path",
    "paths",
    "project_dir",
    "root",
    "roots",
    "run",
    "salt",
    "tracking",
    "tracking_uri",
    "uri",
    "user",
    "work",
    "workdir",
)

# Free text about the source, which may hold a public address.
PUBLIC_KEYS = ("citation", "licence", "license")

# A whole value such as /data, ~/x, ../x, C:\x, \\server\x, sqlite:///x, films/site or cohort.csv.
_PATH_LIKE = re.compile(
    r"(~|\.{1,2})?[/\\].*|~\w*|[A-Za-z]:\\.*|[A-Za-z][A-Za-z0-9+.-]*:/.*|\S*[/\\]\S*"
    r"|.*\.(csv|db|dcm|gz|jpe?g|json|pkl|png|pt|safetensors|tsv|txt|xlsx?|ya?ml|zip)",
    re.DOTALL | re.IGNORECASE,
)


def redact(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config in which every value that locates data, people or machines reads "(withheld)".

    Withheld are the values of `WITHHELD_KEYS` at any depth and every text that looks like a path or an
    address, except under `PUBLIC_KEYS`.
    """
    return {
        key: value if key in PUBLIC_KEYS else WITHHELD if _withheld(key, value) else _redacted(value)
        for key, value in config.items()
    }


def _withheld(key: str, value: Any) -> bool:
    """Whether a key's value must not leave; an empty value tells nothing and stays."""
    return value is not None and value != "" and key.lower() in WITHHELD_KEYS


def _redacted(value: Any) -> Any:
    """A value of a config without the paths in it; a mapping from paths is withheld as a whole."""
    if isinstance(value, Mapping):
        return WITHHELD if any(_is_path(key) for key in value) else redact(value)
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return WITHHELD if _is_path(value) else value


def _is_path(value: Any) -> bool:
    """Whether a value is a path or an address."""
    if isinstance(value, str):
        return _PATH_LIKE.fullmatch(value.strip()) is not None
    return isinstance(value, PurePath)
