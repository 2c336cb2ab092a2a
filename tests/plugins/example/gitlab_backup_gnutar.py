"""An archiver of directories that has GNU tar read and write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gitlab_backup.archivers.base import RestorePlan
from gitlab_backup.errors import CorruptStreamError, RefusedError
from gitlab_backup.streams.files import remove_tree, sync_directory, sync_tree
from gitlab_backup.streams.process import Program, run
from gitlab_backup.streams.tar import TarReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import ExitStack
    from typing import BinaryIO

    from gitlab_backup import Component, Instance
    from gitlab_backup.archivers.base import JSON, BackupJob, RestoreJob, VerifyJob


class GnuTarArchiver:
    """Archives the directory of a component into one tar archive."""

    name: ClassVar[str] = "gnutar"  # that of the entry point: manifests record it

    def left_out(self, component: Component, instance: Instance) -> str | None:
        """Return why there is no directory to back up."""
        return instance.directory(component).left_out

    def prepare(self, job: BackupJob, resources: ExitStack) -> None:
        """Do nothing: a directory has no snapshot that could be taken now."""

    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        """Let the output of tar flow into the backup."""
        directory = job.instance.directory(job.component).path
        # The directory itself is kept, without what is in it: GitLab needs it after a restore.
        excludes = [f"--exclude=./{name}/*" for name in job.component.excludes]
        arguments = ("--create", "--format=posix", "--sparse", f"--directory={directory}", "--anchored", *excludes, ".")
        stream = job.create_stream(job.component.destination)  # compressed, counted, and with a digest
        try:
            # Status 1: some file changed while it was read (GNU tar manual, section "Synopsis").
            completed = run(_tar(job.instance, *arguments), stdout=stream, cancel=job.cancel, accept=(0, 1))
            stream.finish()
        finally:
            stream.abort()  # does nothing after `finish`
        for line in completed.stderr.splitlines():
            job.warn(line)
        return {"archive": job.component.destination + job.codec.suffix}

    def verify(self, job: VerifyJob) -> None:
        """Read the archive to its end. There may be no installation, and no tar, on this machine."""
        archive = _archive(job)
        try:
            with job.open_stream(archive) as stream:
                for _member in TarReader(stream):
                    job.cancel.check()
        except CorruptStreamError as error:
            job.damaged(archive, error.message)

    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        """Choose names beside the directory. All that the steps need to know goes into the facts, as JSON."""
        directory = job.instance.directory(job.component).path.resolve()
        new, old = (directory.with_name(f"{directory.name}.{kind}-{job.backup_id}") for kind in ("new", "before"))
        for taken in filter(os.path.lexists, (new, old)):
            raise RefusedError(f"{taken} is in the way", hint="Look at what it is, and move it away.")
        if not os.access(directory.parent, os.W_OK):
            raise RefusedError(f"{directory.parent} cannot be written", hint="Run this as root.")
        return RestorePlan(
            replaces=(f"directory {directory}",),
            facts={
                "archive": _archive(job),
                "directory": str(directory),
                "existed": directory.is_dir(),
                "new": str(new),
                "old": str(old),
            },
            space=((directory.parent, 4 * (job.root / _archive(job)).stat().st_size),),
        )

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Extract beside the directory, onto the disk."""
        new = _path(facts, "new")
        new.mkdir(mode=0o700)
        with job.open_stream(str(facts["archive"])) as stream:
            tar = _tar(job.instance, "--extract", "--preserve-permissions", f"--directory={new}")
            run(tar, stdin=_counted(stream, job), cancel=job.cancel)
        sync_tree(new)

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:  # noqa: ARG002 - facts say it all
        """Two renames. From the first on, `old` is there: by that `undo` knows."""
        directory, old = _path(facts, "directory"), _path(facts, "old")
        if facts["existed"]:
            directory.rename(old)
        else:
            old.mkdir()
        _path(facts, "new").rename(directory)
        sync_directory(directory.parent)

    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:  # noqa: ARG002 - it never is
        """Return None: everything can be undone."""
        return None

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:  # noqa: ARG002 - facts say it all
        """Put back the old, wherever `stage` and `swap` were left; and again, where this was left half-way."""
        directory, old = _path(facts, "directory"), _path(facts, "old")
        if old.exists():
            remove_tree(directory)
            if facts["existed"]:
                old.rename(directory)
            else:
                old.rmdir()
        remove_tree(_path(facts, "new"))
        sync_directory(directory.parent)

    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Remove the old, unless it is to be kept."""
        if not (job.options.keep_old and facts["existed"]):
            remove_tree(_path(facts, "old"))
        sync_directory(_path(facts, "directory").parent)


def _tar(instance: Instance, *arguments: str) -> Program:
    return Program((instance.program("tar"), *arguments), instance.environment())


def _archive(job: VerifyJob | RestoreJob) -> str:
    """Return what `back_up` has recorded."""
    return str((job.details or {}).get("archive", job.component.destination))


def _path(facts: Mapping[str, JSON], key: str) -> Path:
    return Path(str(facts[key]))


def _counted(stream: BinaryIO, job: RestoreJob) -> Iterator[bytes]:
    while piece := stream.read(1 << 20):
        job.progress(len(piece), len(piece))
        yield piece
