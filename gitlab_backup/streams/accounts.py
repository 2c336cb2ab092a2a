"""System users, and becoming one: for a thread, not for the process.

The functions of the C library, and with them those of `os`, change every thread of the process, as POSIX asks
(nptl(7)): another thread would lose its right to read in the middle of its work. To the kernel these ids belong to
a thread, and the bare system calls change only those of their caller.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from typing import Final

from attrs import frozen

# The numbers of setgroups, setresuid and setresgid. Linux: arch/x86/entry/syscalls/syscall_64.tbl, and
# include/uapi/asm-generic/unistd.h for aarch64.
_SYSTEM_CALLS: Final = {"x86_64": (116, 117, 119), "aarch64": (159, 147, 149)}
_LIBRARY: Final = ctypes.CDLL(None, use_errno=True)
_KEEP: Final = -1


@frozen
class Account:
    """A system user to run a program as: a name for messages, ids, and its supplementary groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def threads_can_change() -> bool:
    """Tell whether a thread can become another user here: on Linux, on x86_64 and aarch64."""
    return _numbers() is not None


def become(account: Account) -> None:
    """Give the calling thread all ids of `account` for good, so that a program it starts has no others.

    Raises `OSError` without the right to do it. The thread should end soon.
    """
    set_groups(account.groups)
    set_group_ids(account.gid, account.gid, account.gid)
    set_user_ids(account.uid, account.uid, account.uid)  # last: it takes root's capabilities, which the others need
    if (os.getresuid(), os.getresgid(), sorted(os.getgroups())) != (
        (account.uid,) * 3,
        (account.gid,) * 3,
        sorted(account.groups),
    ):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def set_groups(groups: tuple[int, ...]) -> None:
    """Set the supplementary groups of the calling thread. Raises `OSError`."""
    _call(0, ctypes.c_long(len(groups)), (ctypes.c_uint32 * len(groups))(*groups))


def set_user_ids(real: int = _KEEP, effective: int = _KEEP, saved: int = _KEEP) -> None:
    """Set the user ids of the calling thread; those that are not given stay. Raises `OSError`."""
    _call(1, *(ctypes.c_long(value) for value in (real, effective, saved)))


def set_group_ids(real: int = _KEEP, effective: int = _KEEP, saved: int = _KEEP) -> None:
    """Set the group ids of the calling thread; those that are not given stay. Raises `OSError`."""
    _call(2, *(ctypes.c_long(value) for value in (real, effective, saved)))


def _numbers() -> tuple[int, int, int] | None:
    return _SYSTEM_CALLS.get(platform.machine()) if sys.platform == "linux" else None


def _call(which: int, *arguments: object) -> None:
    numbers = _numbers()
    if numbers is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _LIBRARY.syscall(ctypes.c_long(numbers[which]), *arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
