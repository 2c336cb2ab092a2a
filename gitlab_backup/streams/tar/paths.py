"""Files and directories from several places on their way into one archive, under their whole names.

For what is small and seldom changes, such as configuration. Unlike in a tree, symbolic links are followed: what they
lead to is needed, wherever it lies, and a link to it would not be.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field

from . import header
from .entry import EntryWriter
from .report import Notes, TarReport
from .versions import identity, version
from .writer import TarWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from ..cancel import Cancellation
    from ..sink import Sink

# Not blocking, so that a named pipe does not hold us up.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def write_paths(paths: Iterable[Path], sink: Sink, *, cancel: Cancellation, exclude: Collection[str] = ()) -> TarReport:
    """Write files, and directories with all below them, into `sink` as `./<path from the root>`, and finish `sink`.

    The paths are absolute; one that does not exist counts as vanished. `exclude` are names at the top of the
    directories. The root of the archive is private (0700), so that what it is extracted into becomes so. Raises
    `CancelledError` and what `sink` raises; `sink` is aborted then.
    """
    writer, notes = TarWriter(sink), Notes()
    gathering = _Gathering(writer, EntryWriter(writer, cancel, notes), notes, cancel)
    try:
        now = time.time_ns()
        writer.add(header.encode(b"./", header.DIRECTORY, mode=0o700, uid=os.geteuid(), gid=os.getegid(), mtime_ns=now))
        for path in paths:
            gathering.add(path, frozenset(exclude), ())
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    return notes.report(members=writer.members, bytes_=writer.bytes)


@define(eq=False)
class _Gathering:
    writer: TarWriter
    entry: EntryWriter
    notes: Notes
    cancel: Cancellation
    _written: set[Path] = field(factory=set)

    def add(self, path: Path, exclude: frozenset[str], above: tuple[tuple[int, int], ...]) -> None:
        """Add a file or a directory, once. `above` are the directories that the way to it led through."""
        self.cancel.check()
        name = _name(path)
        if path in self._written:
            return
        try:
            fd = os.open(path, _FLAGS)
        except FileNotFoundError:
            if path.is_symlink():
                self.notes.note_unreadable(name, "it is a symbolic link that leads nowhere")
            else:
                self.notes.vanished += 1
            return
        except OSError as error:
            if error.errno == errno.ENXIO:
                self.notes.note_socket(name)
            else:
                self.notes.note_unreadable(name, error.strerror or str(error))
            return
        try:
            self._add(fd, path, exclude, above)
        except OSError as error:
            self.notes.note_unreadable(name, error.strerror or str(error))
        finally:
            os.close(fd)

    def _add(self, fd: int, path: Path, exclude: frozenset[str], above: tuple[tuple[int, int], ...]) -> None:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            here = identity(status)
            if here in above:
                self.notes.note_unreadable(_name(path), "it leads back to a directory that it is in")
                return
            names = sorted(os.listdir(fd))
            self._lead_to(path)
            self._directory(path, status)
            for name in names:
                if name not in exclude:
                    self.add(path / name, frozenset(), (*above, here))
        elif stat.S_ISREG(status.st_mode):
            self._lead_to(path)
            self._written.add(path)
            after = self.entry.file(fd, _name(path), status)
            if version(status) != version(after):
                self.notes.note_changed(_name(path), status, after)
        else:
            self.notes.note_unreadable(_name(path), "it is neither a file nor a directory")

    def _lead_to(self, path: Path) -> None:
        """Add the directories above that are not there yet."""
        for parent in reversed(path.parents[:-1]):
            with suppress(FileNotFoundError):
                self._directory(parent, parent.stat())

    def _directory(self, path: Path, status: os.stat_result) -> None:
        if path not in self._written:
            self._written.add(path)
            self.writer.add(self.entry.header(_name(path) + b"/", header.DIRECTORY, status))


def _name(path: Path) -> bytes:
    return b"." + os.fsencode(path)
