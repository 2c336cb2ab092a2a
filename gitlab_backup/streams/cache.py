"""The page cache of the machine, which should be as useful to the database after a backup as it was before.

What is read or written once and for all is not left in the page cache: but what was there already, somebody uses.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

WINDOW: Final = 32 << 20
"""Bytes after which what was written is handed to the disk."""


def is_cached(fd: int, *offsets: int) -> bool:
    """Tell whether the page cache has a file at all of these places. True where that cannot be told.

    A read that may not wait (preadv2(2), RWF_NOWAIT, Linux 4.14) is refused where it would have to ask the disk.
    """
    try:
        for offset in offsets:
            os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def forget(fd: int) -> None:
    """Let the page cache drop a file. What is not on disk yet is begun to be written there, and stays until it is."""
    with suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
