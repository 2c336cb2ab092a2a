"""Opening what is inside a tree, relative to a directory and never through a symbolic link."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not blocking, so that a pipe that took a file's place cannot hold us up.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK

OTHER_KIND = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
"""The errors of opening something that is no file, or no directory."""


def open_at(parent: int, name: bytes, flags: int = 0) -> int:
    """Open `name` in the directory `parent` for reading, leaving its access time alone where that is allowed."""
    try:
        return os.open(name, _FLAGS | flags | os.O_NOATIME, dir_fd=parent)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
    return os.open(name, _FLAGS | flags, dir_fd=parent)  # only the owner of a file may leave the time alone


def open_directory(root: int, path: bytes) -> int:
    """Open the directory `path` (`./a/b/`) below the open directory `root`.

    One name after another, because a whole path can be longer than the system takes, and lead through a link.
    """
    fd = open_at(root, b".", os.O_DIRECTORY)
    for name in path.split(b"/")[1:-1]:
        try:
            below = open_at(fd, name, os.O_DIRECTORY)
        finally:
            os.close(fd)
        fd = below
    return fd


@contextmanager
def parent_of(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Open the directory that `path` (`./a/b`) is in; hand out that and the name in it."""
    above, _, name = path.rpartition(b"/")
    fd = open_directory(root, above + b"/")
    try:
        yield fd, name
    finally:
        os.close(fd)
