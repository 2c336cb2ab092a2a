"""A directory tree on its way into an archive.

The tree may be alive. Every directory is opened relative to the one above it and no symbolic link is followed, so
nothing that is swapped during the walk leads out of the tree. What changes while it is read (`changing`), and what was
moved behind the back of the walk (`moved`), is written at the end of the archive, where it counts: a later entry wins
when tar extracts.

What no restore accepts is not archived: device nodes, and what makes a file run as its owner or group (setuid, setgid).
Extended attributes and ACLs are not archived, as in the archives of GitLab's own tools. Nanosecond times are exact with
GNU tar; Python's tarfile rounds them to a float, and bsdtar misreads fractions of seconds before 1970.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from attrs import define, field

from . import header
from .access import OTHER_KIND, open_at, open_directory, parent_of
from .changing import Changing
from .clone import clone as clone_of
from .entry import EntryWriter
from .links import Links
from .moved import Moved
from .report import Notes, TarReport
from .versions import certain_status, content_version, identity, version
from .writer import TarWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from ..cancel import Cancellation
    from ..sink import Sink

_OPEN_DIRECTORIES = 100
"""How many directories above the present one are kept open. Those further up are opened again on the way back."""
_FILE, _DIRECTORY, _OTHER = b"f", b"d", b"o"
_WAYS = {stat.S_IFREG: _FILE, stat.S_IFDIR: _DIRECTORY}
_TYPEFLAGS = {
    stat.S_IFLNK: header.SYMBOLIC_LINK,
    stat.S_IFIFO: header.FIFO,
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
    clone: Callable[[int, int], int | None] = clone_of,
) -> TarReport:
    """Write the tree below the open directory `root` into `sink` as `./…`, sorted by name, and finish `sink`.

    `exclude` are names at the top, `exclude_everywhere` at any depth. A file that changes while it is read is
    read up to `tries` times, the first time in its turn and then after the walk, with growing pauses: `pause`
    takes seconds, and by default waits until `cancel` is requested. Where the file system can `clone`, the second
    time is the last. Raises `CancelledError`, what `sink` raises, and `OSError` where `root` itself cannot be read;
    `sink` is aborted then.
    """
    writer, notes = TarWriter(sink), Notes()
    entry = EntryWriter(writer, cancel, notes)
    tree = _Tree(
        root=root,
        writer=writer,
        cancel=cancel,
        exclude=frozenset(exclude),
        everywhere=frozenset(exclude_everywhere),
        tries=tries,
        entry=entry,
        notes=notes,
        changing=Changing(
            root=root, writer=writer, entry=entry, notes=notes, cancel=cancel, tries=tries, pause=pause, clone=clone
        ),
        moved=Moved(root=root, exclude=exclude, everywhere=exclude_everywhere, notes=notes),
    )
    try:
        tree.walk()
        tree.look_again()
        tree.changing.settle()
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
    identity: tuple[int, int]
    entries: Iterator[bytes]


@define(eq=False, kw_only=True)
class _Tree:
    root: int
    writer: TarWriter
    cancel: Cancellation
    exclude: frozenset[bytes]
    everywhere: frozenset[bytes]
    tries: int
    entry: EntryWriter
    notes: Notes
    changing: Changing
    moved: Moved
    _stack: list[_Frame] = field(factory=list)
    _links: Links = field(factory=Links)
    _late: bool = False
    """Whether the walk is over, and names may be written that are in the archive already."""

    # The walk

    def walk(self) -> None:
        self._enter(open_directory(self.root, b"./"), b"./", self.exclude)
        self._walk()

    def look_again(self) -> None:
        """Add what was moved during the walk to where that had been already."""
        self._late = True
        for batch in self.moved.batches():
            for path, is_directory in batch.items():
                self.cancel.check()
                try:
                    with parent_of(self.root, path) as (parent, name):
                        self._add_late(parent, name, path, _DIRECTORY if is_directory else _OTHER)
                except OSError:  # moved or removed since, and not for the first time
                    self.notes.vanished += 1

    def _add_late(self, parent: int, name: bytes, path: bytes, kind: bytes) -> None:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if names := self._links.names(status):
            # One of its names may be this one, or all may have been written before it changed.
            self.changing.add([*names, path] if path not in names else names, status, status)
            return
        self._add(parent, name, path, kind)
        self._walk()
        self.changing.touched(path[: -len(name)], parent)

    def _walk(self) -> None:
        try:
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
            self.moved.entered(path, status)
            self.writer.add(self.entry.header(path, header.DIRECTORY, status))
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
        self._stack.append(_Frame(path, fd, identity(status), iter(entries)))
        if len(self._stack) > _OPEN_DIRECTORIES:
            far = self._stack[-_OPEN_DIRECTORIES - 1]
            if far.fd is not None:
                os.close(far.fd)
                far.fd = None

    def _leave(self) -> None:
        done = self._stack.pop()
        if done.fd is not None:
            self.moved.left(os.fstat(done.fd))
            os.close(done.fd)
        if not self._stack or self._stack[-1].fd is not None:
            return
        frame = self._stack[-1]
        try:
            fd = open_directory(self.root, frame.path)
        except OSError:
            fd = -1
        if fd >= 0 and identity(os.fstat(fd)) == frame.identity:
            frame.fd = fd
            return
        self.moved.left(None)
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
        if kind in _WAYS:
            return _WAYS[kind]
        if kind not in _TYPEFLAGS:
            self._leave_out(path, kind)
            return None
        link = b""
        if kind == stat.S_IFLNK:
            try:
                link = os.readlink(name, dir_fd=parent)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return _OTHER
                raise
        if not self._linked(path, status):
            self.writer.add(self.entry.header(path, _TYPEFLAGS[kind], status, link=link))
            self._remember(path, status)
        return None

    def _leave_out(self, path: bytes, kind: int) -> None:
        if kind == stat.S_IFSOCK:
            self.notes.note_socket(path)
        elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
            self.notes.note_device(path)
        else:
            self.notes.note_unreadable(path, "tar has no such type of file")

    def _file(self, parent: int, name: bytes, path: bytes) -> bytes | None:
        try:
            fd = open_at(parent, name)
        except OSError as error:
            if error.errno in OTHER_KIND:
                return _OTHER
            raise
        try:
            before = certain_status(fd)
            if not stat.S_ISREG(before.st_mode):
                return _OTHER
            if before.st_nlink > 1 and self._linked(path, before):
                return None
            after = self.entry.file(fd, path, before)
        finally:
            os.close(fd)
        self._remember(path, after)
        if version(before) != version(after):
            self.changing.add([path], before, after)
        return None

    # Files with several names

    def _linked(self, path: bytes, status: os.stat_result) -> bool:
        """Write a hard link to a name that is in the archive already, if there is one for this file as it is now."""
        known = self._links.get(status)
        if known is None or path in known.names:
            return False
        if self._late or known.was != content_version(status):
            # It changed since, or its number was given to another file, or another file may have been written under its
            # first name. What is right after all of these: a copy now and, if it is one file then, all names once more.
            self.changing.add([*known.names, path], status, status)
            return False
        self.writer.add(self.entry.header(path, header.HARD_LINK, status, link=known.names[0]))
        self.changing.linked(path, known.names[0], status)
        self._links.link(path, status)
        return True

    def _remember(self, path: bytes, status: os.stat_result) -> None:
        if status.st_nlink > 1 and not self._links.content(path, status):
            self.notes.unlinked += 1
