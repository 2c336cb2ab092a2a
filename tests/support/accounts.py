"""The system users that tests run programs and own files as."""

from __future__ import annotations

import os
import pwd
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from attrs import frozen

from gitlab_backup.instance.identity import account_of, acting_as

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@contextmanager
def closed_directory(mode: int) -> Iterator[Path]:
    """Give a directory of that mode to a thread that has no more rights to it than the mode says, even as root."""
    with tempfile.TemporaryDirectory(prefix="gitlab-backup-test-") as parent:
        # Other directories of tests are out of reach for others, with all that is in them.
        Path(parent).chmod(0o755)
        directory = Path(parent) / "closed"
        directory.mkdir()
        directory.chmod(mode)
        somebody = acting_as(account_of(unprivileged().name)) if is_root() else nullcontext()
        try:
            with somebody:
                yield directory
        finally:
            directory.chmod(0o700)
