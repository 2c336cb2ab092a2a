"""The files of one repository while it is written into a backup."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from ...errors import ComponentError, StreamError
from ...streams.link import link
from ...streams.system import system
from ..base import make_private
from .increments import Taken
from .layout import MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...instance.repositories import Repository
    from ...streams.sink import Sink
    from ..base import BackupJob
    from .increments import Base


def _make_new(directory: str) -> None:
    try:
        try:
            system().mkdir(directory, 0o700)
        except FileNotFoundError:
            make_private(os.path.dirname(directory))  # noqa: PTH120 - a Path for each of many is slow
            system().mkdir(directory, 0o700)
    except FileExistsError:
        raise ComponentError("the database names this place a second time") from None
    except OSError as error:
        raise StreamError(f"the directory {directory} cannot be made: {error.strerror}") from error


@define
class Files:
    """The files of one repository. None counts as written before all of them can be."""

    job: BackupJob
    open: list[Sink | Taken] = field(factory=list)
    made: list[str] = field(factory=list)
    """Directories of files that were taken over."""

    @classmethod
    @contextmanager
    def of(cls, job: BackupJob, repository: Repository) -> Iterator[Files]:
        """Make the directory of a repository's manifests, which also keeps a second row of the same path out.

        At the end of the block, what was not finished in it is given up; where it fails, with the directories.
        """
        parts = f"{repository.storage}/{repository.relative_path}"
        root = f"{job.root}/{job.component.destination}"
        manifests = f"{root}/{MANIFESTS}/{parts}"
        _make_new(manifests)
        files = cls(job)
        try:
            yield files
        except BaseException:
            files.discard()
            # Only what is this repository's own and empty: others may be making theirs beside it.
            with suppress(OSError):
                for step in Path(root, parts).iterdir():
                    step.rmdir()
            for directory in (manifests, f"{root}/{parts}"):
                with suppress(OSError):
                    os.rmdir(directory)  # noqa: PTH106 - a Path for each of many is slow
            raise
        files.discard()  # does nothing to those that are finished

    def create(self, relative: str) -> Sink:
        """Create a file, relative to the directory of the component."""
        sink = self.job.create_file(f"{self.job.component.destination}/{relative}")
        self.open.append(sink)
        return sink

    @contextmanager
    def attempt(self, relative: str) -> Iterator[Sink]:
        """Create a file that goes away when the block fails, so that it can be created again."""
        sink = self.create(relative)
        try:
            yield sink
        except BaseException:
            sink.abort()
            self.open.remove(sink)
            raise

    def take(self, base: Base, names: Iterable[str]) -> None:
        """Take files of the base over, under the same names."""
        directory = ""
        for name in names:
            if directory != (directory := name.rpartition("/")[0]):
                self.made.append(f"{self.job.root}/{directory}")
                make_private(self.made[-1])
            self.open.append(Taken.take(self.job, base, name, name, base.check(name)))

    def take_read(self, base: Base, name: str, size: int, target: str) -> None:
        """Take a file of the base that was just read (`size` bytes) over as `target`, whose directory is there."""
        self.open.append(Taken.take(self.job, base, name, target, size))

    def discard(self) -> None:
        """Give up all files so far."""
        for file in self.open:
            file.abort()
        self.open.clear()
        for directory in self.made:
            with suppress(OSError):  # not empty
                os.rmdir(directory)  # noqa: PTH106 - a Path for each of many is slow
        self.made.clear()

    def write(self, relative: str, content: bytes) -> None:
        """Write a file, and finish it."""
        sink = self.create(relative)
        sink.write(content)
        sink.finish()

    def copy(self, relative: str, name: str, content: bytes) -> None:
        """Give a file that was just written a second name, else write it again."""
        root = self.job.component.destination
        if not link(f"{self.job.root}/{root}/{relative}", f"{self.job.root}/{root}/{name}"):
            self.write(name, content)
            return
        self.job.progress(0, len(content))
        self.job.written(f"{root}/{name}", hashlib.sha256(content).hexdigest())

    def finish(self) -> None:
        """Count all files as written."""
        for file in self.open:
            file.finish()
        taken = [file for file in self.open if isinstance(file, Taken)]
        if taken:
            self.job.progress(0, sum(file.size for file in taken))
            taken[0].base.took(taken)
        self.open.clear()
        self.made.clear()
