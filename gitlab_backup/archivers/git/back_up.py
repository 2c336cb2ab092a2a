"""Writing one repository into a backup: all of its files, or none."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from ...errors import ComponentError, ProgramError, StreamError
from ..base import make_private
from .bundle import opening
from .hooks import write_hooks
from .layout import MANIFESTS, RepositoryManifest, Step, latest_path, manifest_path
from .repository import LocalRepository

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ...instance.repositories import Repository
    from ...streams.process import Account
    from ...streams.sink import Sink
    from ..base import BackupJob
    from .program import Git
    from .repository import Refs

_TRIES: Final = 3
"""How often objects are read, from a new list of refs, before a repository is given up. Objects can go after the refs
were listed only when a push replaced the refs and housekeeping pruned what they had named."""


class Outcome(Enum):
    """What was found."""

    STORED = "stored"
    EMPTY = "empty"
    MISSING = "missing"


@frozen(kw_only=True)
class StorageOnDisk:
    """A repository storage of this machine."""

    name: str
    path: Path
    account: Account | None
    """The user to run git as; None for the one that this process runs as."""


def back_up_repository(job: BackupJob, git: Git, repository: Repository, storage: StorageOnDisk) -> Outcome:
    """Write `repository` into the backup of `job`. Where that fails, nothing of it is left there.

    Raises `ComponentError`, `ProgramError` or `OSError` for what is wrong with this repository, and `StreamError` where
    the backup cannot be written.
    """
    local = LocalRepository(
        path=storage.path / repository.relative_path,
        account=storage.account,
        git=git,
        cancel=job.cancel,
        spool_directory=job.root,
    )
    with _place(job, repository):
        exists = local.exists()
        with _Files.of(job) as files:
            if exists:
                return _write(job, repository, local, files)
            # gitaly-backup 17.0 asks for an object format even of what does not exist.
            manifest = RepositoryManifest(
                object_format="sha1", steps=(_first_step(job, repository),), empty=True, non_existent=True
            )
            _finish(job, repository, files, manifest)
            return Outcome.MISSING


def _write(job: BackupJob, repository: Repository, local: LocalRepository, files: _Files) -> Outcome:
    step = _first_step(job, repository)

    def warn(message: str) -> None:
        job.warn(f"{repository.project_path} ({repository.storage}/{repository.relative_path}): {message}")

    write_hooks(local.path, lambda: _Held(files.create(step.custom_hooks_path)), cancel=job.cancel, warn=warn)
    refs = _refs_with_objects(job, local, files, step)
    try:
        for message in refs.warnings:
            warn(message)
        _put(job, files.create(step.ref_path), refs.lines(head_first=True))
        empty = refs.object_format is None
        head = refs.head.reference or b""
        try:
            head_reference = head.decode()
        except UnicodeDecodeError:
            head_reference = ""
            warn(f"HEAD names {head!r}, which is not UTF-8: a restore will have HEAD detached")
        manifest = RepositoryManifest(
            object_format=refs.object_format or local.object_format(),
            steps=(step,),
            head_reference=head_reference,
            empty=empty,
        )
    finally:
        refs.close()
    _finish(job, repository, files, manifest)
    return Outcome.EMPTY if empty else Outcome.STORED


def _refs_with_objects(job: BackupJob, local: LocalRepository, files: _Files, step: Step) -> Refs:
    """Write the bundle of one list of refs, and return that list."""
    failed: list[bytes] = []
    while True:
        refs = local.refs()
        try:
            if refs.object_format is None:
                return refs
            with files.attempt(step.bundle_path) as sink:
                sink.write(opening(refs.object_format))
                _put(job, sink, refs.lines(head_first=False))
                sink.write(b"\n")
                local.write_pack(refs, sink, job.read)
        except ProgramError:
            refs.close()
            # What fails twice with the same refs will fail again.
            if refs.digest in failed or len(failed) + 1 >= _TRIES:
                raise
            failed.append(refs.digest)
        except BaseException:
            refs.close()
            raise
        else:
            return refs


def _finish(job: BackupJob, repository: Repository, files: _Files, manifest: RepositoryManifest) -> None:
    files.finish()
    toml = manifest.to_toml()
    storage, path = repository.storage, repository.relative_path
    # Last: a repository is in a backup as soon as its manifest is. The newest is a copy of it.
    for name in (manifest_path(storage, path, job.backup_id), latest_path(storage, path)):
        files.write(name, toml)


def _first_step(job: BackupJob, repository: Repository) -> Step:
    return Step.of(repository.storage, repository.relative_path, job.backup_id, 1)


def _put(job: BackupJob, sink: Sink, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        sink.write(piece)
        job.read(len(piece))


@contextmanager
def _place(job: BackupJob, repository: Repository) -> Iterator[None]:
    """Make the directory of the manifests, which also keeps a second row of the same path out."""
    parts = f"{repository.storage}/{repository.relative_path}"
    root = job.root / job.component.destination
    manifests = root / MANIFESTS / parts
    try:
        make_private(manifests.parent)
        try:
            manifests.mkdir(mode=0o700)
        except FileExistsError:
            raise ComponentError("the database names this place a second time") from None
    except OSError as error:
        raise StreamError(f"the directory {manifests} cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        # Only what is this repository's own and empty: others may be making theirs beside it.
        for directory in (manifests, root / parts / job.backup_id, root / parts):
            with suppress(OSError):
                directory.rmdir()
        raise


class _Held:
    """A sink that others finish; it is really finished together with all other files of the repository."""

    def __init__(self, sink: Sink) -> None:
        self.write = sink.write
        self.abort = sink.abort

    def finish(self) -> None:
        pass


@define
class _Files:
    """The files of one repository. None counts as written before all of them can be."""

    job: BackupJob
    open: list[Sink] = field(factory=list)

    @classmethod
    @contextmanager
    def of(cls, job: BackupJob) -> Iterator[_Files]:
        files = cls(job)
        try:
            yield files
        finally:
            for sink in files.open:
                sink.abort()  # does nothing to those that are finished

    def create(self, relative: str) -> Sink:
        sink = self.job.create_file(f"{self.job.component.destination}/{relative}")
        self.open.append(sink)
        return sink

    @contextmanager
    def attempt(self, relative: str) -> Iterator[Sink]:
        """Create a file that goes away when the block fails, so that it can be created again."""
        sink = self.create(relative)
        try:
            yield sink
        except BaseException:
            sink.abort()
            self.open.remove(sink)
            raise

    def write(self, relative: str, content: bytes) -> None:
        sink = self.create(relative)
        sink.write(content)
        sink.finish()

    def finish(self) -> None:
        for sink in self.open:
            sink.finish()
