"""What every archiver is, and the jobs that it is given."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, ClassVar, Protocol

from attrs import define, field, frozen

from ..documents import JSON
from ..manifest import FILTER
from ..streams.background import BackgroundSink
from ..streams.files import FileSink, digest_in_place
from ..streams.sink import CountingSink
from ..streams.system import system

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from contextlib import ExitStack
    from pathlib import Path

    from ..components import Component
    from ..instance import Instance
    from ..instance.selection import Selection
    from ..streams.cancel import Cancellation
    from ..streams.codec import Codec
    from ..streams.rate import RateLimit
    from ..streams.sink import Buffer, Sink


__all__ = [
    "JSON",
    "Archiver",
    "BackupJob",
    "RepositoryOptions",
    "RestoreJob",
    "RestoreOptions",
    "RestorePlan",
    "VerifyJob",
]


@frozen(kw_only=True)
class RepositoryOptions:
    """What a user may choose for the repositories, at backup and at restore."""

    archiver: str | None = None
    """`gitaly` or `git`; None for the one that the installation asks for."""
    server_side: bool = False
    """Whether each Gitaly writes its repositories to its own object storage, rather than into the backup."""
    incremental: bool = False
    """Whether repositories are backed up as increments on an earlier backup. All else is always backed up in full."""
    base: Path | None = None
    """The directory of the backup that the repositories of this one are increments on; None for the newest that can
    serve. When an archiver sees it, it is chosen and checked: None means a full backup."""
    storages: tuple[str, ...] = ()
    """Only repositories on these storages; empty for all."""
    paths: tuple[str, ...] = ()
    """Only repositories of these groups (with all below) and projects, by their full path; empty for all."""
    skip_paths: tuple[str, ...] = ()
    """No repositories of these groups (with all below) and projects."""

    @property
    def filtered(self) -> bool:
        """Whether this leaves repositories out."""
        return bool(self.storages or self.paths or self.skip_paths)

    @property
    def selection(self) -> Selection:
        """What this leaves of the repositories. Raises `UsageError` for what cannot be a path."""
        from ..instance.selection import Selection

        return Selection(storages=self.storages, paths=self.paths, skip_paths=self.skip_paths)

    @property
    def record(self) -> dict[str, JSON]:
        """The details that say so in a manifest; empty where nothing is left out."""
        return {FILTER: self.selection.to_record()} if self.filtered else {}


@define(kw_only=True)
class BackupJob:
    """One component on its way into a backup: what an archiver needs, and whom it tells.

    Its methods may be called from several threads of the archiver.
    """

    instance: Instance
    component: Component
    root: Path
    """The directory of the backup as it grows (staging)."""
    backup_id: str
    codec: Codec
    level: int | None
    jobs: int
    """How many things the archiver may do at once."""
    keep_going: bool
    """Whether one bad item (a repository, …) is a warning rather than the failure of the component."""
    repositories: RepositoryOptions = field(factory=RepositoryOptions)
    pool: Executor
    """Threads for codecs, shared by all components. Never wait in it for something that needs it."""
    cancel: Cancellation
    progress: Callable[[int, int], None]
    """Takes the numbers of bytes read and written since the last call."""
    written: Callable[[str, str], None]
    """Takes the name (relative to `root`) and the SHA-256 (in hexadecimal) of each finished file."""
    warn: Callable[[str], None]
    """Takes what was left out, or could not be read as it was. Makes the component end with status `warning`."""
    notice: Callable[[str], None] = field(default=lambda _message: None)
    """Takes what a user may want to know, and is no flaw of the backup."""
    rate: RateLimit | None = None
    """The limit on what all components together read, which `read` keeps to; None without one."""

    def read(self, count: int) -> None:
        """Say that `count` bytes of the source have just been read. Waits where a limit on the rate wants that."""
        self.progress(count, 0)
        if self.rate is not None:
            self.rate.take(count, self.cancel)

    def create_file(self, relative: str) -> Sink:
        """Create the file `relative` of the backup, and its directories. It is counted and gets its digest.

        Raises `StreamError` where it exists already or cannot be written.
        """
        return self._create(relative)

    def create_stream(self, relative: str) -> Sink:
        """Create the file `relative` plus the suffix of the codec, and return a sink that compresses into it.

        What is written to it counts as read from the source.
        """
        compressed = self._create(relative + self.codec.suffix, beside=True)
        return CountingSink(self.codec.writer(BackgroundSink(compressed), level=self.level, pool=self.pool), self.read)

    def _create(self, relative: str, *, beside: bool = False) -> Sink:
        path = self.root / relative
        make_private(path.parent)
        return _BackupFile(self, relative, FileSink(path, beside=beside))

    def adopt_file(self, relative: str) -> None:
        """Take the file `relative`, which a program has written below `root`, as a file of the backup.

        It becomes private, is counted and gets its digest where it lies. May run in `pool`. Raises `StreamError` where
        it is not a regular file, or cannot be read.
        """
        size, sha256 = digest_in_place(self.root / relative, check=self.cancel.check)
        self.progress(0, size)
        self.written(relative, sha256)


def make_private(directory: Path | str) -> None:
    """Make a private directory, and those above it: what `mkdir` makes on the way has the mode of the umask."""
    # No look whether it is there: the attempt says so, and costs as little.
    try:
        system().mkdir(directory, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_private(os.path.dirname(directory))  # noqa: PTH120 - a Path for each of many is slow
        with suppress(FileExistsError):  # made by another thread
            system().mkdir(directory, 0o700)
    os.chmod(directory, 0o700)  # noqa: PTH101 - likewise


class _BackupFile:
    """A file of a backup while it is written."""

    def __init__(self, job: BackupJob, relative: str, sink: FileSink) -> None:
        self._job = job
        self._relative = relative
        self._sink = sink

    def write(self, data: Buffer, /) -> None:
        self._job.cancel.check()
        self._sink.write(data)
        self._job.progress(0, len(data))

    def finish(self) -> None:
        self._sink.finish()
        self._job.written(self._relative, self._sink.sha256)

    def abort(self) -> None:
        self._sink.abort()


@define(kw_only=True)
class VerifyJob:
    """One component of a backup that is being verified."""

    component: Component
    root: Path
    """The directory of the backup."""
    backup_id: str
    details: Mapping[str, JSON] | None
    """What `back_up` returned when this component was made; None for a backup without a manifest."""
    jobs: int
    cancel: Cancellation
    open_file: Callable[[str], BinaryIO]
    """Opens a file of the backup by its name relative to `root`; close it when done. Whatever is read through it is
    digested on the way, so that no file has to be read twice. Raises `StreamError`."""
    open_stream: Callable[[str], BinaryIO]
    """The same, uncompressed by the codec that the name's suffix says."""
    damaged: Callable[[str, str], None]
    """Takes the name of a file and what is wrong with it, and where in it (a byte offset, a member, a line)."""
    names: Callable[[str], list[str]] = field()
    """All files of the backup below a relative directory, sorted."""


@define(kw_only=True)
class RestoreJob:
    """One component on its way back into an instance. The same object serves all steps of one run."""

    instance: Instance
    component: Component
    root: Path
    """The directory of the backup. All selected files of it have been verified."""
    backup_id: str
    details: Mapping[str, JSON] | None
    """What `back_up` returned when this component was made; None for a backup without a manifest."""
    options: RestoreOptions
    jobs: int
    cancel: Cancellation
    open_file: Callable[[str], BinaryIO]
    """Opens a file of the backup by its name relative to `root`; close it when done. Raises `StreamError`."""
    open_stream: Callable[[str], BinaryIO]
    """The same, uncompressed by the codec that the name's suffix says."""
    names: Callable[[str], list[str]]
    """All files of the backup below a relative directory, sorted."""
    progress: Callable[[int, int], None]
    """Takes the numbers of bytes read and written since the last call."""
    warn: Callable[[str], None]
    """Takes what is not restored, or not as it was. Makes the component end with status `warning`."""


@frozen(kw_only=True)
class RestoreOptions:
    """What the user of a restore may choose."""

    keep_going: bool = False
    """Whether one bad item (a repository, …) is a warning rather than the failure of the restore."""
    keep_old: bool = False
    """Whether what was replaced stays beside the new, as `<name>.before-<backup id>`."""
    database_strategy: str | None = None
    """`swap` or `transaction`; None for the best that the role may do."""
    config_to: Path | None = None
    """The directory, new or empty, that gets the configuration and the secrets of a backup. They replace nothing."""
    repositories: RepositoryOptions = field(factory=RepositoryOptions)


@frozen(kw_only=True)
class RestorePlan:
    """What a restore of one component is going to do."""

    replaces: tuple[str, ...]
    """What will be replaced, a line each, for a person who has to say yes: names, sizes, numbers."""
    notes: tuple[str, ...] = ()
    """What that person should know besides: open sessions, what is left alone, and why."""
    facts: dict[str, JSON]
    """All that the steps need to know, also in another process after a crash: names of what is made and moved."""
    space: tuple[tuple[Path, int], ...] = ()
    """Bytes that will be needed beside the old, and a directory that exists on the file system where they are."""
    reversible: bool = True
    """Whether `undo` can put back the old after `swap` has begun. The operation swaps what is not reversible last."""


class Archiver(Protocol):
    """Moves one component between an instance and a backup.

    One object works on one component of one operation, so it may keep state from `prepare` to `back_up`.
    Found by name among the built-in ones and the entry points `gitlab_backup.archivers`; made without arguments.
    """

    name: ClassVar[str]

    def left_out(self, component: Component, instance: Instance) -> str | None:
        """Return why there is nothing to back up for `component` (disabled, in object storage, …), else None."""

    def prepare(self, job: BackupJob, resources: ExitStack) -> None:
        """Do what must be done before any component is read, such as exporting a database snapshot.

        What must stay open until the end of the backup is entered into `resources`.
        """

    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        """Read the component, write it into the backup, and return what the manifest should say of it.

        Raises `GitLabBackupError` where it failed; what is incomplete without being a failure is told to `job.warn`.
        """

    def verify(self, job: VerifyJob) -> None:
        """Read the component's files in the backup and report to `job.damaged` whatever is structurally wrong."""

    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        """Check everything that can be checked, and plan. Changes nothing.

        Raises `RefusedError`, `ComponentError`, … where the restore could not succeed: it is not allowed, there is no
        space, the target is not writable, the backup is not structurally whole.
        """

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Build the new beside the old, complete, checked and durable. The instance keeps serving the old."""

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Make the new current by as few and as quick steps as possible. The old is kept."""

    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:
        """Return what `swap` has changed for good, in words; None while `undo` can put back all of it.

        Always None where the plan is reversible. Also called by a later process, after a crash. What has changed for
        good is then not undone, but finished, and so is everything else.
        """

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Put back the old and remove the new, whatever `stage` and `swap` have done so far.

        Also called by a later process, after a crash at any moment since `plan_restore`; again, if it failed half-way.
        """

    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Remove the old (unless `keep_old`): there is no way back any more. May be called again."""
