"""What a restore is about to change, on disk before it does: so that a later run can undo it after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, define, field, frozen

from ..archivers.base import RestoreJob, RestoreOptions
from ..archivers.registry import archiver_named
from ..components import COMPONENTS
from ..errors import GitLabBackupError, StoreError
from ..events import Noticed
from ..streams.cancel import Cancellation
from ..streams.files import remove_durably, write_durably
from .contents import Contents
from .run import default_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..archivers.base import JSON, Archiver
    from ..components import Component
    from ..events import Event
    from ..instance import Instance
    from ..store import BackupStore

JOURNAL_NAME = ".gitlab-restore.journal"

_VERSION = 1


@frozen
class Entry:
    """One component of a restore: what its archiver has to know to go back, or to the end."""

    component: str
    archiver: str
    facts: dict[str, JSON]


@define
class Journal:
    """The journal of the one restore that is under way in a store, from before the first change to the end."""

    path: Path
    backup: Path
    keep_old: bool
    entries: tuple[Entry, ...]
    finishing: bool = False
    """False: what was done is to be undone. True: everything new is in place, the old is still to be removed."""

    def write(self) -> None:
        """Put it on disk."""
        document = {
            "journal_version": _VERSION,
            "backup": str(self.backup),
            "keep_old": self.keep_old,
            "finishing": self.finishing,
            "entries": [asdict(entry) for entry in self.entries],
        }
        write_durably(self.path, json.dumps(document, indent=2).encode() + b"\n")

    def close(self) -> None:
        """Remove it: nothing is left to be done."""
        remove_durably(self.path)

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """Read the journal that a run has left. Raises `StoreError` where it cannot be understood."""
        try:
            document = json.loads(path.read_bytes())
            if document["journal_version"] != _VERSION:
                raise _version_error(document["journal_version"])
            return cls(
                path=path,
                backup=Path(document["backup"]),
                keep_old=bool(document["keep_old"]),
                entries=tuple(Entry(**entry) for entry in document["entries"]),
                finishing=bool(document["finishing"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"the journal of an interrupted restore, {path}, cannot be understood: {error}",
                hint="It names what was moved aside. Put that back by hand, then remove the journal.",
            ) from error


def _version_error(version: object) -> ValueError:
    return ValueError(f"its version is {version}, not {_VERSION}")


def recover(store: BackupStore, instance: Instance, tell: Callable[[Event], None]) -> None:
    """Undo, or finish, what a killed restore has left in `instance`. To be called under the lock of the store.

    Raises `StoreError` where that is not possible; the journal then stays, and nothing else is to be done before.
    """
    journal = Journal.read(store.path / JOURNAL_NAME)
    if journal is None:
        return
    steps = [_step(entry, journal, instance) for entry in journal.entries]
    problems = finish(steps) if journal.finishing else undo(steps)
    if problems:
        done = "finished" if journal.finishing else "undone"
        raise StoreError(
            f"an interrupted restore of {journal.backup.name} could not be {done}: {'; '.join(problems)}",
            hint=f"Repair what the message names, and run the command again. {journal.path} says what was planned.",
        )
    journal.close()
    done = "finished" if journal.finishing else "undone: the instance is as it was before"
    tell(Noticed(f"an interrupted restore of {journal.backup.name} was {done}"))


@define
class Step:
    """One component's part of a restore."""

    archiver: Archiver
    job: RestoreJob
    facts: dict[str, JSON] = field(factory=dict)


def undo(steps: list[Step]) -> list[str]:
    """Undo all steps, the last first. Return what went wrong: one failure does not keep the others from it."""
    return _each(list(reversed(steps)), lambda step: step.archiver.undo)


def finish(steps: list[Step]) -> list[str]:
    """Remove what was replaced. Return what went wrong."""
    return _each(steps, lambda step: step.archiver.finish)


def _each(steps: list[Step], act: Callable[[Step], Callable[[RestoreJob, dict[str, JSON]], None]]) -> list[str]:
    problems = []
    for step in steps:
        # What puts things right is not to be stopped by the request that made it necessary.
        step.job.cancel = Cancellation()
        try:
            act(step)(step.job, step.facts)
        except (GitLabBackupError, OSError) as error:
            problems.append(f"{step.job.component.id}: {error}")
    return problems


def _step(entry: Entry, journal: Journal, instance: Instance) -> Step:
    component = next((component for component in COMPONENTS if component.id == entry.component), None)
    if component is None:
        raise StoreError(f"{journal.path} names a component that does not exist: {entry.component}")
    contents = Contents.of(journal.backup)
    job = restore_job(instance, component, contents, RestoreOptions(keep_old=journal.keep_old))
    return Step(archiver_named(entry.archiver), job, entry.facts)


def restore_job(
    instance: Instance,
    component: Component,
    contents: Contents,
    options: RestoreOptions,
    *,
    details: dict[str, JSON] | None = None,
    jobs: int | None = None,
    cancel: Cancellation | None = None,
    progress: Callable[[int, int], None] = lambda _read, _written: None,
    warn: Callable[[str], None] = lambda _message: None,
) -> RestoreJob:
    """Return the job of one component."""
    return RestoreJob(
        instance=instance,
        component=component,
        root=contents.path,
        backup_id=contents.path.name,
        details=details,
        options=options,
        jobs=jobs or default_jobs(),
        cancel=cancel or Cancellation(),
        open_file=contents.open,
        open_stream=contents.open_stream,
        names=contents.listed,
        progress=progress,
        warn=warn,
    )
