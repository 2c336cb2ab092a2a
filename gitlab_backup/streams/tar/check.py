"""What no archive may ask of whoever extracts it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from .reader import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .reader import Member


_SETGID = stat.S_ISGID | stat.S_IXGRP
_NAME_LENGTH = 255
"""Bytes of one name (NAME_MAX in linux/limits.h)."""
_DEPTH = 2048
"""Directories in each other. A path that is deeper is longer than the system takes (PATH_MAX): GitLab has none."""
_LINKS = 1_000_000
"""How many symbolic links are remembered."""
_LARGEST_ID = 2**32 - 2
"""The next one means `no user` to chown(2)."""


class Passage:
    """Knows the symbolic links of an archive, and so the members whose path leads through one."""

    def __init__(self) -> None:
        self._links: set[bytes] = set()

    def check(self, member: Member) -> str | None:
        """Return why the next member must not be extracted, else None."""
        reason = check_name(member)
        path = _plain(member.name)
        if reason is None and self._links:
            paths = (path, _plain(member.link)) if member.kind is Kind.HARD_LINK else (path,)
            if any(above in self._links for each in paths for above in _above(each)):
                reason = "its path leads through a symbolic link"
        if member.kind is not Kind.SYMBOLIC_LINK:
            self._links.discard(path)
        elif len(self._links) < _LINKS:
            self._links.add(path)
        return reason


def check_name(member: Member) -> str | None:  # noqa: PLR0911 - a reason each
    """Return why a member must not be extracted into a directory, else None.

    A symbolic link may lead anywhere: it is data, and whoever extracts must not follow it.
    """
    if problem := _outside(member.name):
        return f"its name {problem}"
    if member.kind is Kind.HARD_LINK and (problem := _outside(member.link)):
        return f"the target of the hard link {problem}"
    if not 0 <= member.uid <= _LARGEST_ID or not 0 <= member.gid <= _LARGEST_ID:
        return "its owner is no user's number"
    if member.kind is Kind.SYMBOLIC_LINK and not member.link:
        return "the target of the symbolic link is empty"
    if member.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
        return "it is a device node"
    if member.kind is Kind.FILE and member.mode != harmless(member.mode):
        return "it would run as its owner or its group (setuid, setgid)"
    return None


def harmless(mode: int) -> int:
    """Return the mode of a file without what makes it run as its owner or its group.

    Where the group may not execute, the bit of the latter means something else, and stays.
    """
    return mode & ~(stat.S_ISUID | (stat.S_ISGID if mode & _SETGID == _SETGID else 0))


def _outside(name: bytes) -> str | None:
    if not name:
        return "is empty"
    if name.startswith(b"/"):
        return "is absolute"
    names = name.split(b"/")
    if b".." in names:
        return "leads upwards"
    if len(names) > _DEPTH:
        return f"lies more than {_DEPTH} directories deep"
    if any(len(each) > _NAME_LENGTH for each in names):
        return f"has a part that is longer than {_NAME_LENGTH} bytes"
    return None


def _plain(path: bytes) -> bytes:
    return b"/".join(name for name in path.split(b"/") if name not in (b"", b"."))


def _above(path: bytes) -> Iterator[bytes]:
    while (cut := path.rfind(b"/")) > 0:
        path = path[:cut]
        yield path
