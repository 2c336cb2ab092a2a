"""Archives directories, checks the archives, and has them restored."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from ...errors import ComponentError, CorruptStreamError
from ...streams.tar import Passage, TarReader, write_tree
from .plan import plan_restore
from .restore import OF_A_RESTORE, Restoration, archives

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import ExitStack

    from ...components import Component
    from ...instance import Instance
    from ...streams.tar import TarReport
    from ..base import JSON, BackupJob, RestoreJob, RestorePlan, VerifyJob

_EVERYWHERE = (b"lost+found",)
"""Left out at every depth, as the reference does."""
_NAMES_TOLD = 20
"""How many files of each sort get a warning of their own."""


class FilesArchiver:
    """Archives the directory of a component, as `./…`, into one tar archive."""

    name: ClassVar[str] = "files"

    def left_out(self, component: Component, instance: Instance) -> str | None:
        """Return why there is no directory to back up, else None."""
        return instance.directory(component).left_out

    def prepare(self, job: BackupJob, resources: ExitStack) -> None:
        """Do nothing: files are read after the databases, when their turn comes."""

    def back_up(self, job: BackupJob) -> dict[str, JSON]:
        """Archive the directory. What changed, or could not be read, is warned of and listed in what is returned.

        Raises `ComponentError` where the directory itself cannot be read, and what the streams raise.
        """
        component = job.component
        directory = job.instance.directory(component).path
        try:
            # The configured directory may be a link to the real one; below it, none is followed.
            root = os.open(directory.resolve(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, RuntimeError) as error:
            raise _unreadable(component, directory, error) from error
        try:
            report = write_tree(
                root,
                job.create_stream(component.destination),
                cancel=job.cancel,
                exclude=[*(os.fsencode(name) for name in component.excludes), *_of_restores(root)],
                exclude_everywhere=_EVERYWHERE,
            )
        except OSError as error:
            raise _unreadable(component, directory, error) from error
        finally:
            os.close(root)
        warn_of(job, report)
        return details_of(report)

    def verify(self, job: VerifyJob) -> None:
        """Read the archive to its end. Reports damage, hostile members, and a wrong number of members."""
        names = archives(job.root, job.component)
        if not names:
            job.damaged(job.component.destination, "is missing")
        for name in names:
            self._verify(job, name)

    def plan_restore(self, job: RestoreJob) -> RestorePlan:
        """Look at the archive and the place for it. See `plan.plan_restore`."""
        return plan_restore(job)

    def stage(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Extract the archive beside the directory, or inside it."""
        Restoration.of(facts).stage(job)

    def swap(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:  # noqa: ARG002 - facts say it all
        """Move the old aside and the new to its place, by renames."""
        Restoration.of(facts).swap()

    def committed(self, job: RestoreJob, facts: Mapping[str, JSON]) -> str | None:  # noqa: ARG002 - nothing ever is
        """Return None: every rename can be undone."""
        return None

    def undo(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:  # noqa: ARG002 - facts say it all
        """Move the old back, and remove the new."""
        Restoration.of(facts).undo()

    def finish(self, job: RestoreJob, facts: Mapping[str, JSON]) -> None:
        """Remove the old, unless it is to be kept."""
        Restoration.of(facts).finish(keep_old=job.options.keep_old)

    def _verify(self, job: VerifyJob, name: str) -> None:
        members, hostile, passage = 0, 0, Passage()
        try:
            with job.open_stream(name) as stream:
                for member in TarReader(stream):
                    job.cancel.check()
                    members += 1
                    if reason := passage.check(member):
                        hostile += 1
                        if hostile <= _NAMES_TOLD:
                            where = f"member {member.display_name!r} at byte {member.offset}"
                            job.damaged(name, f"{where} must not be extracted: {reason}")
        except CorruptStreamError as error:
            job.damaged(name, error.message)
            return
        if hostile > _NAMES_TOLD:
            job.damaged(name, f"{hostile - _NAMES_TOLD} more members must not be extracted")
        if not members:
            # As a file of zeros looks, which is what a crash can leave: tar and this tool begin with the directory.
            job.damaged(name, "has no members, not even the directory itself")
        expected = (job.details or {}).get("members")
        if expected is not None and members != expected:
            job.damaged(name, f"has {members} members, not {expected} as when it was made")


def _of_restores(root: int) -> list[bytes]:
    """Return what restores have left, or were asked to leave, at the top of a directory: old trees, whole."""
    return [os.fsencode(name) for name in os.listdir(root) if OF_A_RESTORE.fullmatch(name)]


def _unreadable(component: Component, directory: object, error: Exception) -> ComponentError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ComponentError(
        f"{component.name}: {directory} cannot be read: {reason}",
        hint=f"Check that it exists and that this user may read it, or leave it out with --skip {component.id}.",
    )


def warn_of(job: BackupJob, report: TarReport) -> None:
    """Warn of what is not in an archive as it was on disk."""
    changed = (
        f"{item.name} changed while it was read ({item.sizes[0]} bytes before, {item.sizes[1]} after)"
        for item in report.changed
    )
    _tell(job, changed, report.changed_count, "files changed while they were read")
    unreadable = (f"{item.name} could not be read: {item.reason}" for item in report.unreadable)
    _tell(job, unreadable, report.unreadable_count, "files or directories could not be read")
    sockets = (f"{name} is a socket and was left out" for name in report.sockets)
    _tell(job, sockets, report.sockets_count, "sockets were left out")
    devices = (f"{name} is a device node and was left out: no restore makes one" for name in report.devices)
    _tell(job, devices, report.devices_count, "device nodes were left out")
    stripped = (
        f"{name} would run as its owner or its group, and is kept without that (setuid, setgid)"
        for name in report.stripped
    )
    _tell(job, stripped, report.stripped_count, "files are kept without setuid or setgid")
    if report.unlinked:
        job.warn(f"{report.unlinked} hard links may be stored as separate files: there were too many to follow")


def _tell(job: BackupJob, warnings: Iterable[str], count: int, others: str) -> None:
    for _, warning in zip(range(_NAMES_TOLD), warnings, strict=False):
        job.warn(warning)
    if count > _NAMES_TOLD:
        job.warn(f"and {count - _NAMES_TOLD} more {others}")


def details_of(report: TarReport) -> dict[str, JSON]:
    """Return what a manifest should say of an archive."""
    return {
        "members": report.members,
        "data_bytes": report.bytes,
        "vanished": report.vanished,
        "rewritten": report.rewritten,
        "changed_count": report.changed_count,
        "changed": [
            {"name": item.name, "sizes": list(item.sizes), "mtimes_ns": list(item.mtimes_ns)} for item in report.changed
        ],
        "unreadable_count": report.unreadable_count,
        "unreadable": [{"name": item.name, "reason": item.reason} for item in report.unreadable],
        "sockets_count": report.sockets_count,
        "sockets": list(report.sockets),
        "devices_count": report.devices_count,
        "devices": list(report.devices),
        "stripped_count": report.stripped_count,
        "stripped": list(report.stripped),
    }
