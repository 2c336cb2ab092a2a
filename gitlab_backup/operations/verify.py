"""Find out whether a backup is whole: every byte of it, and what the bytes say."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from ..archivers.base import VerifyJob
from ..archivers.registry import archiver_that_made
from ..components import COMPONENTS
from ..errors import CancelledError, GitLabBackupError
from ..events import OperationFinished, OperationStarted, Status, ignore
from ..streams.cancel import Cancellation
from .contents import DOCUMENTS, Contents, Damage, Documents, is_of
from .run import Tally, Telling, checked_rate, default_jobs, limiter, run_all

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from ..components import Component
    from ..events import Observer
    from ..manifest import ComponentRecord, Manifest

__all__ = ["Damage", "Verification", "verify"]


@frozen(kw_only=True)
class Verification:
    """What `verify` has found."""

    backup_id: str
    path: Path
    files: int
    bytes: int
    has_checksums: bool
    """Whether there were digests to compare with. A backup of GitLab's own tools has none, only a structure."""
    damages: tuple[Damage, ...]


def verify(
    path: Path,
    *,
    only: Collection[str] | None = None,
    jobs: int | None = None,
    rate_limit: int | None = None,
    once: bool = True,
    observer: Observer = ignore,
    cancel: Cancellation | None = None,
) -> Verification:
    """Read every file of the backup at `path` once: compare its digest, and check its structure on the way.

    With `only`, the files of these components, and the documents; with `rate_limit`, at most so many bytes a second.
    What is read is not left in the page cache, unless it is to be read again (`once=False`).
    Damage is returned, not raised. Raises `CancelledError`, and `UsageError` for such a limit.
    """
    cancel = cancel or Cancellation()
    jobs = jobs or default_jobs()
    rate = limiter(checked_rate(rate_limit))
    tell = Telling(observer)
    contents = Contents.of(path, once=once)
    documents = Documents.read(contents)
    components = [c for c in components_of(contents, documents.manifest) if only is None or c.id in only]

    def interesting(name: str) -> bool:
        return only is None or name in DOCUMENTS or any(is_of(name, component) for component in components)

    tell(OperationStarted("verify", path.name, path, tuple(component.id for component in components)))
    with cancel.part() as stop:
        if rate is not None:
            contents.pace = partial(rate.take, cancel=stop)
        structures: list[Callable[[], None]] = [
            partial(_verify_component, component, contents, documents.manifest, tell=tell, stop=stop, jobs=jobs)
            for component in components
        ]
        run_all(structures, jobs=jobs, cancel=stop)
        rest = [name for name in filter(interesting, contents.names) if name not in contents.digests]
        run_all([partial(contents.digest, name, stop) for name in rest], jobs=jobs, cancel=stop)
    cancel.check()
    if documents.checksums is not None:
        contents.compare(documents.checksums, interesting)
    damages = tuple(sorted(set(contents.damages)))
    tell(OperationFinished("verify", path.name, f"{len(damages)} damaged" if damages else None))
    return Verification(
        backup_id=path.name,
        path=path,
        files=len(contents.digests),
        bytes=contents.bytes_read,
        has_checksums=documents.checksums is not None,
        damages=damages,
    )


def components_of(contents: Contents, manifest: Manifest | None) -> list[Component]:
    """Return the components that a backup has: as its manifest says, else those that it has files of."""
    if manifest is None:
        return [component for component in COMPONENTS if contents.has(component)]
    made = {record.id for record in manifest.components if record.status in {Status.COMPLETE, Status.WARNING}}
    return [component for component in COMPONENTS if component.id in made]


def record_of(component: Component, manifest: Manifest | None) -> ComponentRecord | None:
    """Return what the manifest says of a component."""
    records = manifest.components if manifest is not None else ()
    return next((record for record in records if record.id == component.id), None)


def _verify_component(
    component: Component, contents: Contents, manifest: Manifest | None, *, tell: Telling, stop: Cancellation, jobs: int
) -> None:
    record = record_of(component, manifest)
    name = record.archiver if record is not None else component.archiver
    tally = Tally(component.id, tell)
    found: list[str] = []

    def damaged(name: str, problem: str) -> None:
        found.append(name)
        contents.damaged(name, problem)

    def count(size: int) -> None:
        tally.progress(size, 0)

    tally.start(name)
    job = VerifyJob(
        component=component,
        root=contents.path,
        backup_id=manifest.backup_id if manifest is not None else contents.path.name,
        details=record.details if record is not None else None,
        jobs=jobs,
        cancel=stop,
        open_file=lambda name: contents.open(name, count),
        open_stream=lambda name: contents.open_stream(name, count),
        damaged=damaged,
        names=contents.listed,
    )
    try:
        stop.check()
        archiver_that_made(component, name).verify(job)
    except CancelledError:
        raise
    except (GitLabBackupError, OSError) as error:
        damaged(component.destination, str(error))
    tally.finish(Status.FAILED if found else Status.COMPLETE, f"{len(found)} damaged" if found else None)
