"""A second name for a file that never changes again."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from ..errors import StreamError

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
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise StreamError(f"{target} cannot be made a link to {source}: {error.strerror}") from error
    return True
