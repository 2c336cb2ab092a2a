"""`Backup`: the handle that users of the library hold."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from .checksums import FILE_NAME as CHECKSUMS_NAME
from .errors import BackupNotFoundError, DocumentError
from .events import Status, ignore
from .manifest import FILE_NAME as MANIFEST_NAME
from .metadata import FILE_NAME as METADATA_NAME
from .store import BackupStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .archivers.base import RepositoryOptions
    from .components import Component
    from .events import Observer
    from .instance import Instance
    from .manifest import Manifest
    from .metadata import Metadata
    from .operations.plan import PlannedComponent
    from .operations.restore import Proposal, Restored
    from .operations.verify import Verification
    from .streams.cancel import Cancellation


class BackupState(StrEnum):
    """What can be said of a backup without reading all of it. The values are those of `list --json`."""

    COMPLETE = "complete"
    COMPLETE_WITH_WARNINGS = "complete_with_warnings"
    UNVERIFIED = "unverified"
    """Made by GitLab's own tool: it has no manifest that could say how it went."""
    DAMAGED = "damaged"
    """A document of it is missing or cannot be understood."""


@frozen(slots=False)
class Backup:
    """A finished, published backup: a directory that is named by its id. Documents are read when first asked for."""

    path: Path = field(converter=Path)

    @classmethod
    def create(
        cls,
        instance: Instance,
        *,
        only: Iterable[str] = (),
        skip: Iterable[str] = (),
        include: Iterable[str] = (),
        jobs: int | None = None,
        compression: str = "gzip",
        level: int | None = None,
        keep_going: bool = False,
        repositories: RepositoryOptions | None = None,
        archivers: Mapping[str, str] | None = None,
        insecure_store: bool = False,
        rate_limit: int | None = None,
        observer: Observer = ignore,
        cancel: Cancellation | None = None,
    ) -> Backup:
        """Back up `instance` into its backup path.

        `only`, `skip` and `include` are ids of components, of which the last adds optional ones (`config`); `jobs` is
        how many things are done at once (default: one a core); `compression` and `level` name the codec of dumps and
        archives. With `keep_going`, a component that fails is recorded, and the rest is published. `repositories` says
        which of them, and how. `archivers` names, by id, the archivers of components that are not to have their usual
        ones. With `insecure_store`, others may be able to write to the backup path. `rate_limit` is how many bytes a
        second are read, all components together. Events go to `observer`; `cancel` ends the work from another thread.

        Raises `BackupFailedError`, `CancelledError`, `LockedError`, `PluginError`, `RefusedError`, `StoreError` or
        `UsageError`; then there is no new backup.
        """
        from .operations.create import create
        from .operations.plan import options

        chosen = options(
            only=only,
            skip=skip,
            include=include,
            jobs=jobs,
            compression=compression,
            level=level,
            keep_going=keep_going,
            repositories=repositories,
            archivers=archivers,
            insecure_store=insecure_store,
            rate_limit=rate_limit,
        )
        return cls(create(instance, chosen, observer=observer, cancel=cancel))

    @staticmethod
    def plan(
        instance: Instance,
        *,
        only: Iterable[str] = (),
        skip: Iterable[str] = (),
        include: Iterable[str] = (),
        compression: str = "gzip",
        level: int | None = None,
        repositories: RepositoryOptions | None = None,
        archivers: Mapping[str, str] | None = None,
    ) -> tuple[PlannedComponent, ...]:
        """Return what `create` would do with each component. Changes nothing.

        Raises `PluginError`, `RefusedError`, `StoreError` or `UsageError`.
        """
        from .operations.base import on_base
        from .operations.plan import options, plan

        chosen = options(
            only=only,
            skip=skip,
            include=include,
            compression=compression,
            level=level,
            repositories=repositories,
            archivers=archivers,
        )
        return tuple(on_base(BackupStore(instance.backup_path), chosen.repositories, plan(instance, chosen)))

    @classmethod
    def open(cls, store: BackupStore | Path | str, backup_id: str) -> Backup:
        """Return the backup of that id (or `latest`) in a backup path. Raises `BackupNotFoundError`."""
        store = store if isinstance(store, BackupStore) else BackupStore(Path(store))
        return cls(store.open(backup_id))

    @classmethod
    def all(cls, store: BackupStore | Path | str) -> tuple[Backup, ...]:
        """Return all backups in a backup path, oldest first."""
        store = store if isinstance(store, BackupStore) else BackupStore(Path(store))
        return tuple(cls(store.path / backup_id) for backup_id in store.ids())

    @property
    def id(self) -> str:
        """Its backup id, which is the name of its directory."""
        return self.path.name

    @cached_property
    def metadata(self) -> Metadata:
        """What `backup_information.json` says. Raises `MetadataError`."""
        from .metadata import Metadata

        return Metadata.read(self.path)

    @cached_property
    def manifest(self) -> Manifest | None:
        """What `manifest.json` says; None for a backup of GitLab's own tool. Raises `ManifestError`."""
        from .manifest import Manifest

        return Manifest.read(self.path)

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The components that it has. Raises `ManifestError`."""
        from .operations.contents import Contents
        from .operations.verify import components_of

        return tuple(components_of(Contents.of(self.path), self.manifest))

    @property
    def state(self) -> BackupState:
        """What its documents say of it. Never raises: a document that cannot be read is damage."""
        try:
            self.metadata  # noqa: B018 - reading it is the check
            manifest = self.manifest
        except (DocumentError, BackupNotFoundError):
            return BackupState.DAMAGED
        return BackupState.UNVERIFIED if manifest is None else BackupState(manifest.status.value)

    @property
    def partial(self) -> bool | None:
        """Whether it was made with a selection; None where nothing tells. Never raises."""
        try:
            manifest = self.manifest
        except DocumentError:
            return None
        return manifest.partial if manifest is not None else None

    @property
    def has_secrets(self) -> bool:
        """Whether it has the component `config`, which opens the encrypted columns of a database. Never raises."""
        try:
            return self.manifest is not None and self.manifest.has_secrets
        except DocumentError:
            return False

    @property
    def pinned(self) -> bool:
        """Whether it is protected from being pruned, see `BackupStore.pin`."""
        return self.id in BackupStore(self.path.parent).pinned()

    @cached_property
    def size_bytes(self) -> int:
        """The sum of the sizes of its files, in bytes.

        Of what its components have written, that is what the manifest says: there may be millions of files. Where no
        manifest can be read, each file is asked.
        """
        from .operations.prune import size_of

        try:
            manifest = self.manifest
        except DocumentError:
            manifest = None
        if manifest is None:
            return size_of(self.path)
        documents = (self.path / name for name in (METADATA_NAME, MANIFEST_NAME, CHECKSUMS_NAME))
        there = {Status.COMPLETE, Status.WARNING}
        written = sum(record.bytes_written for record in manifest.components if record.status in there)
        return written + sum(size_of(document) for document in documents)

    def verify(
        self,
        *,
        only: Iterable[str] | None = None,
        jobs: int | None = None,
        rate_limit: int | None = None,
        observer: Observer = ignore,
        cancel: Cancellation | None = None,
    ) -> Verification:
        """Read all of it, or the components of `only`; compare digests and check structures.

        `rate_limit` is how many bytes a second are read.
        """
        from .operations.verify import verify

        chosen = None if only is None else frozenset(only)
        return verify(self.path, only=chosen, jobs=jobs, rate_limit=rate_limit, observer=observer, cancel=cancel)

    def restore(
        self,
        instance: Instance,
        *,
        only: Iterable[str] = (),
        skip: Iterable[str] = (),
        include: Iterable[str] = (),
        jobs: int | None = None,
        force_version: bool = False,
        verify: bool = True,
        dry_run: bool = False,
        keep_going: bool = False,
        keep_old: bool = False,
        database_strategy: str | None = None,
        repositories: RepositoryOptions | None = None,
        config_to: Path | None = None,
        insecure_store: bool = False,
        rate_limit: int | None = None,
        confirm: Callable[[Proposal], bool] | None = None,
        observer: Observer = ignore,
        cancel: Cancellation | None = None,
    ) -> Restored:
        """Restore it into `instance`: all of it, or the components of `only` without those of `skip`.

        Everything is checked first, then `confirm` is asked, and only then anything changes. `force_version` restores
        into another version of GitLab; `verify=False` skips the verification; `dry_run` ends after the checks;
        `keep_old` keeps what was replaced (`<name>.before-<backup id>`); `database_strategy` is `swap` or `transaction`
        (default: the better one that is possible); with `insecure_store`, others may be able to write to the backup
        path, and to where this backup lies; `rate_limit` is how many bytes a second are read of it.

        Configuration and secrets (`config`) are restored only where `only` or `include` name them, and then into
        `config_to`, a new or empty directory: they never replace anything.

        Raises `CancelledError`, `DamagedError`, `LockedError`, `RefusedError`, `RestoreFailedError`, `StoreError` or
        `UsageError`; then the instance is as it was.
        """
        from .archivers.base import RepositoryOptions, RestoreOptions
        from .operations.restore import choose, restore

        options = RestoreOptions(
            keep_going=keep_going,
            keep_old=keep_old,
            database_strategy=database_strategy,
            repositories=repositories or RepositoryOptions(),
            config_to=config_to,
        )
        choice = choose(
            only=only,
            skip=skip,
            include=include,
            jobs=jobs,
            options=options,
            force_version=force_version,
            verify=verify,
            dry_run=dry_run,
            insecure_store=insecure_store,
            rate_limit=rate_limit,
        )
        return restore(
            self.path, instance, choice, confirm=confirm or (lambda _proposal: True), observer=observer, cancel=cancel
        )
