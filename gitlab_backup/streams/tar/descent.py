"""The way through a tree that is being built: from its root, one name after another, never through a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Final

from attrs import define

from ..system import system

_DIRECTORY: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORIES: Final = 64
"""How many directories above the present one are kept open. Those further up are opened again on the way back."""
_IMPLIED_MODE: Final = 0o755
"""The mode of a directory that the archive leads through and does not have."""


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from all others."""
    return status.st_dev, status.st_ino


def names_of(path: bytes) -> list[bytes]:
    """Return the names that a path is made of."""
    return [name for name in path.split(b"/") if name not in (b"", b".")]


@define(eq=False)
class Level:
    """A directory on the way from the root to where things are made, and the attributes that it gets when we leave."""

    name: bytes
    fd: int | None
    identity: tuple[int, int]
    mode: int | None = None
    owner: tuple[int, int] = (-1, -1)
    mtime_ns: int | None = None


class Descent:
    """Knows the present directory below `root`, an open one, and how to come to the next.

    A directory gets its attributes when it is left, because what is made in it changes them.
    """

    def __init__(self, root: int) -> None:
        # Not `root` itself: that one is not to be closed here.
        self._stack = [Level(b"", os.dup(root), identity(os.fstat(root)))]
        self._here: bytes | None = None
        self.now = time.time_ns()
        """The access time of all that is made."""

    def close(self) -> None:
        """Close what is open, wherever that is."""
        for level in self._stack:
            if level.fd is not None:
                os.close(level.fd)

    def unwind(self) -> None:
        """Go back up to the root, and give that its attributes, too."""
        while len(self._stack) > 1:
            self._leave()
        self._settle(self._stack[0])

    def go(self, path: bytes) -> int:
        """Make the directory `path` the present one, and return its descriptor, good until the next call."""
        if path != self._here:
            self._go(names_of(path))
            self._here = path
        return _open(self._stack[-1])

    def make(self, path: bytes) -> Level:
        """Go into the directory `path`, which may exist, to give it attributes. The root is a path without names."""
        names = names_of(path)
        if not names:
            self.go(path)
            return self._stack[-1]
        self._go(names[:-1])
        parent, name = _open(self._stack[-1]), names[-1]
        try:
            system().mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                system().unlink(name, dir_fd=parent)
                system().mkdir(name, 0o700, dir_fd=parent)
        fd, status = _open_directory(parent, name)
        self._push(Level(name, fd, identity(status)))
        self._here = path
        return self._stack[-1]

    def open_parent(self, path: bytes) -> tuple[int, bytes]:
        """Return a new descriptor of the directory that `path` is in, wherever we are, and the name in it."""
        *above, name = names_of(path) or [b"."]
        fd = os.dup(_open(self._stack[0]))
        for step in above:
            try:
                below = os.open(step, os.O_PATH | _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd, name

    def _go(self, names: list[bytes]) -> None:
        stack, same = self._stack, 0
        while same < min(len(names), len(stack) - 1) and stack[same + 1].name == names[same]:
            same += 1
        self._here = None
        while len(stack) - 1 > same:
            self._leave()
        for name in names[same:]:
            self._enter(name)

    def _enter(self, name: bytes) -> None:
        """Go into a directory that the archive has made before, or has not."""
        parent = _open(self._stack[-1])
        try:
            fd, status = _open_directory(parent, name)
        except FileNotFoundError:
            system().mkdir(name, 0o700, dir_fd=parent)
            fd, status = _open_directory(parent, name)
            self._push(Level(name, fd, identity(status), mode=_IMPLIED_MODE))
            return
        # Finished before: what is done in it now must not be seen on it.
        self._push(Level(name, fd, identity(status), stat.S_IMODE(status.st_mode), mtime_ns=status.st_mtime_ns))

    def _push(self, level: Level) -> None:
        self._stack.append(level)
        if len(self._stack) > _OPEN_DIRECTORIES + 1:  # the root stays open
            far = self._stack[-_OPEN_DIRECTORIES]
            if far.fd is not None:
                os.close(far.fd)
                far.fd = None

    def _leave(self) -> None:
        level, above = self._stack[-1], self._stack[-2]
        fd = _open(level)
        if above.fd is None:
            above.fd = os.open("..", os.O_RDONLY | _DIRECTORY, dir_fd=fd)
            if identity(os.fstat(above.fd)) != above.identity:
                raise OSError(errno.ESTALE, "a directory was moved while it was filled")
        self._settle(level)
        self._stack.pop()
        os.close(fd)

    def _settle(self, level: Level) -> None:
        fd = _open(level)
        if level.owner != (-1, -1):
            os.fchown(fd, *level.owner)
        if level.mode is not None:
            os.fchmod(fd, level.mode)
        if level.mtime_ns is not None:
            os.utime(fd, ns=(self.now, level.mtime_ns))


def _open(level: Level) -> int:
    if level.fd is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return level.fd


def _open_directory(parent: int, name: bytes) -> tuple[int, os.stat_result]:
    """Open a directory to make things in it, and return its status as it was before."""
    try:
        fd = os.open(name, os.O_RDONLY | _DIRECTORY, dir_fd=parent)
    except PermissionError:
        pass
    else:
        status = os.fstat(fd)
        if not os.geteuid() or status.st_mode & stat.S_IRWXU == stat.S_IRWXU:
            return fd, status
        os.close(fd)
    handle = os.open(name, os.O_PATH | _DIRECTORY, dir_fd=parent)
    try:
        status = os.fstat(handle)
        # By way of its descriptor, as fchmod(2) does not take one of this sort.
        os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(status.st_mode) | stat.S_IRWXU)  # noqa: PTH101
        return os.open(".", os.O_RDONLY | _DIRECTORY, dir_fd=handle), status
    finally:
        os.close(handle)
