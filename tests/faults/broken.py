"""File systems that break at a chosen call, or remember what was asked of them."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Final

from gitlab_backup.streams.system import System

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAKES: Final = ("create", "mkdir", "mkfifo", "symlink", "link")
"""The calls that make something new."""
CHANGES: Final = (*MAKES, "write", "fsync", "syncfs", "rename", "rename_new", "unlink", "rmdir")
"""The calls that can find a full or broken disk."""
READS: Final = ("read", "pread")


class Watched(System):
    """Tells of each call before it is made: its name, and the path or descriptor that it is about."""

    def __init__(self, watch: Callable[[str, object], None]) -> None:
        self._watch = watch

    def open(self, path: str | bytes | Path, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
        """See `System`."""
        if flags & os.O_CREAT:
            self._watch("create", path)
        return super().open(path, flags, mode, dir_fd=dir_fd)

    def mkdir(self, path: str | bytes | Path, mode: int, *, dir_fd: int | None = None) -> None:
        """See `System`."""
        self._watch("mkdir", path)
        super().mkdir(path, mode, dir_fd=dir_fd)

    def mkfifo(self, path: bytes, mode: int, *, dir_fd: int | None = None) -> None:
        """See `System`."""
        self._watch("mkfifo", path)
        super().mkfifo(path, mode, dir_fd=dir_fd)

    def symlink(self, target: bytes, path: bytes, *, dir_fd: int | None = None) -> None:
        """See `System`."""
        self._watch("symlink", path)
        super().symlink(target, path, dir_fd=dir_fd)

    def link(
        self,
        source: str | bytes | Path,
        path: str | bytes | Path,
        *,
        source_fd: int | None = None,
        dir_fd: int | None = None,
    ) -> None:
        """See `System`."""
        self._watch("link", path)
        super().link(source, path, source_fd=source_fd, dir_fd=dir_fd)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """See `System`."""
        self._watch("write", fd)
        return super().write(fd, data)

    def read(self, fd: int, size: int) -> bytes:
        """See `System`."""
        self._watch("read", fd)
        return super().read(fd, size)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """See `System`."""
        self._watch("pread", fd)
        return super().pread(fd, size, offset)

    def fsync(self, fd: int) -> None:
        """See `System`."""
        self._watch("fsync", fd)
        super().fsync(fd)

    def syncfs(self, fd: int) -> None:
        """See `System`."""
        self._watch("syncfs", fd)
        super().syncfs(fd)

    def rename(self, source: Path, target: Path) -> None:
        """See `System`."""
        self._watch("rename", target)
        super().rename(source, target)

    def rename_new(self, source: Path, target: Path) -> None:
        """See `System`."""
        self._watch("rename_new", target)
        super().rename_new(source, target)

    def move(self, name: str, source_fd: int, new_name: str, target_fd: int) -> None:
        """See `System`."""
        self._watch("move", source_fd)
        super().move(name, source_fd, new_name, target_fd)

    def unlink(self, path: str | bytes | Path, *, dir_fd: int | None = None) -> None:
        """See `System`."""
        self._watch("unlink", path)
        super().unlink(path, dir_fd=dir_fd)

    def rmdir(self, path: str | Path, *, dir_fd: int | None = None) -> None:
        """See `System`."""
        self._watch("rmdir", path)
        super().rmdir(path, dir_fd=dir_fd)


class Failing(Watched):
    """Fails one call, or all from one on, of certain kinds; counts them."""

    def __init__(
        self, number: int, *, kinds: tuple[str, ...], at: int | None = None, about: str = "", on: bool = False
    ) -> None:
        """Fail the call `at`, of those about paths with `about` in them; with `on`, all after it, too."""
        super().__init__(self._count)
        self.calls = 0
        self.failed = ""
        """What was failed."""
        self._number, self._kinds, self._at, self._about, self._on = number, kinds, at, about, on
        self._lock = threading.Lock()

    def _count(self, call: str, what: object) -> None:
        if call not in self._kinds or self._about not in path_of(what):
            return
        with self._lock:
            self.calls += 1
            now = self.calls == self._at or (self._on and self._at is not None and self.calls > self._at)
        if now:
            self.failed = self.failed or f"{call} {path_of(what)}"
            raise OSError(self._number, os.strerror(self._number))


def path_of(what: object) -> str:
    """Return the path of what a call is about."""
    return os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fsdecode(what)  # type: ignore[arg-type]  # noqa: PTH115


ERRORS: Final = {name: getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO")}
