"""A second name for a file that never changes again."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from .files import failure
from .system import system

if TYPE_CHECKING:
    from pathlib import Path

_CANNOT: Final = frozenset(
    {
        errno.EXDEV,  # another file system
        errno.EMLINK,  # as many names as the file system allows
        errno.EPERM,  # one without hard links; or the file is another user's (fs.protected_hardlinks)
        errno.EACCES,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
    }
)


def link(source: Path | str, target: Path | str) -> bool:
    """Give the file `source` the second name `target`; return False where only a copy could do that.

    Raises `StreamError` where there is no such file, or the name cannot be made.
    """
    try:
        system().link(source, target)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise failure(target, f"cannot be made a link to {source}", error) from error
    return True
