"""What has to be known before a directory is restored."""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import ComponentError, RefusedError
from ...instance.directories import state
from ...streams.tar import MEMBER_SPACE
from ..base import RestorePlan
from .restore import LOST_AND_FOUND, Attributes, Restoration, archives, recorded_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..base import RestoreJob

_COUNTED: Final = 100_000
"""Entries that are counted for the person who has to say yes. More would take too long."""
_RATIO: Final = 4
"""How many times larger the content of a compressed archive is taken to be, where nothing says it."""
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_NAME_LENGTH: Final = 255


def plan_restore(job: RestoreJob) -> RestorePlan:
    """Look at the archive, and at the place for it.

    Raises `RefusedError` where GitLab would not see what is restored, or it cannot be done; `ComponentError` where the
    backup has no archive.
    """
    target, existed = _target(job)
    return plan_at(job, target, existed=existed)


def plan_at(job: RestoreJob, target: Path, *, existed: bool) -> RestorePlan:
    """Plan to put the archive of a component in the place of `target`, which has no symbolic links in its path.

    Raises `ComponentError` and `RefusedError`.
    """
    component = job.component
    found = archives(job.root, component)
    if not found:
        raise ComponentError(f"the backup {job.backup_id} has no archive {component.destination}")
    if len(found) > 1:
        raise RefusedError(
            f"the backup {job.backup_id} has more than one archive of {component.id}: {', '.join(found)}",
            hint=f"Only one of them can be right. Move the others away, or use --skip {component.id}.",
        )
    inside = existed and _must_stay(target)
    made = () if existed else tuple(_missing(target))
    above = target if inside else (made[0].parent if made else target.parent)
    _check_writable(above, job)
    if inside and not made:
        _check_writable(target, job)
    new, old, moving = _names(target, inside=inside, backup_id=job.backup_id)
    restoration = Restoration(
        archive=found[0],
        target=target,
        inside=inside,
        new=new,
        old=old,
        moving=moving,
        made=made,
        before=Attributes.of(target) if existed else None,
        above=above,
        above_mtime_ns=above.stat().st_mtime_ns,
        excludes=component.excludes,
    )
    size, guess = _size(job, found[0])
    notes = [f"{target} is replaced inside: it is a mount point, or its parent cannot be written"] if inside else []
    if guess:
        notes.append(f"{found[0]}: how much space it needs is a guess: the backup does not say its size")
    return RestorePlan(
        replaces=(_describe(target) if existed else f"directory {target}: does not exist yet",),
        notes=tuple(notes),
        facts=restoration.facts(),
        space=((above, size),),
    )


def _target(job: RestoreJob) -> tuple[Path, bool]:
    component = job.component
    directory = job.instance.directory(component)
    missing = state(directory.path)
    if directory.left_out is not None and directory.left_out != missing:
        raise RefusedError(
            f"{component.name}: {directory.left_out} here; GitLab would not see what is restored into {directory.path}",
            hint=f"Leave it out with --skip {component.id}, or change gitlab.yml.",
        )
    target = Path(os.path.realpath(directory.path))
    if os.path.lexists(target) and not target.is_dir():
        raise RefusedError(f"{component.name}: {target} is not a directory", hint="Move it away, then try again.")
    backup = Path(os.path.realpath(job.root))
    if backup.is_relative_to(target):
        raise RefusedError(
            f"{component.name}: the backup lies in the directory {target} that it would replace",
            hint="Move the backup to another place first.",
        )
    if inner := sorted(mount for mount in _mounts() if mount != target and mount.is_relative_to(target)):
        raise RefusedError(
            f"{component.name}: {inner[0]} is mounted inside {target}, and cannot be moved aside with it",
            hint=f"Unmount it for the time of the restore, or use --skip {component.id}.",
        )
    return target, missing is None


def _must_stay(target: Path) -> bool:
    """Return whether the directory itself cannot be renamed."""
    return (
        target in set(_mounts())  # also where a directory of the same file system is mounted
        or target.stat().st_dev != target.parent.stat().st_dev
        or not os.access(target.parent, os.W_OK | os.X_OK)
        or _of_others(target)
    )


def _of_others(target: Path) -> bool:
    """Return whether a sticky parent keeps this user from renaming the directory."""
    parent = target.parent.stat()
    user = os.geteuid()
    return bool(parent.st_mode & stat.S_ISVTX) and user not in (0, parent.st_uid, target.stat().st_uid)


def _mounts() -> Iterator[Path]:
    """Yield every mount point. See proc(5), /proc/pid/mountinfo: white space in a path is written in octal."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        path = line.split(b" ")[4]
        for octal, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
            path = path.replace(octal, byte)
        yield Path(os.fsdecode(path))


def _missing(target: Path) -> list[Path]:
    """Return the directories above `target` that do not exist, the uppermost first."""
    missing: list[Path] = []
    parent = target.parent
    while not os.path.lexists(parent):
        missing.insert(0, parent)
        parent = parent.parent
    return missing


def _check_writable(directory: Path, job: RestoreJob) -> None:
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        raise RefusedError(
            f"{job.component.name}: {directory} cannot be written",
            hint=f"Run this as root, or as the user that it belongs to; or use --skip {job.component.id}.",
        )


def _names(target: Path, *, inside: bool, backup_id: str) -> tuple[Path, Path, Path]:
    """Return free names for the new tree, the old one, and the old one while it is moved."""
    number = 1
    while True:
        suffix = backup_id if number == 1 else f"{backup_id}-{number}"
        names = [f".{kind}-{suffix}" for kind in ("restoring", "before", "moving")]
        if not inside:
            room = _NAME_LENGTH - max(len(name) for name in names)
            base = os.fsdecode(os.fsencode(target.name)[:room])
            names = [base + name for name in names]
        new, old, moving = ((target if inside else target.parent) / name for name in names)
        if not any(os.path.lexists(path) for path in (new, old, moving)):
            return new, old, moving
        number += 1


def _size(job: RestoreJob, archive: str) -> tuple[int, bool]:
    """Return how many bytes the new tree needs, and whether that is a guess."""
    if recorded := recorded_size(job):
        return recorded[1] + recorded[0] * MEMBER_SPACE, False
    size = (job.root / archive).stat().st_size
    return size * (1 if archive == job.component.destination else _RATIO), True


def _describe(target: Path) -> str:
    entries = sizes = 0
    for path, is_file in islice(_walk(target), _COUNTED):
        entries += 1
        if is_file:
            try:
                sizes += os.lstat(path).st_size
            except OSError:
                continue
    more = "more than " if entries == _COUNTED else ""
    return f"directory {target}: {more}{entries:,} entries, {more}{_readable(sizes)}"


def _walk(top: Path) -> Iterator[tuple[str, bool]]:
    """Yield the entries of a tree as far as they can be read, and whether they are files."""
    pending = [str(top)]
    while pending:
        try:
            with os.scandir(pending.pop()) as listing:
                for entry in listing:
                    if entry.is_dir(follow_symlinks=False) and entry.name != LOST_AND_FOUND:
                        pending.append(entry.path)
                    yield entry.path, entry.is_file(follow_symlinks=False)
        except OSError:
            continue


def _readable(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1024:  # noqa: PLR2004
            return f"{size:,.0f} {unit}" if unit == _UNITS[0] else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} {_UNITS[-1]}"
