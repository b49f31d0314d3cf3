"""Whether a file's lock is held, asked without waiting and without keeping it."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_locked(path: Path) -> bool:
    """Whether any process holds a file's lock; False where there is no such file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> int | None:
    """The process that holds a file's lock, as the kernel's list of locks has it."""
    number = path.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and any(each.endswith(f":{number}") for each in fields):
            return int(fields[4])
    return None
