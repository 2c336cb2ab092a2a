"""Increments by gitaly-backup: the steps of the base, put where the program looks for them, and what it made of them.

It is not believed in everything. What it marks as empty though it has something, and what it would not restore as it
was, is backed up once more, in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

from ...errors import CorruptStreamError
from ...streams.files import FileSink
from ..git.files import Files
from ..git.increments import Base
from ..git.layout import LATEST, RepositoryManifest, manifest_path
from .fetching import loss_when_fetched

if TYPE_CHECKING:
    from pathlib import Path

    from ..base import JSON, BackupJob
    from ..git.increments import Earlier
    from .exchange import Request
    from .program import GitalyBackup


@frozen
class _Seed:
    earlier: Earlier
    files: Files
    copies: tuple[Path, ...]
    """Copies of the manifest of the base. The program may write to one of them, so they are no links."""

    def discard(self) -> None:
        self.files.discard()
        for copy in self.copies:
            copy.unlink(missing_ok=True)


@define
class Seeds:
    """What was put there of the base, for repositories of which nothing has been answered yet."""

    job: BackupJob
    gitaly: GitalyBackup
    base: Base
    again: list[Request] = field(factory=list)
    """Repositories that have to be backed up once more, in full."""
    directories: set[str] = field(factory=set)
    """Where the files lie that were taken over, relative to the backup. The program writes nothing there."""
    increments: int = 0
    _open: dict[tuple[str, str], _Seed] = field(factory=dict)

    @classmethod
    def of(cls, job: BackupJob, gitaly: GitalyBackup) -> Seeds | None:
        """Return a place to keep them; None for a full backup. Raises what `Base.of` does."""
        if job.repositories.base is None:
            return None
        if not gitaly.makes_increments:
            job.notice(
                f"repositories are backed up in full after all: gitaly-backup {gitaly.version_text} leaves those out of"
                " an increment that have not changed (17.3 does not)"
            )
            return None
        base = Base.of(job)
        return None if base is None else cls(job, gitaly, base)

    def put(self, request: Request) -> None:
        """Put what the base has of a repository into the backup, if that is anything to build on."""
        files = Files(self.job)
        try:
            earlier = self.base.earlier(request.storage, request.relative_path)
            if earlier is None or self._is_in_the_way(request, earlier):
                return
            content = self.base.read(earlier.manifest_name)
            files.take(self.base, earlier.names)
        except CorruptStreamError as error:
            files.discard()
            self.job.warn(
                f"{request}: the backup {self.base.backup_id} is damaged, so this is backed up in full: {error}"
            )
            return
        except BaseException:
            files.discard()
            raise
        own = self.job.root / earlier.manifest_name
        copies = (own, own.with_name(LATEST)) if self.gitaly.builds_on_latest else (own,)
        for copy in copies:
            with FileSink(copy) as sink:
                sink.write(content)
        self._open[request.storage, request.relative_path] = _Seed(earlier, files, copies)

    def _is_in_the_way(self, request: Request, earlier: Earlier) -> bool:
        """Return whether a step of the base has the id of this backup, as when the clock was set back since.

        The program would write beside the files that were taken over, or into them, which are the base's as well.
        """
        directory = f"{self.base.destination}/{request.storage}/{request.relative_path}/{self.job.backup_id}/"
        return any(name.startswith(directory) for name in earlier.names)

    def settle(self, request: Request, state: str) -> bool:
        """Take what became of a repository; return whether it has to be backed up once more. It is in `again` then."""
        seed = self._open.pop((request.storage, request.relative_path), None)
        if seed is None:
            return False
        try:
            sound = state == "completed" and self._is_sound(request, seed)
        except (CorruptStreamError, OSError):
            sound = False
        if not sound:
            seed.discard()
            self.again.append(request)
        return not sound

    def details(self) -> dict[str, JSON]:
        """Return what the manifest should say."""
        return self.base.details() | {"increments": self.increments}

    def _is_sound(self, request: Request, seed: _Seed) -> bool:
        """Look at what the program made. If it built upon the base, what was put there becomes part of the backup."""
        root = self.job.root / self.job.component.destination
        own = root / manifest_path(request.storage, request.relative_path, self.job.backup_id)
        manifest = RepositoryManifest.from_toml(own.read_bytes())
        before = seed.earlier.manifest.steps
        if manifest.steps[: len(before)] != before:
            # It has found nothing to build on.
            if len(manifest.steps) > 1:
                return False
            seed.files.discard()
            seed.copies[0].unlink()
            return True
        # An increment on an empty repository keeps that mark, and what is new is not restored (up to 18.11 at least).
        if manifest.empty or manifest.non_existent or len(manifest.steps) == len(before):
            return False
        if not self.gitaly.restores_exactly and loss_when_fetched(manifest, lambda path: (root / path).open("rb")):
            return False
        self.directories.update(name.rpartition("/")[0] for name in seed.earlier.names)
        seed.files.finish()
        # That of the base's id: the other was written anew.
        seed.copies[0].unlink()
        self.increments += 1
        return True
