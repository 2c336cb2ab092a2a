"""Files that change while they are read, and are written again until they hold still."""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from . import header
from .access import OTHER_KIND, open_at, parent_of
from .versions import certain_status, content_version, identity, version

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..cancel import Cancellation
    from .entry import EntryWriter
    from .report import Notes
    from .writer import TarWriter

_AT_A_TIME = 1000
"""How many changing files are kept for another try."""
_FIRST_PAUSE = 0.2
_NEXT_PAUSE = 4
"""Seconds before the first repetition, and how many times longer each further pause is."""


_Change: TypeAlias = "tuple[os.stat_result, os.stat_result]"
"""What a file was before it was read, and after."""


@define(eq=False)
class _Changing:
    """A file that changed while it was read, or between its names."""

    names: list[bytes]
    """Those in the archive."""
    identity: tuple[int, int]
    torn: dict[bytes, _Change] = field(factory=dict)
    """Those under which there is something in the archive that it may never have been."""


@define(eq=False, kw_only=True)
class Changing:
    """The files that did not hold still."""

    root: int
    writer: TarWriter
    entry: EntryWriter
    notes: Notes
    cancel: Cancellation
    tries: int
    pause: Callable[[float], None] | None
    clone: Callable[[int, int], int | None]
    _files: dict[tuple[int, int], _Changing] = field(factory=dict)
    _touched: dict[bytes, bytes] = field(factory=dict)
    """The entry of each directory in which something was written again."""

    def add(self, names: Sequence[bytes], before: os.stat_result, after: os.stat_result) -> None:
        """Have a file written again, under all these names, all of which are in the archive."""
        torn = dict.fromkeys(names, (before, after)) if version(before) != version(after) else {}
        file = self._files.get(identity(after))
        if file is None and len(self._files) >= _AT_A_TIME:
            for name in names:
                self.notes.note_changed(name, before, after)
            return
        if file is None:
            file = self._files[identity(after)] = _Changing([], identity(after))
        file.names.extend(name for name in names if name not in file.names)
        file.torn.update(torn)

    def linked(self, path: bytes, to: bytes, status: os.stat_result) -> None:
        """Say that a further name of a file, whether it changes or not, is in the archive: a hard link."""
        file = self._files.get(identity(status))
        if file is None:
            return
        if path not in file.names:
            file.names.append(path)
        if to in file.torn:
            file.torn[path] = file.torn[to]

    def touched(self, path: bytes, directory: int) -> None:
        """Say that something was written into a directory that the archive had left.

        That changes its time; its own entry, once more at the end, sets it right.
        """
        self._touched[path] = self.entry.header(path, header.DIRECTORY, os.fstat(directory))

    def settle(self) -> None:
        """Write again what changed while it was read, until it held still or was tried often enough."""
        seconds = _FIRST_PAUSE
        for _ in range(1, self.tries):
            if not self._files:
                break
            self._wait(seconds)
            seconds *= _NEXT_PAUSE
            files, self._files = self._files, {}
            for file in files.values():
                self.cancel.check()
                self._again(file)
        for file in self._files.values():
            for path, change in file.torn.items():
                self.notes.note_changed(path, *change)
        for _, head in sorted(self._touched.items()):
            self.writer.add(head)

    def _again(self, file: _Changing) -> None:
        held: list[bytes] = []
        change: _Change | None = None
        for path in file.names:
            try:
                with parent_of(self.root, path) as (parent, name):
                    fd = open_at(parent, name)
                    try:
                        status = certain_status(fd)
                        if not stat.S_ISREG(status.st_mode):
                            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                        if identity(status) != file.identity:  # another file has taken its name
                            self._settled([path], *self._write(fd, path, status))
                        elif held:
                            self.writer.add(self.entry.header(path, header.HARD_LINK, status, link=held[0]))
                            held.append(path)
                        else:
                            change = self._write(fd, path, status)
                            held.append(path)
                        self.touched(path[: -len(name)], parent)
                    finally:
                        os.close(fd)
            except OSError as error:
                self._lost(path, file, error)
        if change is not None:
            self._settled(held, *change)

    def _write(self, fd: int, path: bytes, before: os.stat_result) -> _Change:
        """Write a file, from a clone if there can be one. Return its status before and after it was read."""
        copy = self.clone(self.root, fd)
        if copy is None:
            return before, self.entry.file(fd, path, before)
        try:
            now = os.fstat(fd)
            self.entry.file(copy, path, os.fstat(copy), described=now)
        finally:
            os.close(copy)
        return now, now

    def _settled(self, names: list[bytes], before: os.stat_result, after: os.stat_result) -> None:
        if version(before) == version(after):
            self.notes.rewritten += 1
        else:
            self.add(names, before, after)

    def _lost(self, path: bytes, file: _Changing, error: OSError) -> None:
        # It was moved or removed.
        if isinstance(error, FileNotFoundError) or error.errno in OTHER_KIND:
            self.notes.vanished += 1
            change = file.torn.get(path)
            if change is not None and _rewritten(*change):
                self.notes.note_changed(path, *change)
        else:
            self.notes.note_unreadable(path, f"{error.strerror}; it had changed while it was read before")

    def _wait(self, seconds: float) -> None:
        if self.pause is not None:
            self.pause(seconds)
        else:
            stop = threading.Event()
            with self.cancel.calling(stop.set):
                stop.wait(seconds)
        self.cancel.check()


def _rewritten(before: os.stat_result, after: os.stat_result) -> bool:
    """Return whether more happened to a file than that a name of it came or went, which also changes its status."""
    return content_version(before) != content_version(after) or before.st_nlink == after.st_nlink
