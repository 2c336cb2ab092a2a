"""Repositories into their places and back: renames within one storage, each of which can be undone after a crash.

All of a restore that is not in its place yet, or no longer, lies in one directory of the storage, below `+gitaly`: what
is there is no repository to Gitaly (`internal/gitaly/storage/walk/walk.go`). It is not below `+gitaly/tmp`, which
Gitaly clears of what is old. In it are

* `new/<relative path>`: what is to be put into place;
* `staged`: a line for each path that the restore is about, written as they become ready;
* `moves`: a line for each path that the swap will touch, complete and on disk before the first of its renames;
* `before/<relative path>`: what was in the place of a new one, or is not in the backup.

So `moves`, and which of `new/P` and `before/P` is there, tell how far each path has come.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from ...errors import ComponentError
from ...streams.files import FileSink, remove_durably, remove_tree, sync_directory, sync_tree
from ...streams.system import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ...streams.cancel import Cancellation

GITALY: Final = "+gitaly"
LEFT_ALONE: Final = frozenset({GITALY, "@pools", "@cluster"})
"""What is at the top of a storage and holds no repositories of a backup: object pools are made anew by GitLab."""
_PARTS: Final = frozenset({"objects", "refs", "HEAD"})


@frozen(kw_only=True)
class _Move:
    """What the swap does with one path."""

    relative: str
    new: bool
    """Whether something new comes to its place; else what is there only goes."""
    missing: int
    """How many directories above the place have to be made."""
    mtime_ns: int
    """When the lowest directory above that is there already was changed last."""

    def line(self) -> bytes:
        return f"{json.dumps([self.relative, self.new, self.missing, self.mtime_ns])}\n".encode()

    @classmethod
    def of(cls, line: str) -> _Move:
        relative, new, missing, mtime_ns = json.loads(line)
        return cls(relative=relative, new=new, missing=missing, mtime_ns=mtime_ns)


@frozen(kw_only=True)
class Place:
    """One storage during a restore."""

    storage: Path
    name: str
    """The name of the directory below `+gitaly`."""
    kept: str | None
    """What its directory `before` is called in the end, below `+gitaly`; None where that is removed."""
    made: bool
    """Whether `+gitaly` is made for it."""
    mtime_ns: int
    """When the directory above was changed last, before."""
    _lock: threading.Lock = field(factory=threading.Lock, eq=False, repr=False)

    @property
    def gitaly(self) -> Path:
        """The directory above."""
        return self.storage / GITALY

    @property
    def work(self) -> Path:
        """The directory of this restore."""
        return self.gitaly / self.name

    @property
    def new(self) -> Path:
        """Where repositories are built, each at its relative path."""
        return self.work / "new"

    @property
    def before(self) -> Path:
        """Where the old ones go."""
        return self.work / "before"

    @property
    def staged(self) -> Path:
        """The list of what is ready."""
        return self.work / "staged"

    @property
    def _moves(self) -> Path:
        return self.work / "moves"

    def make(self) -> None:
        """Make the directories. Raises `OSError`."""
        for directory in (self.gitaly, self.work, self.new, self.before):
            if directory != self.gitaly or not directory.exists():
                system().mkdir(directory, 0o700)
                self.give(directory, 0o700)

    def give(self, path: Path, mode: int) -> None:
        """Set the mode of what was made, and give it to the owner of the storage, where this process may."""
        if os.geteuid() == 0:
            status = self.storage.stat()
            os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
        path.chmod(mode)

    def make_parents(self, path: Path) -> None:
        """Make the directories above `path` that are missing, like the lowest that is there."""
        with self._lock:  # nobody is to use one that is not given away yet
            missing = []
            above = path.parent
            while not above.exists():
                missing.append(above)
                above = above.parent
            mode = stat.S_IMODE(above.stat().st_mode) & 0o777 if missing else 0
            for directory in reversed(missing):
                system().mkdir(directory, 0o700)
                self.give(directory, mode)

    def repositories(self, check: Callable[[], None]) -> Iterator[str]:
        """Yield the relative paths of all repositories, as Gitaly finds them; none that `LEFT_ALONE` has."""
        top = str(self.storage)
        for directory, below, files in os.walk(top):
            check()
            if directory == top:
                below[:] = [name for name in below if name not in LEFT_ALONE]
            elif {*below, *files} >= _PARTS:
                below.clear()
                yield os.path.relpath(directory, top)
            below.sort()

    def swap(self, belongs: Callable[[str], bool] | None, cancel: Cancellation) -> None:
        """Put everything that is staged into its place, and move aside what was there, and all that does not belong.

        Where `belongs` is None, everything does.
        """
        planned = self._moves.with_suffix(".incomplete")
        with FileSink(planned) as lines:
            for relative in self.repositories(cancel.check) if belongs is not None else ():
                if belongs is not None and not belongs(relative):
                    lines.write(self._planned(relative, new=False).line())
            for relative, new in self._staged():
                lines.write(self._planned(relative, new=new).line())
        sync_tree(self.work)
        system().rename(planned, self._moves)
        sync_directory(self.work)
        sync_directory(self.gitaly)
        sync_directory(self.storage)
        for move in self._read():
            self._do(move)
        self._sync_places()

    def undo(self) -> None:
        """Put everything back as it was before. Can be called again after a crash at any moment of it."""
        if self._moves.exists():
            for new in (True, False):
                for move in self._read():
                    if move.new is new:
                        self._undo(move)
            self._sync_places()
            for move in self._read():
                above = self._above(move)
                with suppress(FileNotFoundError):
                    os.utime(above, ns=(above.stat().st_atime_ns, move.mtime_ns))
            # Without it no later call can take what is in place for what is new, while that is being removed.
            remove_durably(self._moves)
        elif self.before.is_dir() and any(self.before.iterdir()):
            raise ComponentError(
                f"{self.before} has repositories, but {self._moves}, which says what was done with them, is missing",
                hint="Move them back into the storage by hand, each to the same relative path, then remove that.",
            )
        self._remove()

    def finish(self) -> None:
        """Let go of the old ones. Can be called again."""
        if self.kept is not None and self.before.is_dir():
            if any(self.before.iterdir()):
                system().rename(self.before, self.gitaly / self.kept)
            sync_directory(self.gitaly)
        self._remove(keep_time=False)

    def _remove(self, *, keep_time: bool = True) -> None:
        remove_tree(self.work)
        if self.made:
            with suppress(OSError):
                self.gitaly.rmdir()
        above = self.storage if self.made else self.gitaly
        if keep_time and above.exists():
            os.utime(above, ns=(above.stat().st_atime_ns, self.mtime_ns))

    def _staged(self) -> Iterator[tuple[str, bool]]:
        with self.staged.open(encoding="ascii") as file:
            for line in file:
                relative, new = json.loads(line)
                yield relative, new

    def _read(self) -> Iterator[_Move]:
        with self._moves.open(encoding="ascii") as file:
            for line in file:
                yield _Move.of(line)

    def _planned(self, relative: str, *, new: bool) -> _Move:
        above = (self.storage / relative).parent
        missing = 0
        while not above.is_dir() or (above != self.storage and is_repository(above)):
            above = above.parent
            missing += 1
        return _Move(relative=relative, new=new, missing=missing, mtime_ns=above.stat().st_mtime_ns)

    def _above(self, move: _Move) -> Path:
        return (self.storage / move.relative).parents[move.missing]

    def _do(self, move: _Move) -> None:
        place = self.storage / move.relative
        if os.path.lexists(place):
            aside = self.before / move.relative
            self.make_parents(aside)
            system().rename(place, aside)
        if move.new:
            self.make_parents(place)
            system().rename(self.new / move.relative, place)

    def _undo(self, move: _Move) -> None:
        place, new, aside = self.storage / move.relative, self.new / move.relative, self.before / move.relative
        if move.new:
            if not os.path.lexists(new) and os.path.lexists(place):
                self.make_parents(new)
                system().rename(place, new)
            for directory in place.parents[: move.missing]:
                with suppress(OSError):  # not empty, or never made
                    directory.rmdir()
        if os.path.lexists(aside):
            self.make_parents(place)
            system().rename(aside, place)

    def _sync_places(self) -> None:
        sync_tree(self.work)
        last = None
        for move in self._read():
            above = (self.storage / move.relative).parent
            if above != last and above.is_dir():
                sync_directory(above)
            if above != last and move.missing:
                sync_directory(self._above(move))
            last = above


def is_repository(path: Path) -> bool:
    """Tell whether `path` is what Gitaly takes for a repository."""
    return (path / "objects").is_dir() and (path / "refs").is_dir() and (path / "HEAD").is_file()
