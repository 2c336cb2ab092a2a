"""The system users that tests run programs and own files as."""

from __future__ import annotations

import os
import pwd
from typing import TypedDict

from attrs import frozen


class RunAs(TypedDict, total=False):
    """The arguments of `subprocess` that start a program as another user."""

    user: int
    group: int
    extra_groups: list[int]


@frozen
class Account:
    """A system user."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> Account:
        """Return the system user `name`. Raises `KeyError` where there is none."""
        entry = pwd.getpwnam(name)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @classmethod
    def current(cls) -> Account:
        """Return the user that this process runs as."""
        entry = pwd.getpwuid(os.geteuid())
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    def run_as(self) -> RunAs:
        """Return the arguments for `subprocess` to run as this user; none where this process does already."""
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def is_root() -> bool:
    """Tell whether this process may act as anybody."""
    return os.geteuid() == 0


def unprivileged() -> Account:
    """Return a user that PostgreSQL agrees to run as: this one, or for root `postgres`, else `nobody`."""
    if not is_root():
        return Account.current()
    try:
        return Account.named("postgres")
    except KeyError:
        return Account.named("nobody")
