"""What a killed process left half-written: files and folders named `.NAME.PID.tmp`, as `files.atomic` names them."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path


def sweep(path: Path) -> None:
    """Delete what killed processes left beside `path` that was to become it; called before this one writes it.

    What bears this process's own number was left by an earlier one: in a container each gets the same.
    """
    if not path.parent.is_dir():
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.tmp")
    for left in list(path.parent.iterdir()):
        match = ours.fullmatch(left.name)
        if match and (int(match[1]) == os.getpid() or not alive(match[1])):
            remove(left)


def remove(left: Path) -> None:
    """Delete a file, or a folder with all in it; a link is never followed."""
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        with suppress(OSError):  # another user's, in a folder of many
            left.unlink()


def alive(pid: str) -> bool:
    """Whether the process that a temporary file is named after still runs (asked on POSIX alone)."""
    if os.name != "posix" or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
