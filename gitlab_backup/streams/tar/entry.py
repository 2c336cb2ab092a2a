"""One entry of a tree on its way into an archive: its header, and a file's contents."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import define, field

from ..cache import forget, is_cached
from ..system import system
from . import header
from .check import harmless
from .sparse import data_pieces, map_of
from .writer import CHUNK

if TYPE_CHECKING:
    from ..cancel import Cancellation
    from .report import Notes
    from .writer import TarWriter


@define(eq=False)
class EntryWriter:
    """Writes headers and contents of what it is handed."""

    writer: TarWriter
    cancel: Cancellation
    notes: Notes
    _users: dict[int, bytes] = field(factory=dict)
    _groups: dict[int, bytes] = field(factory=dict)

    def header(
        self,
        path: bytes,
        typeflag: bytes,
        status: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        records: tuple[tuple[bytes, bytes], ...] = (),
    ) -> bytes:
        """Return the header of an entry of that status; `size` is that of the data that will follow.

        A file loses what makes it run as its owner or its group, which is noted: no archive with that is restored.
        """
        uid, gid = status.st_uid, status.st_gid
        uname, gname = self._users.get(uid), self._groups.get(gid)
        if uname is None:
            uname = self._users[uid] = _user_name(uid)
        mode = status.st_mode & 0o7777
        if typeflag == header.REGULAR and harmless(mode) != mode:
            mode = harmless(mode)
            self.notes.note_stripped(path)
        if gname is None:
            gname = self._groups[gid] = _group_name(gid)
        return header.encode(
            path,
            typeflag,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=status.st_mtime_ns,
            size=size,
            link=link,
            uname=uname,
            gname=gname,
            records=records,
        )

    def file(
        self, fd: int, path: bytes, before: os.stat_result, *, described: os.stat_result | None = None
    ) -> os.stat_result:
        """Write an open file, and return its status after it was read.

        `described` is the status that the entry shows, if that is not the file's own. Raises `OSError` where nothing
        was written, because it could not be read. A large one that stops being readable is filled up with zeros and
        noted.
        """
        size = before.st_size
        cached = is_cached(fd, *((0, size // 2, size - 1) if size > CHUNK else (0,) if size else ()))
        try:
            if size > CHUNK:
                return self._large(fd, path, before, described or before)
            return self._small(fd, path, size, described)
        finally:
            if not cached:
                forget(fd)

    def _small(self, fd: int, path: bytes, size: int, described: os.stat_result | None) -> os.stat_result:
        # Read before its header is written, so that the header is right whatever happens.
        read = system().read
        body = read(fd, size + 1)
        while len(body) < size and (more := read(fd, size - len(body))):
            body += more
        after = os.fstat(fd)
        body = body[:size]
        self.writer.add(self.header(path, header.REGULAR, described or after, size=len(body)), body)
        return after

    def _large(self, fd: int, path: bytes, before: os.stat_result, described: os.stat_result) -> os.stat_result:
        size = before.st_size
        with suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        pieces = data_pieces(fd, before)
        if pieces is None:
            pieces = [(0, size)]
            self.writer.add(self.header(path, header.REGULAR, described, size=size))
        else:
            sparse_map, records = map_of(pieces, size)
            stored = len(sparse_map) + sum(length for _, length in pieces)
            self.writer.add(self.header(path, header.REGULAR, described, size=stored, records=records))
            self.writer.data(sparse_map)
        broken: OSError | None = None
        for start, length in pieces:
            position, end = start, start + length
            while position < end:
                self.cancel.check()
                data = b""
                if broken is None:
                    try:
                        data = system().pread(fd, min(CHUNK, end - position), position)
                    except OSError as error:
                        broken = error
                if not data:  # shorter now, or unreadable: the size that the header says must be kept
                    data = bytes(min(CHUNK, end - position))
                self.writer.data(data)
                position += len(data)
        self.writer.end_data()
        if broken is not None:
            self.notes.note_unreadable(path, f"{broken.strerror}; the rest of it is zeros")
            return before
        return os.fstat(fd)


def _user_name(uid: int) -> bytes:
    import pwd

    try:
        return os.fsencode(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return b""


def _group_name(gid: int) -> bytes:
    import grp

    try:
        return os.fsencode(grp.getgrgid(gid).gr_name)
    except KeyError:
        return b""
