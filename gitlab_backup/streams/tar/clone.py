"""A copy of a file at one moment, where the file system can make one without copying (Btrfs, XFS, …)."""

from __future__ import annotations

import os
from fcntl import ioctl

_FICLONE = 0x40049409
"""From `linux/fs.h`; see ioctl_ficlone(2)."""


def clone(directory: int, source: int) -> int | None:
    """Return a new, open file with the content that the open file `source` has now, or None where that cannot be.

    It shares its blocks with `source`, and lies on the file system of the open `directory`, without a name: nobody sees
    it, and it is gone when it is closed. None where the file system cannot clone, or may not be written to.
    """
    try:
        copy = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    except OSError:
        return None
    try:
        ioctl(copy, _FICLONE, source)
    except OSError:
        os.close(copy)
        return None
    return copy
