"""The system calls that handle files: the one seam at which they are made to fail, recorded, or measured.

What is written into a backup, read from the instance into an archive, and extracted or put in place by a restore of
files goes through `system()`. What git, pg_dump and other programs do does not.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_RENAME_NOREPLACE: Final = 1
"""From `linux/fs.h`; see renameat2(2)."""
_AT_FDCWD: Final = -100
_SYNCFS_REPORTS: Final = (5, 8)
"""The first Linux whose syncfs(2) returns the errors of writing back; see its manual page, section VERSIONS."""


class System:
    """What this library has the kernel do to files. Methods raise `OSError`."""

    def open(self, path: str | bytes | Path, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
        """Return a new descriptor."""
        return os.open(path, flags, mode, dir_fd=dir_fd)

    def mkdir(self, path: str | bytes | Path, mode: int, *, dir_fd: int | None = None) -> None:
        """Make a directory. Its mode is that and the umask's."""
        os.mkdir(path, mode, dir_fd=dir_fd)

    def mkfifo(self, path: bytes, mode: int, *, dir_fd: int | None = None) -> None:
        """Make a named pipe, likewise."""
        os.mkfifo(path, mode, dir_fd=dir_fd)

    def symlink(self, target: bytes, path: bytes, *, dir_fd: int | None = None) -> None:
        """Make a symbolic link to `target`."""
        os.symlink(target, path, dir_fd=dir_fd)

    def link(
        self,
        source: str | bytes | Path,
        path: str | bytes | Path,
        *,
        source_fd: int | None = None,
        dir_fd: int | None = None,
    ) -> None:
        """Give a file, or a symbolic link itself, a second name."""
        os.link(source, path, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Return how many bytes were written: perhaps not all."""
        return os.write(fd, data)

    def read(self, fd: int, size: int) -> bytes:
        """Return the next bytes of a file, at most `size`."""
        return os.read(fd, size)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Return bytes of a file from `offset` on, at most `size`."""
        return os.pread(fd, size, offset)

    def chmod(self, fd: int, mode: int) -> None:
        """Set the mode of an open file, whatever the umask."""
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:
        """Bring one file or directory to disk."""
        os.fsync(fd)

    def syncfs(self, fd: int) -> None:
        """Bring the file system of `fd` to disk. ENOSYS where errors would go unnoticed, or there is no such call."""
        release = re.match(r"(\d+)\.(\d+)", os.uname().release)
        function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if function is None or release is None or (int(release[1]), int(release[2])) < _SYNCFS_REPORTS:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        _check(function(fd))

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing what is there."""
        source.rename(target)

    def rename_new(self, source: Path, target: Path) -> None:
        """Rename, replacing nothing. ENOSYS or EINVAL where the kernel or the file system has no such call."""
        function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if function is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        _check(function(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE))

    def move(self, name: str, source_fd: int, new_name: str, target_fd: int) -> None:
        """Move an entry of one open directory into another."""
        os.rename(name, new_name, src_dir_fd=source_fd, dst_dir_fd=target_fd)

    def unlink(self, path: str | bytes | Path, *, dir_fd: int | None = None) -> None:
        """Remove a file, or a symbolic link itself."""
        os.unlink(path, dir_fd=dir_fd)

    def rmdir(self, path: str | Path, *, dir_fd: int | None = None) -> None:
        """Remove an empty directory."""
        os.rmdir(path, dir_fd=dir_fd)

    def statvfs(self, path: Path) -> os.statvfs_result:
        """Ask about the file system that holds `path`."""
        return os.statvfs(path)


class _Seam:
    """Where the calls of this process go. Not a context variable: those do not reach into threads that exist."""

    system: System = System()


@contextmanager
def using(calls: System) -> Iterator[None]:
    """Send these system calls, in all threads, to `calls` while the block runs."""
    before, _Seam.system = _Seam.system, calls
    try:
        yield
    finally:
        _Seam.system = before


def system() -> System:
    """Return where system calls go, for what else handles files of the instance or of a backup."""
    return _Seam.system


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
