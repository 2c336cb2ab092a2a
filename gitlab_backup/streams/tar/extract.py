"""An archive that may be hostile into an empty directory: whatever it says, nothing happens outside of that.

No path is ever handed to the system: each name is opened relative to the directory above it, and no symbolic link is
followed, not even one that was there before. What an archive may not ask for at all (`check_name`) ends the extraction.
As in GNU tar, a later member of the same name takes the place of the earlier one, and a directory that is there
already only gets its attributes; but nothing takes the place of a directory.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from attrs import frozen

from ...errors import StreamError
from ..files import remedy
from ..system import system
from .check import check_name
from .descent import Descent, identity, names_of
from .failures import failure, refusal
from .fill import NewFile, Writers
from .reader import Kind, Member, TarReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cancel import Cancellation

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_TELL: Final = 1 << 20
"""Bytes between two reports of progress."""


@frozen(kw_only=True)
class ExtractLimits:
    """How much an archive may make. What makes more is corrupt."""

    members: int | None = None
    data_bytes: int | None = None
    """Bytes of data in files, holes not counted."""
    space: int | None = None
    """Bytes on disk: of data, and `MEMBER_SPACE` for each member. For an archive that nobody knows the size of."""
    space_reason: str = "more than there is room for"
    """What is said of a member that takes more."""


MEMBER_SPACE: Final = 4096
"""What a member takes on disk besides its data, about: the rest of its last block, and its inode."""


@frozen(kw_only=True)
class Extracted:
    """What came out of an archive."""

    members: int
    data_bytes: int
    """Bytes of data in files, holes not counted."""
    has_root: bool
    """Whether the archive said what the directory itself is like (`./`)."""
    not_given: int
    """Members whose owner or group could not be restored, because only root may."""


def extract(
    source: BinaryIO,
    root: int,
    *,
    cancel: Cancellation,
    limits: ExtractLimits | None = None,
    progress: Callable[[int, int], None] = lambda _read, _written: None,
    jobs: int = 1,
) -> Extracted:
    """Build the tree of the archive `source` in `root`: an open, empty directory that nobody else writes to.

    Modes are exact whatever the umask, times to the nanosecond. Owners and groups are the archived numbers for root;
    others give what they may. Symbolic links are data: kept wherever they lead, and never followed. Holes stay holes.
    The attributes of `root` itself come last. Nothing is synced. `progress` takes the bytes of the archive read, and
    of files written, since its last call. `jobs` is how many threads may be at work, with the one that calls.

    Raises `CorruptStreamError` for an archive that is damaged, hostile or beyond `limits`, `StreamError` where
    something cannot be made, `CancelledError`, and what `source` raises.
    """
    return _Extraction(TarReader(source), root, cancel, limits or ExtractLimits(), progress, jobs=jobs).run()


class _Extraction:
    def __init__(
        self,
        reader: TarReader,
        root: int,
        cancel: Cancellation,
        limits: ExtractLimits,
        progress: Callable[[int, int], None],
        *,
        jobs: int,
    ) -> None:
        self._reader = reader
        self._cancel = cancel
        self._limits = limits
        self._progress = progress
        self._is_root = os.geteuid() == 0
        self._groups = {os.getegid(), *os.getgroups()}
        self._user_ids: dict[tuple[bytes, int], int] = {}
        self._group_ids: dict[tuple[bytes, int], int] = {}
        self._writers = Writers(jobs)
        self._tree = Descent(root)
        self._members = self._bytes = self._not_given = 0
        self._told = (0, 0)
        self._has_root = False

    def run(self) -> Extracted:
        try:
            for member in self._reader:
                self._cancel.check()
                self._writers.check()
                self._admit(member)
                try:
                    self._add(member)
                except (OSError, OverflowError) as error:
                    raise failure(member, error) from error
                self._tell(_TELL)
            self._writers.finish()
            self._unwind()
        finally:
            self._writers.close()
            self._tree.close()
        self._tell(0)
        return Extracted(
            members=self._members, data_bytes=self._bytes, has_root=self._has_root, not_given=self._not_given
        )

    def _unwind(self) -> None:
        try:
            self._tree.unwind()
        except (OSError, OverflowError) as error:
            hint = remedy(error) if isinstance(error, OSError) else None
            raise StreamError(f"a directory of the archive cannot be completed: {error}", hint=hint) from error

    def _tell(self, step: int) -> None:
        read, written = self._reader.offset, self._bytes
        if read - self._told[0] >= step:
            self._progress(read - self._told[0], written - self._told[1])
            self._told = read, written

    # What is let in

    def _admit(self, member: Member) -> None:
        if reason := check_name(member):
            raise refusal(member, f"must not be extracted: {reason}")
        self._members += 1
        if member.kind is Kind.FILE:
            extents = member.extents
            self._bytes += member.size if extents is None else sum(length for _, length in extents)
        if self._limits.members is not None and self._members > self._limits.members:
            raise refusal(member, f"is one more than the {self._limits.members} that there should be")
        if self._limits.data_bytes is not None and self._bytes > self._limits.data_bytes:
            raise refusal(member, f"makes more than the {self._limits.data_bytes} bytes that there should be")
        if self._limits.space is not None and self._bytes + self._members * MEMBER_SPACE > self._limits.space:
            raise refusal(member, f"makes more than {self._limits.space} bytes, {self._limits.space_reason}")

    # Members

    def _add(self, member: Member) -> None:
        if member.kind is Kind.DIRECTORY:
            self._directory(member)
            return
        above, _, name = member.name.rstrip(b"/").rpartition(b"/")
        if name in (b"", b"."):
            raise refusal(member, "must not be extracted: it takes the place of the directory itself")
        parent = self._tree.go(above)
        if member.kind is Kind.FILE:
            self._file(parent, name, member)
        elif member.kind is Kind.HARD_LINK:
            self._hard_link(parent, name, member)
        elif member.kind is Kind.SYMBOLIC_LINK:
            self._make(parent, name, lambda: system().symlink(member.link, name, dir_fd=parent))
            os.chown(name, *self._owner(member), dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=(self._tree.now, member.mtime_ns), dir_fd=parent, follow_symlinks=False)
        else:
            self._make(parent, name, lambda: system().mkfifo(name, 0o600, dir_fd=parent))
            owner = self._owner(member)
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            NewFile(member, fd, owner, self._tree.now).finish()

    def _directory(self, member: Member) -> None:
        path = member.name.rstrip(b"/")
        self._has_root |= not names_of(path)
        level = self._tree.make(path)
        level.mode, level.owner, level.mtime_ns = member.mode, self._owner(member), member.mtime_ns

    def _file(self, parent: int, name: bytes, member: Member) -> None:
        calls = system()
        owner = self._owner(member)
        try:
            fd = calls.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            calls.unlink(name, dir_fd=parent)
            fd = calls.open(name, _CREATE, 0o600, dir_fd=parent)
        file = self._writers.take(NewFile(member, fd, owner, self._tree.now))
        try:
            for position, data in self._reader.blocks():
                file.write(position, data)
                if position + len(data) < member.size:
                    self._cancel.check()
                    self._tell(_TELL)
        except BaseException:
            file.close()
            raise
        file.finish()

    def _hard_link(self, parent: int, name: bytes, member: Member) -> None:
        """Link to what this archive has made: there is nothing else in the tree. A link to a symbolic link is one."""
        fd, first = self._tree.open_parent(member.link)
        try:
            status = os.stat(first, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                raise refusal(member, "must not be extracted: it is a hard link to a directory")
            self._make(
                parent,
                name,
                lambda: system().link(first, name, source_fd=fd, dir_fd=parent),
                same_as=status,
            )
        finally:
            os.close(fd)

    def _make(
        self, parent: int, name: bytes, make: Callable[[], None], *, same_as: os.stat_result | None = None
    ) -> None:
        """Make something, in the place of what is there already, unless that is the same file."""
        try:
            make()
        except FileExistsError:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if same_as is None or identity(there) != identity(same_as):
                system().unlink(name, dir_fd=parent)
                make()

    def _owner(self, member: Member) -> tuple[int, int]:
        uid, gid = self._user_id(member), self._group_id(member)
        if self._is_root:
            return uid, gid
        if gid not in self._groups:
            gid = -1
        self._not_given += uid != os.geteuid() or gid == -1
        return -1, gid

    # By name, as GNU tar does it: on another machine, the same user may have another number.

    def _user_id(self, member: Member) -> int:
        key = member.uname, member.uid
        if key not in self._user_ids:
            with suppress(KeyError, ValueError):
                self._user_ids[key] = pwd.getpwnam(os.fsdecode(member.uname)).pw_uid
        return self._user_ids.setdefault(key, member.uid)

    def _group_id(self, member: Member) -> int:
        key = member.gname, member.gid
        if key not in self._group_ids:
            with suppress(KeyError, ValueError):
                self._group_ids[key] = grp.getgrnam(os.fsdecode(member.gname)).gr_gid
        return self._group_ids.setdefault(key, member.gid)
