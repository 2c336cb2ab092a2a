"""What is said where a member of an archive cannot be extracted."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ...errors import CorruptStreamError, StreamError
from ..files import remedy
from .report import display

if TYPE_CHECKING:
    from .reader import Member


def refusal(member: Member, problem: str) -> CorruptStreamError:
    """Return the error of a member that nobody must extract."""
    return CorruptStreamError(
        f"the member {display(member.name)[:200]!r} of the archive, at byte {member.offset}, {problem}",
        hint="Nothing was replaced. Look at the archive with `tar -tv`, or use another backup.",
    )


def failure(member: Member, error: OSError | OverflowError) -> StreamError:
    """Return the error of a member that the system did not let be made."""
    if isinstance(error, OverflowError):
        return refusal(member, "has a time that cannot be")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return refusal(member, "must not be extracted: its path leads through what is not a directory")
    if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
        return refusal(member, "must not be extracted: it takes the place of a directory")
    name = display(member.name)[:200]
    return StreamError(f"the member {name!r} of the archive cannot be extracted: {error.strerror}", hint=remedy(error))
