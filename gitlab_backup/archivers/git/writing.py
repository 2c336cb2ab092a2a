"""What one repository has in a backup, from its own refs and objects alone."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import ProgramError
from ...streams.sink import CountingSink
from .bundle import opening
from .hooks import write_hooks
from .layout import RepositoryManifest, Step, latest_path, manifest_path
from .repository import refs_without_git
from .sole_pack import sole_pack
from .walk import count_reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...instance.repositories import Repository
    from ...streams.sink import Sink
    from ..base import BackupJob
    from .files import Files
    from .increments import Base
    from .quick import QuickRefs
    from .repository import LocalRepository, Refs

_TRIES: Final = 3
"""How often objects are read, from a new list of refs, before a repository is given up. Objects can go after the refs
were listed only when a push replaced the refs and housekeeping pruned what they had named."""


class Outcome(Enum):
    """What was found, and what was made of it."""

    STORED = "stored"
    """All of it is in its only step."""
    INCREMENT = "increment"
    """It has a new step after those of the base."""
    UNCHANGED = "unchanged"
    """It has the steps of the base, and no new one."""
    EMPTY = "empty"
    MISSING = "missing"


@frozen(kw_only=True)
class Writing:
    """A repository on its way into a backup."""

    job: BackupJob
    repository: Repository
    local: LocalRepository
    files: Files
    quick: QuickRefs | None
    """Its refs, read without git; None where git has to be asked."""

    def full(self) -> Outcome:
        """Write all of it, as one step."""
        step = self.step()
        self.hooks(step)
        refs = self._refs_with_objects(step)
        try:
            manifest = self.described(refs, (step,))
        finally:
            refs.close()
        self.finish(manifest)
        return Outcome.EMPTY if manifest.empty else Outcome.STORED

    def missing(self, base: Base | None) -> Outcome:
        """Write that it does not exist, or take that over from `base`."""
        repository = self.repository
        absent = None if base is None else base.absent(repository.storage, repository.relative_path)
        if base is not None and absent is not None:
            self.take_manifest(base, *absent)
            return Outcome.MISSING
        # gitaly-backup 17.0 asks for an object format even of what does not exist.
        self.finish(RepositoryManifest(object_format="sha1", steps=(self.step(),), empty=True, non_existent=True))
        return Outcome.MISSING

    def warn(self, message: str) -> None:
        """Warn of something about this repository."""
        repository = self.repository
        self.job.warn(f"{repository.project_path} ({repository.storage}/{repository.relative_path}): {message}")

    def step(self, *before: Step) -> Step:
        """Return the step that comes after others."""
        storage, path = self.repository.storage, self.repository.relative_path
        return Step.of(storage, path, self.job.backup_id, len(before) + 1, before[-1] if before else None)

    def hooks(self, step: Step) -> None:
        """Write the custom hooks, if there are any."""
        local, files = self.local, self.files
        write_hooks(
            local.path, lambda: _Held(files.create(step.custom_hooks_path)), cancel=self.job.cancel, warn=self.warn
        )

    def described(self, refs: Refs, steps: tuple[Step, ...]) -> RepositoryManifest:
        """Write the list of refs of the last step, and return the manifest."""
        for message in refs.warnings:
            self.warn(message)
        self.put(self.files.create(steps[-1].ref_path), refs.lines(head_first=True))
        head = refs.head.reference or b""
        try:
            head_reference = head.decode()
        except UnicodeDecodeError:
            head_reference = ""
            self.warn(f"HEAD names {head!r}, which is not UTF-8: a restore will have HEAD detached")
        return RepositoryManifest(
            object_format=refs.object_format or self.local.object_format(),
            steps=steps,
            head_reference=head_reference,
            empty=refs.object_format is None,
        )

    def finish(self, manifest: RepositoryManifest) -> None:
        """Finish all files, then write the manifest."""
        self.files.finish()
        toml = manifest.to_toml()
        # Last: a repository is in a backup as soon as its manifest is. The newest is a copy of it.
        own, latest = self.manifest_names()
        self.files.write(own, toml)
        self.files.copy(own, latest, toml)

    def manifest_names(self) -> tuple[str, str]:
        """Return the names of its manifest and of the copy of it."""
        storage, path = self.repository.storage, self.repository.relative_path
        return manifest_path(storage, path, self.job.backup_id), latest_path(storage, path)

    def take_manifest(self, base: Base, name: str, size: int) -> None:
        """Finish all files, with a manifest of `base` that was just read as the manifest of this backup."""
        for own in self.manifest_names():
            self.files.take_read(base, name, size, f"{base.destination}/{own}")
        self.files.finish()

    def put(self, sink: Sink, pieces: Iterator[bytes]) -> None:
        """Write what was read of the repository."""
        for piece in pieces:
            sink.write(piece)
            self.job.read(len(piece))

    def _refs_with_objects(self, step: Step) -> Refs:
        """Write the bundle of one list of refs, and return that list."""
        failed: list[bytes] = []
        plain = None if self.quick is None else refs_without_git(self.quick)
        while True:
            refs = plain or self.local.refs()
            try:
                if refs.object_format is not None and not (plain and self._copied(step, refs)):
                    with self._begun(step, refs) as sink:
                        self.local.write_pack(refs, sink, self.job.read)
            except ProgramError:
                refs.close()
                # What fails twice with the same refs will fail again.
                if refs.digest in failed or len(failed) + 1 >= _TRIES:
                    raise
                failed.append(refs.digest)
                plain = None
            except BaseException:
                refs.close()
                raise
            else:
                return refs

    def _copied(self, step: Step, refs: Refs) -> bool:
        """Write a bundle with the pack that the repository has, if that has what `refs` lead to, and nothing else."""
        with sole_pack(self.local.path) as pack:
            if pack is None:
                return False
            count = count_reachable(pack, refs.object_format or "", refs.oids())
            if (self.local.reachable(refs) if count is None else count) != pack.objects:
                return False
            # What cannot be read now may be read by git, from where housekeeping has put it.
            with suppress(OSError), self._begun(step, refs) as sink:
                pack.copy(CountingSink(sink, self.job.read), refs.object_format or "")
                return True
        return False

    @contextmanager
    def _begun(self, step: Step, refs: Refs) -> Iterator[Sink]:
        """Create the bundle and write its header. It goes away when the block fails."""
        with self.files.attempt(step.bundle_path) as sink:
            sink.write(opening(refs.object_format or ""))
            self.put(sink, refs.lines(head_first=False))
            sink.write(b"\n")
            yield sink


class _Held:
    """A sink that others finish; it is really finished together with all other files of the repository."""

    def __init__(self, sink: Sink) -> None:
        self.write = sink.write
        self.abort = sink.abort

    def finish(self) -> None:
        pass
