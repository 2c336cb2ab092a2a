"""What no archive may ask of whoever extracts it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from .reader import Kind

if TYPE_CHECKING:
    from .reader import Member


_SETGID = stat.S_ISGID | stat.S_IXGRP


def check_name(member: Member) -> str | None:  # noqa: PLR0911 - a reason each
    """Return why a member must not be extracted into a directory, else None.

    A symbolic link may lead anywhere: it is data, and whoever extracts must not follow it.
    """
    if problem := _outside(member.name):
        return f"its name {problem}"
    if member.kind is Kind.HARD_LINK and (problem := _outside(member.link)):
        return f"the target of the hard link {problem}"
    if member.kind is Kind.SYMBOLIC_LINK and not member.link:
        return "the target of the symbolic link is empty"
    if member.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
        return "it is a device node"
    if member.kind is Kind.FILE and member.mode & stat.S_ISUID:
        return "it would run as its owner (setuid)"
    # Without the right to execute, the bit means something else, and harmless.
    if member.kind is Kind.FILE and member.mode & _SETGID == _SETGID:
        return "it would run as its group (setgid)"
    return None


def _outside(name: bytes) -> str | None:
    if not name:
        return "is empty"
    if name.startswith(b"/"):
        return "is absolute"
    if b".." in name.split(b"/"):
        return "leads upwards"
    return None
