"""Removing what variants have made, so that it does not burden the ones that come next."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Aside:
    """Where trees go in place of being removed."""

    directory: Path | None = None
    names = count()


@contextmanager
def putting_aside(directory: Path) -> Iterator[None]:
    """While the block runs, have `remove` put trees aside: their files are emptied, and go at the end of the block.

    ext4 without a journal does not give the inode of a removed file to a new one for some minutes, and looks at all of
    these for each new one (`recently_deleted` in Linux's `fs/ext4/ialloc.c`): a variant that makes many files would be
    slow because the one before it had made many, which were removed.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    _Aside.directory = directory
    try:
        yield
    finally:
        _Aside.directory = None
        shutil.rmtree(directory)


def remove(path: Path | None) -> None:
    """Remove a file or a whole directory, where there is one."""
    if path is None:
        return
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif _Aside.directory is None:
        shutil.rmtree(path)
    else:
        _empty(path)
        path.rename(_Aside.directory / str(next(_Aside.names)))


def _empty(tree: Path) -> None:
    for place, _, names in os.walk(tree):
        for name in names:
            file = os.path.join(place, name)  # noqa: PTH118 - a Path for each of many is slow
            status = os.lstat(file)
            # One with other names is not removed by this, and not to be emptied.
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size:
                os.truncate(file, 0)
