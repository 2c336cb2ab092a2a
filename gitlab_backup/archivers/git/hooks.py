"""The custom hooks of a repository, as a plain tar archive with the members `custom_hooks/…`."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from ...streams.tar import header
from ...streams.tar.access import open_at
from ...streams.tar.entry import EntryWriter
from ...streams.tar.report import Notes, display
from ...streams.tar.writer import TarWriter
from .quick import HOOKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...streams.cancel import Cancellation
    from ...streams.sink import Sink


def write_hooks(
    repository: str, create: Callable[[], Sink], *, cancel: Cancellation, warn: Callable[[str], None]
) -> bool:
    """Archive the directory `custom_hooks` of `repository`, where it has one, into the sink that `create` returns.

    Symbolic links are kept as they are, and modes and owners, as far as tar knows them. What is no file, directory or
    link is left out, and told to `warn`. Return whether there was anything. The sink is finished, or aborted.

    Raises `OSError` where something cannot be read.
    """
    directory = os.open(repository, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.stat(HOOKS, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        writer = TarWriter(create())
        try:
            notes = Notes()
            _Walk(EntryWriter(writer, cancel, notes), warn).add(directory, HOOKS.encode(), HOOKS.encode())
            for unreadable in notes.unreadable.values():
                warn(f"{unreadable.name} cannot be read: {unreadable.reason}")
            for name in notes.stripped:
                warn(f"{name} would run as its owner or its group, and is kept without that (setuid, setgid)")
            writer.finish()
        except BaseException:
            writer.abort()
            raise
        return True
    finally:
        os.close(directory)


@frozen
class _Walk:
    entry: EntryWriter
    warn: Callable[[str], None]

    def add(self, parent: int, name: bytes, path: bytes) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            link = os.readlink(name, dir_fd=parent)
            self.entry.writer.add(self.entry.header(path, header.SYMBOLIC_LINK, status, link=link))
        elif stat.S_ISDIR(status.st_mode):
            self._directory(parent, name, path)
        elif stat.S_ISREG(status.st_mode):
            self._file(parent, name, path)
        else:
            self.warn(f"{display(path)} is neither a file nor a directory nor a link, and is left out")

    def _directory(self, parent: int, name: bytes, path: bytes) -> None:
        fd = open_at(parent, name, os.O_DIRECTORY)
        try:
            self.entry.writer.add(self.entry.header(path + b"/", header.DIRECTORY, os.fstat(fd)))
            for below in sorted(os.fsencode(below) for below in os.listdir(fd)):  # noqa: PTH208 - of a descriptor
                with suppress(FileNotFoundError):  # removed since it was listed
                    self.add(fd, below, path + b"/" + below)
        finally:
            os.close(fd)

    def _file(self, parent: int, name: bytes, path: bytes) -> None:
        fd = open_at(parent, name)
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                self.entry.file(fd, path, status)
        finally:
            os.close(fd)
