"""A directory tree on its way into an archive.

The tree may be alive. Every directory is opened relative to the one above it and no symbolic link is followed, so
nothing that is swapped during the walk leads out of the tree. What changes while it is read is written again at the end
of the archive, where it counts: a later entry wins when tar extracts.

Extended attributes and ACLs are not archived, as in the archives of GitLab's own tools. Nanosecond times are exact with
GNU tar; Python's tarfile rounds them to a float, and bsdtar misreads fractions of seconds before 1970.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field

from . import header
from .access import OTHER_KIND, open_at, open_directory, parent_of
from .entry import EntryWriter
from .report import Notes, TarReport
from .writer import TarWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ..cancel import Cancellation
    from ..sink import Sink

_OPEN_DIRECTORIES = 100
"""How many directories above the present one are kept open. Those further up are opened again on the way back."""
_OPEN_LINKS = 500_000
"""How many files with several names are remembered at a time, in about 300 bytes each."""
_UNSETTLED = 1000
"""How many changing files are kept for another try."""
_FIRST_PAUSE = 0.2
_NEXT_PAUSE = 4
"""Seconds before the first repetition, and how many times longer each further pause is."""

_FILE, _DIRECTORY, _OTHER = b"f", b"d", b"o"
_TYPEFLAGS = {
    stat.S_IFLNK: header.SYMBOLIC_LINK,
    stat.S_IFIFO: header.FIFO,
    stat.S_IFCHR: header.CHARACTER,
    stat.S_IFBLK: header.BLOCK_DEVICE,
}


def write_tree(
    root: int,
    sink: Sink,
    *,
    cancel: Cancellation,
    exclude: Collection[bytes] = (),
    exclude_everywhere: Collection[bytes] = (),
    tries: int = 3,
    pause: Callable[[float], None] | None = None,
) -> TarReport:
    """Write the tree below the open directory `root` into `sink` as `./…`, sorted by name, and finish `sink`.

    `exclude` are names at the top, `exclude_everywhere` at any depth. A file that changes while it is read is
    read up to `tries` times, the first time in its turn and then after the walk, with growing pauses: `pause`
    takes seconds, and by default waits until `cancel` is requested. Raises `CancelledError`, what `sink`
    raises, and `OSError` where `root` itself cannot be read; `sink` is aborted then.
    """
    writer, notes = TarWriter(sink), Notes()
    tree = _Tree(
        entry=EntryWriter(writer, cancel, notes),
        notes=notes,
        root=root,
        writer=writer,
        cancel=cancel,
        exclude=frozenset(exclude),
        everywhere=frozenset(exclude_everywhere),
        tries=tries,
        pause=pause,
    )
    try:
        tree.walk()
        tree.settle()
        writer.finish()
    except BaseException:
        writer.abort()
        raise
    return notes.report(members=writer.members, bytes_=writer.bytes)


@define(slots=True, eq=False)
class _Frame:
    """A directory on the way from the root to the present one."""

    path: bytes
    fd: int | None
    header: bytes
    identity: tuple[int, int]
    entries: Iterator[bytes]


@define(eq=False)
class _Unsettled:
    """A file that changed while it was read, and what must be written again with it."""

    path: bytes
    before: os.stat_result
    after: os.stat_result
    parent: tuple[bytes, bytes]
    links: list[bytes] = field(factory=list)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _version(status: os.stat_result) -> tuple[int, int, int]:
    # The status change time too: the other one can be set back.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@define(eq=False, kw_only=True)
class _Tree:
    root: int
    writer: TarWriter
    cancel: Cancellation
    exclude: frozenset[bytes]
    everywhere: frozenset[bytes]
    tries: int
    pause: Callable[[float], None] | None
    entry: EntryWriter
    notes: Notes
    _stack: list[_Frame] = field(factory=list)
    _links: dict[tuple[int, int], tuple[bytes, int, tuple[int, int]]] = field(factory=dict)
    """The first name of a file, how many names are still to come, and the size and time that it had."""
    _unsettled: dict[tuple[int, int], _Unsettled] = field(factory=dict)

    # The walk

    def walk(self) -> None:
        try:
            self._enter(open_directory(self.root, b"./"), b"./", self.exclude)
            while self._stack:
                frame = self._stack[-1]
                entry = next(frame.entries, None)
                if entry is None:
                    self._leave()
                    continue
                self.cancel.check()
                name, _, kind = entry.partition(b"\0")
                if frame.fd is not None:
                    self._add(frame.fd, name, frame.path + name, kind)
        finally:
            for frame in self._stack:
                if frame.fd is not None:
                    os.close(frame.fd)

    def _enter(self, fd: int, path: bytes, exclude: frozenset[bytes] = frozenset()) -> None:
        entries: list[bytes] = []
        try:
            status = os.fstat(fd)
            head = self.entry.header(path, header.DIRECTORY, status)
            self.writer.add(head)
            without = exclude | self.everywhere
            try:
                with os.scandir(fd) as listing:
                    for entry in listing:
                        name = os.fsencode(entry.name)
                        if name in without:
                            continue
                        # A zero byte sorts before all that a name can have, so names and kinds sort as names do.
                        if entry.is_file(follow_symlinks=False):
                            entries.append(name + b"\0" + _FILE)
                        elif entry.is_dir(follow_symlinks=False):
                            entries.append(name + b"\0" + _DIRECTORY)
                        else:
                            entries.append(name + b"\0" + _OTHER)
            except OSError as error:
                if path == b"./":
                    raise
                self.notes.note_unreadable(path, error.strerror or str(error))
        except BaseException:
            os.close(fd)
            raise
        entries.sort()
        self._stack.append(_Frame(path, fd, head, _identity(status), iter(entries)))
        if len(self._stack) > _OPEN_DIRECTORIES:
            far = self._stack[-_OPEN_DIRECTORIES - 1]
            if far.fd is not None:
                os.close(far.fd)
                far.fd = None

    def _leave(self) -> None:
        done = self._stack.pop()
        if done.fd is not None:
            os.close(done.fd)
        if not self._stack or self._stack[-1].fd is not None:
            return
        frame = self._stack[-1]
        try:
            fd = open_directory(self.root, frame.path)
        except OSError:
            fd = -1
        if fd >= 0 and _identity(os.fstat(fd)) == frame.identity:
            frame.fd = fd
            return
        if fd >= 0:
            os.close(fd)
        if next(frame.entries, None) is not None:
            self.notes.note_unreadable(frame.path, "it was moved while it was read; the rest of it is missing")
        frame.entries = iter(())

    # Members

    def _add(self, parent: int, name: bytes, path: bytes, kind: bytes) -> None:
        ways = {_FILE: self._file, _DIRECTORY: self._directory, _OTHER: self._other}
        try:
            for _ in range(self.tries):
                other = ways[kind](parent, name, path)
                if other is None:
                    return
                kind = other  # it was replaced by something else meanwhile
        except FileNotFoundError:
            self.notes.vanished += 1
        except OSError as error:
            self.notes.note_unreadable(path, error.strerror or str(error))
        else:
            self.notes.note_unreadable(path, "it was replaced again and again")

    def _directory(self, parent: int, name: bytes, path: bytes) -> bytes | None:
        try:
            fd = open_at(parent, name, os.O_DIRECTORY)
        except PermissionError as error:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                return _OTHER
            self.writer.add(self.entry.header(path + b"/", header.DIRECTORY, status))
            self.notes.note_unreadable(path, error.strerror or str(error))
            return None
        except OSError as error:
            if error.errno in OTHER_KIND:
                return _OTHER
            raise
        self._enter(fd, path + b"/")
        return None

    def _other(self, parent: int, name: bytes, path: bytes) -> bytes | None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            return _FILE
        if kind == stat.S_IFDIR:
            return _DIRECTORY
        if kind == stat.S_IFSOCK:
            self.notes.note_socket(path)
            return None
        if kind not in _TYPEFLAGS:
            self.notes.note_unreadable(path, "tar has no such type of file")
            return None
        link, device = b"", (0, 0)
        if kind == stat.S_IFLNK:
            try:
                link = os.readlink(name, dir_fd=parent)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return _OTHER
                raise
        elif kind != stat.S_IFIFO:
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        if not self._linked(path, status):
            self.writer.add(self.entry.header(path, _TYPEFLAGS[kind], status, link=link, device=device))
            self._remember(path, status)
        return None

    def _file(self, parent: int, name: bytes, path: bytes) -> bytes | None:
        try:
            fd = open_at(parent, name)
        except OSError as error:
            if error.errno in OTHER_KIND:
                return _OTHER
            raise
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return _OTHER
            if before.st_nlink > 1 and self._linked(path, before):
                return None
            after = self.entry.file(fd, path, before)
        finally:
            os.close(fd)
        if after.st_nlink > 1:
            self._remember(path, after)
        if _version(before) != _version(after):
            self._unsettle(_Unsettled(path, before, after, (self._stack[-1].path, self._stack[-1].header)))
        return None

    # Files with several names

    def _linked(self, path: bytes, status: os.stat_result) -> bool:
        """Write a hard link to a name that is in the archive already, if there is one for this file as it is now."""
        identity = _identity(status)
        known = self._links.get(identity) if status.st_nlink > 1 else None
        if known is None:
            return False
        first, left, was = known
        unsettled = self._unsettled.get(identity)
        if was != (status.st_size, status.st_mtime_ns):
            # It changed since, or its number was given to another file. Both are right after: a copy now, and, if they
            # are one file then, both names once more at the end.
            if unsettled is None:
                parent = (self._stack[-1].path, self._stack[-1].header)
                self._unsettle(_Unsettled(first, status, status, parent, [path]))
            else:
                unsettled.links.append(path)
            return False
        self.writer.add(self.entry.header(path, header.HARD_LINK, status, link=first))
        if unsettled is not None:
            unsettled.links.append(path)
        if left > 1:
            self._links[identity] = first, left - 1, was
        else:
            del self._links[identity]
        return True

    def _remember(self, path: bytes, status: os.stat_result) -> None:
        if status.st_nlink <= 1:
            return
        if len(self._links) >= _OPEN_LINKS:
            self.notes.unlinked += 1
            return
        version = status.st_size, status.st_mtime_ns
        self._links[_identity(status)] = path, status.st_nlink - 1, version

    # Files that change

    def _unsettle(self, item: _Unsettled) -> None:
        if len(self._unsettled) < _UNSETTLED:
            self._unsettled.setdefault(_identity(item.after), item)
        else:
            self.notes.note_changed(item.path, item.before, item.after)

    def settle(self) -> None:
        """Write again what changed while it was read, until it held still or was tried often enough."""
        parents: dict[bytes, bytes] = {}
        seconds = _FIRST_PAUSE
        for _ in range(1, self.tries):
            if not self._unsettled:
                break
            self._wait(seconds)
            seconds *= _NEXT_PAUSE
            for identity, item in list(self._unsettled.items()):
                self.cancel.check()
                if self._again(identity, item):
                    del self._unsettled[identity]
                parents[item.parent[0]] = item.parent[1]
        for item in self._unsettled.values():
            self.notes.note_changed(item.path, item.before, item.after)
        # Writing into a directory changes its time; its own entry, once more, sets that right.
        for _, head in sorted(parents.items()):
            self.writer.add(head)

    def _again(self, identity: tuple[int, int], item: _Unsettled) -> bool:
        try:
            with parent_of(self.root, item.path) as (parent, name):
                fd = open_at(parent, name)
            try:
                before = os.fstat(fd)
                if not stat.S_ISREG(before.st_mode) or _identity(before) != identity:
                    return self._gone(item)
                after = self.entry.file(fd, item.path, before)
            finally:
                os.close(fd)
        except OSError:
            return self._gone(item)
        item.before, item.after = before, after
        for link in item.links:
            with suppress(OSError), parent_of(self.root, link) as (parent, name):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if _identity(status) == identity:
                    self.writer.add(self.entry.header(link, header.HARD_LINK, status, link=item.path))
        settled = _version(item.before) == _version(item.after)
        self.notes.rewritten += settled
        return settled

    def _gone(self, item: _Unsettled) -> bool:
        # Removed, or replaced by another file. If only its directory entry changed, what was read is whole.
        self.notes.vanished += 1
        if _version(item.before)[:2] != _version(item.after)[:2]:
            self.notes.note_changed(item.path, item.before, item.after)
        return True

    def _wait(self, seconds: float) -> None:
        if self.pause is not None:
            self.pause(seconds)
        else:
            stop = threading.Event()
            with self.cancel.calling(stop.set):
                stop.wait(seconds)
        self.cancel.check()
