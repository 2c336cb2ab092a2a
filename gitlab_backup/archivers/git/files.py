"""The files of one repository while it is written into a backup."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from attrs import define, field

from ...errors import ComponentError, StreamError
from ..base import make_private
from .increments import Taken
from .layout import MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...instance.repositories import Repository
    from ...streams.sink import Sink
    from ..base import BackupJob
    from .increments import Base


@contextmanager
def place_of(job: BackupJob, repository: Repository) -> Iterator[None]:
    """Make the directory of a repository's manifests, which also keeps a second row of the same path out."""
    parts = f"{repository.storage}/{repository.relative_path}"
    root = job.root / job.component.destination
    manifests = root / MANIFESTS / parts
    try:
        make_private(manifests.parent)
        try:
            manifests.mkdir(mode=0o700)
        except FileExistsError:
            raise ComponentError("the database names this place a second time") from None
    except OSError as error:
        raise StreamError(f"the directory {manifests} cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        # Only what is this repository's own and empty: others may be making theirs beside it.
        with suppress(OSError):
            for step in (root / parts).iterdir():
                step.rmdir()
        for directory in (manifests, root / parts):
            with suppress(OSError):
                directory.rmdir()
        raise


@define
class Files:
    """The files of one repository. None counts as written before all of them can be."""

    job: BackupJob
    open: list[Sink | Taken] = field(factory=list)
    made: list[str] = field(factory=list)
    """Directories of files that were taken over."""

    @classmethod
    @contextmanager
    def of(cls, job: BackupJob) -> Iterator[Files]:
        """Give up, at the end of the block, what was not finished in it."""
        files = cls(job)
        try:
            yield files
        finally:
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

    def take(self, base: Base, names: Iterable[str], target: str | None = None) -> None:
        """Take files of the base over, under the same names, or one as `target`."""
        directory = ""
        for name in names:
            new = target or name
            if directory != (directory := new.rpartition("/")[0]):
                self.made.append(f"{self.job.root}/{directory}")
                make_private(self.made[-1])
            self.open.append(Taken.take(self.job, base, name, new))

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

    def finish(self) -> None:
        """Count all files as written."""
        for file in self.open:
            file.finish()
        self.open.clear()
        self.made.clear()
