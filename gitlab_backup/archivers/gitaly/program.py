"""The program gitaly-backup: which version it is, and how it is called.

The contract is that of Gitaly's `internal/cli/gitalybackup`: a command, its flags, `GITALY_SERVERS` in the environment,
one JSON object for each repository on stdin, and one for each line of its log on stdout. Nothing comes on stderr.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from ...errors import ComponentError, ConfigurationError
from ...streams.process import Program, capture
from ..git.layout import RESERVED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from ...instance import Instance
    from ...streams.cancel import Cancellation

Version = tuple[int, int, int]

_OLDEST: Final = (16, 10, 0)
"""From this version on the layout that we read is the default. Earlier ones must be told it, and 19.0 must not."""
_KEEPS_POOLS: Final = (17, 3, 0)
"""From this version on, object pools are not taken for repositories that are in no backup, and removed."""
_MAKES_INCREMENTS: Final = (17, 3, 0)
"""From this version on, what has not changed since the base is in an incremental backup, too."""
_RESTORES_EXACTLY: Final = (18, 3, 0)
"""From this version on, a restore of several steps ends with the refs of the last one."""
_LOOKS_BY_TIME: Final = (18, 11, 0)
"""From this version on, the base of an increment is not `+latest.toml`, but the newest manifest."""
_TIMEOUT: Final = 60.0
"""Seconds to tell its version."""
_SCHEMES: Final = ("unix:", "tcp://", "tls://", "dns:")
"""What the address of a Gitaly begins with (GitLab, `gems/gitlab-backup-cli`, `gitaly_client.rb`)."""


@frozen(kw_only=True)
class GitalyBackup:
    """The gitaly-backup of an instance.

    It runs as the user of this process. It only talks to Gitaly, over its sockets, and starts no program itself; as the
    user git it could neither write into the staging directory nor read a backup, which are private to this process.
    """

    path: str
    version: Version
    _environment: Mapping[str, str] = field(repr=False)
    _secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, instance: Instance, *, cancel: Cancellation) -> GitalyBackup:
        """Find it, and ask for its version.

        Raises `ProgramNotFoundError`; `ProgramError` where it does not run; `ComponentError` where its version is too
        old, or cannot be understood; `ConfigurationError` for an address that it could not use.
        """
        path = instance.program("gitaly-backup")
        environment = {**instance.environment(), **instance.certificates()}
        _, output = capture(Program((path, "--version"), environment), cancel=cancel, timeout=_TIMEOUT, limit=1 << 16)
        version = _version(path, output.decode(errors="replace"))
        servers = {}
        for storage in instance.storages:
            if storage.gitaly_address is None:
                continue
            if not storage.gitaly_address.startswith(_SCHEMES):
                raise ConfigurationError(
                    f"the gitaly_address of the storage {storage.name!r} begins with none of {', '.join(_SCHEMES)}",
                    hint="Correct repositories.storages in gitlab.yml.",
                )
            servers[storage.name] = {"address": storage.gitaly_address, "token": storage.gitaly_token or ""}
        encoded = base64.b64encode(json.dumps(servers).encode()).decode()
        tokens = {server["token"] for server in servers.values()} - {""}
        return cls(
            path=path,
            version=version,
            environment={**environment, "GITALY_SERVERS": encoded},
            # Longest first, should one be a part of another.
            secrets=tuple(sorted({*tokens, encoded}, key=len, reverse=True)),
        )

    @property
    def version_text(self) -> str:
        """Its version, as `17.0.1`."""
        return ".".join(map(str, self.version))

    @property
    def keeps_pools(self) -> bool:
        """Whether removing what is in no backup spares object pools."""
        return self.version >= _KEEPS_POOLS

    @property
    def makes_increments(self) -> bool:
        """Whether its increments have all repositories."""
        return self.version >= _MAKES_INCREMENTS

    @property
    def restores_exactly(self) -> bool:
        """Whether it restores the refs of several steps as they were in the last."""
        return self.version >= _RESTORES_EXACTLY

    @property
    def builds_on_latest(self) -> bool:
        """Whether it takes `+latest.toml` for the base of an increment."""
        return self.version < _LOOKS_BY_TIME

    def create(self, *, backup_id: str, directory: Path | None, jobs: int, incremental: bool = False) -> Program:
        """Return the run that backs up into `directory`, or, where that is None, into Gitaly's own object storage.

        With `incremental`, it builds on what manifests in `directory` have of a repository.
        """
        return self._program("create", backup_id, directory, jobs, *(("-incremental",) if incremental else ()))

    def restore(self, *, backup_id: str, directory: Path | None, jobs: int, remove: Collection[str] = ()) -> Program:
        """Return the run that restores from `directory`, or, where that is None, from Gitaly's own object storage.

        At its end, if every repository was restored, it removes from the storages `remove` all that were not.
        """
        # One argument for all, separated by commas.
        removing = ("-remove-all-repositories", ",".join(remove)) if remove else ()
        return self._program("restore", backup_id, directory, jobs, *removing)

    def redacted(self, text: str) -> str:
        """Return what the program said without the tokens, should they be in it."""
        for secret in self._secrets:
            text = text.replace(secret, "[token]")
        return text

    def _program(self, command: str, backup_id: str, directory: Path | None, jobs: int, *more: str) -> Program:
        place = ("-server-side",) if directory is None else ("-path", str(directory))
        # One storage may use all jobs; `-parallel` is the bound on all storages together.
        parallel = ("-parallel", str(jobs), "-parallel-storage", str(jobs))
        return Program((self.path, command, *place, "-id", backup_id, *parallel, *more), self._environment)


def check_storages(instance: Instance, names: Collection[str]) -> None:
    """Raise `ComponentError` where one of these storages cannot be reached through Gitaly."""
    addresses = {storage.name: storage.gitaly_address for storage in instance.storages}
    for name in sorted(names):
        if name not in addresses:
            raise ComponentError(
                f"the storage {name!r}, on which there are repositories, is not configured",
                hint="Add it to repositories.storages in gitlab.yml, or move them off it.",
            )
        if not addresses[name]:
            raise ComponentError(
                f"the storage {name!r} has no gitaly_address",
                hint="Add it to repositories.storages in gitlab.yml, or use the archiver git, if this machine has it.",
            )
        if name in RESERVED or name in {".", ".."} or set(name) & {"/", ","} or not name.isprintable():
            raise ComponentError(f"the storage {name!r} has a name that gitaly-backup cannot work with")


def _version(path: str, output: str) -> Version:
    match = re.search(r"\bversion v?(\d+)\.(\d+)(?:\.(\d+))?", output)
    if match is None:
        raise ComponentError(
            f"{path} --version does not tell a version: {output[:80]!a}",
            hint="Is this gitaly-backup? It is set as backup.gitaly_backup_path in gitlab.yml.",
        )
    version = (int(match[1]), int(match[2]), int(match[3] or 0))
    if version < _OLDEST:
        raise ComponentError(
            f"{path} has the version {'.'.join(map(str, version))}; 16.10 or later is needed",
            hint="Install a newer one, or use the archiver git (--repositories-archiver git).",
        )
    return version
