"""Restores a directory: the new tree is built beside the old one, then they change places by renames.

*Beside* is the usual way, two renames next to each other: the old gets its name of before, the new gets its place. They
could be one (RENAME_EXCHANGE), but then, after a crash in between, names would not tell which tree is which. With two
renames, a name says at every moment what a tree is, and `undo` needs nothing else; for the instant between them there
is no directory, which a GitLab that is stopped does not notice.

*Inside* is the way for a mount point, and where the parent may not be written. The new tree is built in a hidden
directory inside the target, and entries move one by one: the old ones into `.moving…`, which becomes `.before…` when
all of them are there, then the new ones to their places. So the name of that directory says how far it went.

What a backup leaves out at the top of a directory (`tmp`) is not brought over, but GitLab may not be able to make it:
the new tree gets an empty directory of that name, with owner and mode of the old one. `lost+found` belongs to its file
system: it stays where it is.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import asdict, frozen

from ...errors import ComponentError, StreamError
from ...streams.codec import plausible_size
from ...streams.files import free_bytes, remove_tree, sync_directory, sync_tree
from ...streams.system import system
from ...streams.tar import ExtractLimits, extract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...components import Component
    from ..base import JSON, RestoreJob

LOST_AND_FOUND: Final = "lost+found"
"""Made by the file system, at its top."""


OF_A_RESTORE: Final = re.compile(r"\.(?:before|moving|restoring)-\d+_\d{4}_\d{2}_\d{2}_.*", re.DOTALL)
"""The names that a restore *inside* gives to trees, with the id of the backup."""


def recorded_size(job: RestoreJob) -> tuple[int, int] | None:
    """Return the numbers of members and of bytes of data that the manifest says, if it does."""
    details = job.details or {}
    members, data = details.get("members"), details.get("data_bytes")
    return (members, data) if isinstance(members, int) and isinstance(data, int) else None


def archives(root: Path, component: Component) -> list[str]:
    """Return the files of the backup at `root` that are the component's archive, with any suffix; sorted."""
    name = component.destination
    return sorted(path.name for path in root.iterdir() if path.name == name or path.name.startswith(f"{name}."))


@frozen(kw_only=True)
class Attributes:
    """What a directory is like, besides what is in it."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int

    @classmethod
    def of(cls, directory: Path) -> Attributes:
        """Read them. Raises `OSError`."""
        status = directory.stat()
        return cls(mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid, mtime_ns=status.st_mtime_ns)

    def give(self, directory: Path) -> None:
        """Set what differs, as far as this user may. Raises `OSError`."""
        now = directory.stat()
        with _as_allowed():
            if (now.st_uid, now.st_gid) != (self.uid, self.gid):
                os.chown(directory, self.uid, self.gid)
        with _as_allowed():
            if stat.S_IMODE(directory.stat().st_mode) != self.mode:
                directory.chmod(self.mode)
        _set_time(directory, self.mtime_ns)


@frozen(kw_only=True)
class Restoration:
    """One restore of one directory: names and facts, the same in every process. Its methods are the steps."""

    archive: str
    """The file of the backup."""
    target: Path
    """The real directory, symbolic links resolved."""
    inside: bool
    new: Path
    old: Path
    moving: Path
    """What `old` is called while entries are moved into it. Only *inside*."""
    made: tuple[Path, ...] = ()
    """Directories above the target that do not exist yet, the uppermost first."""
    before: Attributes | None
    """The target's; None where it did not exist."""
    above: Path
    """The directory whose modification time changes: the nearest one above that exists; the target itself *inside*."""
    above_mtime_ns: int
    excludes: tuple[str, ...] = ()
    """Names at the top that get an empty directory where the old tree has one."""

    def facts(self) -> dict[str, JSON]:
        """Return all of it as JSON."""

        def plain(_instance: object, _field: object, value: object) -> object:
            if isinstance(value, tuple):
                return [str(each) for each in value]
            return str(value) if isinstance(value, Path) else value

        return asdict(self, value_serializer=plain)

    @classmethod
    def of(cls, facts: Mapping[str, JSON]) -> Restoration:
        """Return what `facts` returned the JSON of. Raises `ComponentError`."""
        try:
            paths = {name: Path(str(facts[name])) for name in ("target", "new", "old", "moving", "above")}
            before, made, excludes = facts["before"], facts["made"], facts["excludes"]
            if not isinstance(made, list) or not isinstance(excludes, list):
                raise TypeError("made and excludes are lists")  # noqa: TRY301
            return cls(
                archive=str(facts["archive"]),
                inside=bool(facts["inside"]),
                made=tuple(Path(str(path)) for path in made),
                before=Attributes(**before) if isinstance(before, Mapping) else None,  # type: ignore[arg-type]
                above_mtime_ns=int(str(facts["above_mtime_ns"])),
                excludes=tuple(str(name) for name in excludes),
                **paths,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ComponentError(f"what was planned for a directory cannot be understood: {error!r}") from error

    # The steps

    def stage(self, job: RestoreJob) -> None:
        """Extract the archive; complete and on disk afterwards. The old is untouched."""
        for directory in self.made:
            with suppress(FileExistsError):  # another component's restore may need it too
                system().mkdir(directory, 0o755)
                directory.chmod(0o755)  # whatever the umask: GitLab must get through
        system().mkdir(self.new, 0o700)
        self.new.chmod(0o700)
        limits = self._limits(job)
        root = os.open(self.new, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with job.open_stream(self.archive) as stream:
                extracted = extract(
                    stream, root, cancel=job.cancel, limits=limits, progress=job.progress, jobs=job.jobs
                )
        except StreamError as error:
            raise type(error)(f"{self.archive}: {error.message}", hint=error.hint) from error
        finally:
            os.close(root)
        if limits.members is not None and extracted.members != limits.members:
            raise ComponentError(
                f"{self.archive} has {extracted.members} members, not {limits.members} as when it was made"
            )
        if not extracted.members:
            raise ComponentError(f"{self.archive} has no members, not even the directory itself")
        if not extracted.has_root:
            mode = self.before.mode if self.before is not None else 0o755
            if self.before is not None and os.geteuid() == 0:
                os.chown(self.new, self.before.uid, self.before.gid)
            self.new.chmod(mode)
        if extracted.not_given:
            job.warn(
                f"{extracted.not_given} entries have not got the owner or group that they had: only root may give them"
            )
        self._make_excluded()
        if self.inside and (self.new / LOST_AND_FOUND).exists() and (self.target / LOST_AND_FOUND).exists():
            raise ComponentError(f"{self.archive} has a {LOST_AND_FOUND}, which {self.target} has of its own")
        job.cancel.check()  # the rest may take long
        sync_tree(self.new)
        for directory in {self.new.parent, *(made.parent for made in self.made)}:
            sync_directory(directory)

    def _limits(self, job: RestoreJob) -> ExtractLimits:
        """Return what the manifest says, else what an honest archive of this size keeps to."""
        if recorded := recorded_size(job):
            return ExtractLimits(members=recorded[0], data_bytes=recorded[1])
        free = free_bytes(self.new)
        most = plausible_size((job.root / self.archive).stat().st_size)
        if free < most:
            return ExtractLimits(space=free, space_reason="all that is free on the file system")
        return ExtractLimits(space=most, space_reason="out of so small an archive: it seems made to fill the disk")

    def _make_excluded(self) -> None:
        attributes = Attributes.of(self.new)
        with _writable(self.new, attributes):
            for name in self.excludes:
                model = self.target / name
                if model.is_dir() and not model.is_symlink() and not os.path.lexists(self.new / name):
                    system().mkdir(self.new / name, 0o700)
                    Attributes.of(model).give(self.new / name)

    def swap(self) -> None:
        """Move the old aside and the new to its place."""
        if not self.inside:
            if self.before is None:
                system().mkdir(self.old, 0o700)  # says that the swap has begun
            else:
                _move(self.target, self.old)
            _move(self.new, self.target)
            sync_directory(self.target.parent)
            return
        attributes = Attributes.of(self.new)
        system().mkdir(self.moving, 0o700)
        self._move_all(self.target, self.moving)
        _move(self.moving, self.old)
        with _writable(self.new, attributes):
            self._move_all(self.new, self.target)
        self.new.rmdir()
        attributes.give(self.target)
        sync_directory(self.old)
        sync_directory(self.target)

    def undo(self) -> None:
        """Put back the old, whatever has been done, and remove the new."""
        if self.inside:
            self._undo_inside()
        else:
            self._undo_beside()
        remove_tree(self.new)
        for directory in reversed(self.made):
            _remove_if_empty(directory)
        if self.inside and self.before is not None:
            self.before.give(self.target)
        else:
            _set_time(self.above, self.above_mtime_ns)
        sync_directory(self.above)

    def _undo_beside(self) -> None:
        if not os.path.lexists(self.old):
            return
        if os.path.lexists(self.target):
            _move(self.target, self.new)
        if self.before is None:
            self.old.rmdir()
        else:
            _move(self.old, self.target)

    def _undo_inside(self) -> None:
        with _as_allowed():  # root needs no right, and the swap may have taken the owner's away
            self.target.chmod(stat.S_IMODE(self.target.stat().st_mode) | stat.S_IRWXU)
        if os.path.lexists(self.old):
            with suppress(FileExistsError):
                system().mkdir(self.new, 0o700)
            self.new.chmod(0o700)
            self._move_all(self.target, self.new)
            _move(self.old, self.moving)
        if os.path.lexists(self.moving):
            self._move_all(self.moving, self.target)
            self.moving.rmdir()

    def finish(self, *, keep_old: bool) -> None:
        """Remove the old."""
        attributes = Attributes.of(self.target)
        if not keep_old or self.before is None:
            remove_tree(self.old)
        if self.inside:
            attributes.give(self.target)
        sync_directory(self.old.parent)

    def _move_all(self, source: Path, target: Path) -> None:
        own = {self.new, self.old, self.moving, self.target / LOST_AND_FOUND}
        for name in os.listdir(source):  # noqa: PTH208 - all of it, before it changes
            if source / name not in own:
                _move(source / name, target / name)


@contextmanager
def _writable(directory: Path, attributes: Attributes) -> Iterator[None]:
    """Let the owner write into a directory, and give it its attributes again in the end, if it is still there."""
    directory.chmod(attributes.mode | stat.S_IRWXU)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            attributes.give(directory)


@contextmanager
def _as_allowed() -> Iterator[None]:
    """Pass over what this user may not do to a directory, though it may write in it. Root may do everything."""
    try:
        yield
    except PermissionError:
        if os.geteuid() == 0:
            raise


def _set_time(directory: Path, mtime_ns: int) -> None:
    status = directory.stat()
    if status.st_mtime_ns != mtime_ns:
        with _as_allowed():
            os.utime(directory, ns=(status.st_atime_ns, mtime_ns))


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # in use by another component, whose own undo removes it
            raise


def _move(source: Path, target: Path) -> None:
    """Rename. The look before it is for names that somebody else made meanwhile: nobody should be at work here."""
    if os.path.lexists(target):
        raise ComponentError(
            f"{source} cannot be moved to {target}: something is there",
            hint="Somebody made it during the restore. Stop GitLab, move it away, and run the command again.",
        )
    system().rename(source, target)
