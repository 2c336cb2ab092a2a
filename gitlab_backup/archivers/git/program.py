"""Running git on repositories that are not ours: as their owner, and without what their configuration would start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from ...instance.identity import account_owning
from ...streams.process import Program, capture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...instance import Instance
    from ...streams.accounts import Account
    from ...streams.cancel import Cancellation

_ENVIRONMENT: Final = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # Refs below refs/replace/ are kept like all others; what they replace is what is packed.
    "GIT_NO_REPLACE_OBJECTS": "1",
    # A partial clone that misses an object would fetch it, by whatever program its configuration names.
    # GIT_NO_LAZY_FETCH (git 2.44) is not known to older versions; no version fetches where no protocol is allowed.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}

_CONFIGURATION: Final = {
    # As root, for repositories of others; honoured here since git 2.35.3, and not in their own configuration.
    "safe.directory": "*",
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    # Gitaly sets the same: the refs of an object pool are not to be looked at (doc/object_pools.md).
    "core.alternateRefsCommand": "exit 0 #",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # A window of ten objects (git's default) that may be as large as core.bigFileThreshold, 512 MiB each, is more
    # memory than a backup should take.
    "pack.windowMemory": "100m",
}


@frozen(kw_only=True)
class Git:
    """The git program, and how it is run."""

    path: str
    version: str
    _environment: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, instance: Instance, *, jobs: int, cancel: Cancellation) -> Git:
        """Find the git of `instance`, of which `jobs` will run at a time.

        Raises `ProgramNotFoundError`, and `ProgramError` where it does not even tell its version.
        """
        path = instance.program("git")
        configuration = {**_CONFIGURATION, "pack.threads": str(max(1, len(os.sched_getaffinity(0)) // jobs))}
        environment = {
            **instance.environment(),
            **_ENVIRONMENT,
            "GIT_CONFIG_COUNT": str(len(configuration)),
        }
        for number, (key, value) in enumerate(configuration.items()):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        _, output = capture(Program((path, "--version"), environment), cancel=cancel)
        version = output.decode(errors="replace").removeprefix("git version").strip()
        return cls(path=path, version=version, environment=environment)

    def on(self, repository: Path | str, account: Account | None, *arguments: str) -> Program:
        """Return the run of git with `arguments` on a repository, as `account` where one is given."""
        # The directory is named: git neither looks for one above, nor asks who owns it.
        return Program(
            (self.path, f"--git-dir={repository}", *arguments),
            self._environment,
            account=account,
            directory=Path(repository),
        )


def account_for(storage: Path) -> Account | None:
    """Return the user to run git as on a storage: the owner of its directory, where this process is root.

    None where this process is that owner, or can only be itself. Raises `ConfigurationError` where there is no such
    user.
    """
    if os.geteuid() != 0:
        return None
    account = account_owning(storage)
    return None if account.uid == 0 else account
