"""What a restore is about to change, on disk before it does: so that a later run can undo it after a crash."""

from __future__ import annotations

import json
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, define, field, frozen

from ..archivers.base import RestoreJob, RestoreOptions
from ..archivers.registry import archiver_that_made
from ..components import COMPONENTS
from ..errors import GitLabBackupError, StoreError, StreamError
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


class Phase(Enum):
    """How far a restore has come, which says what is to be done if it goes no further."""

    STAGING = "staging"
    """Up to the last swap that can be undone: everything is undone."""
    COMMITTING = "committing"
    """Those that cannot have begun: what has changed for good decides."""
    FINISHING = "finishing"
    """Everything new is in place: the old is still to be removed."""


@define
class Journal:
    """The journal of the one restore that is under way in a store, from before the first change to the end."""

    path: Path
    backup: Path
    keep_old: bool
    entries: tuple[Entry, ...]
    phase: Phase = Phase.STAGING

    def reach(self, phase: Phase) -> None:
        """Put it on disk, before anything of this phase is done.

        Where that fails, the phase is the one that a later process would read.
        """
        document = {
            "journal_version": _VERSION,
            "backup": str(self.backup),
            "keep_old": self.keep_old,
            "phase": phase.value,
            "entries": [asdict(entry) for entry in self.entries],
        }
        try:
            write_durably(self.path, json.dumps(document, indent=2).encode() + b"\n")
        except StreamError:
            with suppress(StoreError):
                found = Journal.read(self.path)
                self.phase = found.phase if found is not None else self.phase
            raise
        self.phase = phase

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
                phase=Phase(document["phase"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
    complete = journal.phase is Phase.FINISHING
    steps = [_step(entry, journal, instance) for entry in journal.entries]
    settled = settle(journal, steps)
    what = f"an interrupted restore of {journal.backup.name}"
    if settled.problems:
        done = "undone" if settled.undone else "finished"
        raise StoreError(
            f"{what} could not be {done}: {'; '.join(settled.problems)}",
            hint=f"Repair what the message names, and run the command again. {journal.path} says what was planned.",
        )
    if settled.undone:
        tell(Noticed(f"{what} was undone: the instance is as it was before"))
    elif complete:
        tell(Noticed(f"{what} was finished: the instance is as the backup"))
    else:
        tell(Noticed(f"{what} could not be undone. {settled.told()}"))


@define
class Step:
    """One component's part of a restore."""

    archiver: Archiver
    job: RestoreJob
    facts: dict[str, JSON] = field(factory=dict)


@frozen
class Settled:
    """How a restore ended that did not come to its end by itself."""

    committed: dict[str, str]
    """What has changed for good, in words, by component: then all the rest was finished."""
    problems: tuple[str, ...]
    """What could not be undone, or finished. The journal stays, and the next run tries again."""
    undone: bool

    def told(self) -> str:
        """Return, for a person, what there is now where it was not undone."""
        changed = "; ".join(f"{component}: {text}" for component, text in self.committed.items())
        return f"{changed}; all other components of it are as in the backup"


def settle(journal: Journal, steps: list[Step]) -> Settled:
    """End a restore that went wrong: undo it all or, where something has changed for good, finish all the rest.

    Closes the journal, unless there are problems.
    """
    committed: dict[str, str] = {}
    problems: list[str] = []
    if journal.phase is Phase.COMMITTING:
        problems = _each(steps, lambda step: partial(_ask, committed, step))
    if committed and not problems:
        # On disk first: what `finish` removes may be what told so.
        journal.reach(Phase.FINISHING)
    undone = journal.phase is not Phase.FINISHING
    if not problems:
        problems = undo(steps) if undone else finish(steps)
    if not problems:
        journal.close()
    return Settled(committed, tuple(problems), undone)


def _ask(committed: dict[str, str], step: Step, job: RestoreJob, facts: dict[str, JSON]) -> None:
    if (text := step.archiver.committed(job, facts)) is not None:
        committed[step.job.component.id] = text


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
        step.job.cancel = Cancellation(max_silence=step.job.cancel.max_silence)
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
    return Step(archiver_that_made(component, entry.archiver), job, entry.facts)


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
