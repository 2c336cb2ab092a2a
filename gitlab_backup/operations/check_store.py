"""Checks of the backup path, and of the backups in it."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ..backup_id import BackupId
from ..components import COMPONENTS, Holder
from ..errors import DocumentError, GitLabBackupError, RefusedError
from ..events import Status
from ..manifest import Manifest
from ..sizes import readable_size
from ..streams.files import free_bytes
from .advice import about_missing
from .findings import ok, problem, warning
from .journal import JOURNAL_NAME
from .plan import options, plan
from .prune import Kind, why_not_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..instance import Instance
    from ..store import BackupStore
    from .findings import Finding

_LOOKED_AT: Final = 5
"""Of how many whole backups the growth is told."""
_AHEAD: Final = 10
"""For how many backups to come there should be room, at that growth, where each takes the place of an older one."""


@frozen(kw_only=True)
class Limits:
    """What is expected of the newest complete backup."""

    max_age: timedelta = timedelta(hours=26)
    """A backup each day, and two hours for it to take longer than the day before."""
    min_size: int | None = None
    """Bytes."""


@frozen(kw_only=True)
class Newest:
    """The newest complete backup."""

    backup_id: BackupId
    manifest: Manifest

    @property
    def size(self) -> int:
        """The bytes of its files, as its manifest says."""
        return sum(record.bytes_written for record in self.manifest.components)


@frozen(kw_only=True, slots=False)
class Place:
    """A backup path that is being checked. What several checks need is looked up once."""

    store: BackupStore
    instance: Instance | None
    """None where the configuration cannot be read."""
    limits: Limits
    now: datetime

    @cached_property
    def ids(self) -> tuple[BackupId, ...]:
        """All backups, oldest first."""
        return tuple(map(BackupId.parse, self.store.ids()))

    @cached_property
    def newest(self) -> Newest | None:
        """The newest complete backup that is not of the future; None where there is none."""
        for backup_id in reversed(self.ids):
            path = self.store.path / str(backup_id)
            if backup_id.created_at <= self.now and why_not_whole(path) is None:
                manifest = Manifest.read(path)
                return None if manifest is None else Newest(backup_id=backup_id, manifest=manifest)
        return None

    @cached_property
    def there(self) -> Path:
        """The backup path or, where that does not exist yet, the nearest directory above it that does."""
        path = self.store.path
        while not os.path.lexists(path) and path != path.parent:
            path = path.parent
        return path

    @cached_property
    def free(self) -> int:
        """Bytes that are free in the backup path. Raises `StreamError`."""
        return free_bytes(self.there)


def backup_path(place: Place) -> Iterator[Finding]:
    """Look whether a backup could be written, and who else could write there, or lose it together with the data."""
    about, path = "backup path", place.store.path
    if not place.there.is_dir():
        yield problem(
            about, f"{place.there} is not a directory", "Set another backup path: `backup.path` in gitlab.yml."
        )
        return
    # What is read-only, or refuses root over the network, is not writable to root either.
    if not os.access(place.there, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        yield problem(
            about,
            f"{place.there} cannot be read and written by this user",
            "Run this as root, or check its owner, its mode, and whether its file system is mounted for writing.",
        )
        return
    if place.there != path:
        yield ok(about, f"{path} does not exist yet; the first backup makes it")
    else:
        try:
            place.store.check_private(*((place.instance.system_user,) if place.instance is not None else ()))
            yield ok(about, f"{path} can be written, and only by those who may")
        except RefusedError as error:
            yield problem(about, error.message, error.hint)
    if beside := _on_same_file_system(place):
        yield ok(
            about,
            f"it is on the same file system as {', '.join(beside)}: what destroys one destroys the other",
            "Put it on another file system, or copy the backups to another machine.",
        )


def _on_same_file_system(place: Place) -> list[str]:
    """Return what is backed up from the file system that the backups are on."""
    if place.instance is None:
        return []
    paths = {f"storage {each.name}": each.path for each in place.instance.storages if each.path is not None}
    for component in COMPONENTS:
        if component.holder is Holder.DIRECTORY:
            try:
                paths[component.id] = place.instance.directory(component).path
            except GitLabBackupError:  # told by the check of the directories
                continue
    device = place.there.stat().st_dev
    return [name for name, path in paths.items() if _device(path) == device]


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None


def space(place: Place) -> Iterator[Finding]:
    """Look whether the next backup will fit, as far as the last ones tell."""
    about, free = "free space", readable_size(place.free)
    sizes = _sizes(place)
    if not sizes:
        yield ok(about, f"{free} are free; there is no complete backup that would tell how much is needed")
        return
    to_do = "Make room, keep fewer backups (`gitlab-backup-cli prune`), or use another backup path."
    growth = max((after - before for before, after in pairwise([sizes[0], *sizes])), default=0)
    needed = sizes[-1] + growth
    if place.free < needed:
        yield problem(
            about,
            f"{free} are free, but the next backup is expected to need {readable_size(needed)}: the last one has"
            f" {readable_size(sizes[-1])}, and grew by up to {readable_size(growth)}",
            to_do,
        )
    elif place.free < sizes[-1] + _AHEAD * growth:
        yield warning(
            about,
            f"{free} are free: enough for the next backup ({readable_size(needed)}), but at a growth of up to"
            f" {readable_size(growth)} no more {_AHEAD} backups from now",
            to_do,
        )
    else:
        yield ok(about, f"{free} are free; the next backup is expected to need {readable_size(needed)}")


def _sizes(place: Place) -> list[int]:
    """Return the sizes of the last whole backups, oldest first. Only the newest is looked through for this."""
    if place.newest is None:
        return []
    sizes = [place.newest.size]
    for backup_id in reversed(place.ids):
        if len(sizes) == _LOOKED_AT:
            break
        if backup_id >= place.newest.backup_id:
            continue
        try:
            manifest = Manifest.read(place.store.path / str(backup_id))
        except DocumentError:
            continue
        if manifest is None or manifest.partial or any(each.status is Status.FAILED for each in manifest.components):
            continue
        sizes.append(sum(record.bytes_written for record in manifest.components))
    return sizes[::-1]


def clock(place: Place) -> Iterator[Finding]:
    """Look for backups of the future: then the clock is wrong now, or was when they were made."""
    future = [str(each) for each in place.ids if each.created_at > place.now]
    if future:
        yield problem(
            "clock",
            f"{future[-1]} is of the future: the clock, which says {place.now:%Y-%m-%d %H:%M} UTC, is wrong, or was"
            " when it was made. Ages cannot be trusted, and `latest` may not be the newest",
            "Set the clock (and keep it by NTP). If the backup's time is wrong, make a new one, and delete it by hand.",
        )
    else:
        yield ok("clock", f"{place.now:%Y-%m-%d %H:%M} UTC; no backup is of the future")


def backups(place: Place) -> Iterator[Finding]:
    """Judge the newest complete backup: its age, its size, and whether later ones failed."""
    about, newest = "newest backup", place.newest
    if newest is None:
        yield problem(
            about, f"there is no complete backup in {place.store.path}", "Make one: `gitlab-backup-cli backup all`."
        )
    else:
        age = place.now - newest.backup_id.created_at
        what = f"{newest.backup_id} is complete, {readable_age(age)} old"
        if age > place.limits.max_age:
            yield problem(
                about,
                f"{what}: older than {readable_age(place.limits.max_age)}",
                "Look at the log of the job that makes backups, and run `gitlab-backup-cli backup all` by hand.",
            )
        elif place.limits.min_size is not None and newest.size < place.limits.min_size:
            yield problem(
                about,
                f"{what}, and has {readable_size(newest.size)}: less than {readable_size(place.limits.min_size)}",
                f"Look what it lacks: `gitlab-backup-cli show {newest.backup_id}`.",
            )
        else:
            yield ok(about, f"{what}, and has {readable_size(newest.size)}")
    yield from _later(place)


def _later(place: Place) -> Iterator[Finding]:
    """Name what was made after the newest complete backup, and is none. What was meant to be partial is no flaw."""
    for backup_id in place.ids:
        if place.newest is not None and backup_id <= place.newest.backup_id:
            continue
        flaw = why_not_whole(place.store.path / str(backup_id))
        if flaw is not None and flaw[0] is Kind.INCOMPLETE:
            yield warning(
                "newest backup",
                f"{backup_id} is later, but not complete: {flaw[1]}",
                f"Look at it with `gitlab-backup-cli show {backup_id}`, mend what failed, and make another.",
            )


def secrets(place: Place) -> Iterator[Finding]:
    """Say what a backup does not have, and what a restore is worth nothing without."""
    instance, about = place.instance, "secrets"
    if instance is None:
        return
    if instance.installation == "omnibus":
        where, name = "/etc/gitlab (gitlab.rb, gitlab-secrets.json, keys of TLS and SSH)", "gitlab-secrets.json"
    else:
        where, name = f"{instance.root / 'config'} (gitlab.yml, database.yml, secrets.yml)", "secrets.yml"
    if place.newest is not None and place.newest.manifest.has_secrets:
        yield ok(
            about,
            f"{where}: in the newest backup, which thereby opens the encrypted columns of its own database",
            "Keep the backups where nobody else can read them, or encrypted.",
        )
    else:
        yield ok(
            about,
            f"{where} is not in the newest backup, and without {name} nobody can read the encrypted columns of its"
            " database",
            "Keep a copy of it in another place, apart from the backups; or have it in them, with --include config.",
        )
    if instance.secrets_file is None:
        yield warning(
            about,
            f"{name} was not found, or cannot be read: a backup cannot note which secrets it belongs to",
            "Run this as root, or find out where it is.",
        )


def missing(place: Place) -> Iterator[Finding]:
    """Look for directories that have gone, though an earlier backup has what was in them."""
    if place.instance is None:
        return
    found = about_missing(place.store, place.instance, plan(place.instance, options()))
    for component, message in found.items():
        yield warning(component, message, "Until then a backup is without it, and ends with status 3.")
    if not found:
        yield ok("missing", "no directory is missing that a backup has something of")


def leftovers(place: Place) -> Iterator[Finding]:
    """Look for what killed runs have left. What is being made now is none of it."""
    about, store = "leftovers", place.store
    staged, remains = store.staged(), store.remains()
    journal = store.path / JOURNAL_NAME
    if (running := store.running()) is not None:
        yield ok(about, "{operation} is running (pid {pid}, since {since})".format(**running))
        return
    if os.path.lexists(journal):
        yield problem(
            about,
            f"a restore was interrupted, and has left {journal}: the installation may be between two states",
            "The next backup or restore puts it back: `gitlab-backup-cli restore all latest --dry-run`.",
        )
    if staged or remains:
        yield warning(
            about,
            f"killed runs have left {', '.join((*staged, *remains))} in {store.path}",
            "`gitlab-backup-cli prune --incomplete` removes them, and so does the next backup.",
        )
    elif not os.path.lexists(journal):
        yield ok(about, "killed runs have left nothing")


def readable_age(age: timedelta) -> str:
    """Return a span of time: in minutes, from two hours on in hours, from two days on in days."""
    if age < timedelta(hours=2):
        return f"{age // timedelta(minutes=1)} min"
    if age < timedelta(days=2):
        return f"{age // timedelta(hours=1)} h"
    return f"{age.days} d {age % timedelta(days=1) // timedelta(hours=1)} h"
