"""System users: who they are, and acting as one of them while a connection is made."""

from __future__ import annotations

import errno
import os
import platform
import pwd
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..streams.accounts import Account, set_group_ids, set_groups, set_user_ids, threads_can_change

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def account_of(name: str) -> Account:
    """Return the system user `name` with all its groups. Raises `ConfigurationError` where there is none."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigurationError(
            f"there is no system user {name!r} on this machine",
            hint="It should be the user that GitLab runs as. Correct `gitlab.user` in gitlab.yml.",
        ) from None
    return _account(entry)


def account_owning(path: Path) -> Account:
    """Return the system user that owns `path`. Raises `ConfigurationError` where that cannot be told."""
    try:
        uid = path.stat().st_uid
    except OSError as error:
        raise ConfigurationError(
            f"cannot tell the owner of {path}: {error.strerror}",
            hint="Check that it exists, and that this user may see it.",
        ) from error
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        raise ConfigurationError(
            f"{path} belongs to the user id {uid}, which no system user has",
            hint=f"Create the user, or give {path} to the one that should own it.",
        ) from None


def account_to_become(name: str | None) -> Account | None:
    """Return the system user `name` where this process has to become it, and can.

    None where no name is given, where this thread acts as that user already, and where it is not root: then
    it can only be itself. Raises `ConfigurationError` where the user does not exist.
    """
    if name is None or os.geteuid() != 0:
        return None
    account = account_of(name)
    return None if account.uid == os.geteuid() else account


def _account(entry: pwd.struct_passwd) -> Account:
    groups = tuple(sorted(os.getgrouplist(entry.pw_name, entry.pw_gid)))
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)


@contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Give this thread, and no other, the effective user, group and groups of `account` while the block runs.

    It is there for `connect(2)` on a Unix socket: the kernel tells the other side who called it, and
    PostgreSQL's peer authentication goes by that. Keep the block that short: files are opened as `account`
    too, and a thread that is started within stays `account`.

    Raises `ConfigurationError` on a machine other than Linux on x86_64 or aarch64, and without the right to
    change users.
    """
    before = (os.geteuid(), os.getegid(), tuple(os.getgroups()))
    if not threads_can_change():
        raise ConfigurationError(
            f"cannot act as the system user {account.name!r} on {sys.platform} {platform.machine()}",
            hint=f"Run this as {account.name}.",
        )
    try:
        try:
            set_groups(account.groups)
            set_group_ids(effective=account.gid)
            set_user_ids(effective=account.uid)  # last: it takes root's capabilities, which the others need
            _check(account.uid, account.gid, account.groups)
        except OSError as error:
            raise ConfigurationError(
                f"this process may not act as the system user {account.name!r}: {error.strerror}",
                hint=f"Run it as root, or as {account.name}.",
            ) from error
        yield
    finally:
        set_user_ids(effective=before[0])  # first: it brings root's capabilities back
        set_group_ids(effective=before[1])
        if tuple(os.getgroups()) != before[2]:
            set_groups(before[2])
        _check(*before)


def _check(uid: int, gid: int, groups: tuple[int, ...]) -> None:
    if (os.geteuid(), os.getegid(), sorted(os.getgroups())) != (uid, gid, sorted(groups)):
        raise OSError(errno.EPERM, f"the effective user is {os.geteuid()}:{os.getegid()}, not {uid}:{gid}")
