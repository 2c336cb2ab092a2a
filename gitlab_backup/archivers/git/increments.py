"""The backup that repositories are increments on: what it has of them, and whether that is still what it was.

An increment on a damaged backup would be worthless, and reading all of a backup would cost as much as making one in
full. So of each file that is taken over it is checked that `SHA256SUMS` lists it, that it is there, and that it was not
written to since `SHA256SUMS` was, which is the last of a backup's files. One without an earlier time is read, and
compared with its digest (times are as coarse as the kernel's clock, 1 to 10 ms); so are manifests and lists of refs
where they are read anyway, and what can only be copied. Bytes that changed behind the file system's back are found by
verifying either backup.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from attrs import define, field, frozen

from ...checksums import FILE_NAME as CHECKSUMS_NAME
from ...checksums import Checksums
from ...errors import ComponentError, CorruptStreamError
from ...streams.files import FileSink
from ...streams.link import link
from .layout import ABSENT, RepositoryManifest, Step, manifest_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from ..base import JSON, BackupJob

MOST_STEPS: Final = 30
"""How many steps a repository may have. Each is a pack that a restore reads, so then comes a full one again."""
_EMPTY: Final = hashlib.sha256().hexdigest()
"""The digest of an empty list of refs."""
_PIECE: Final = 1 << 20
_MOST_MANIFESTS: Final = 1 << 14
"""Bytes that most manifests have at most: to be asked for more than there is would take memory for it."""
_LARGEST_MANIFEST: Final = 16 << 20
"""Bytes; a step takes less than a kibibyte."""


@frozen(kw_only=True)
class Base:
    """A backup to build on. Names of files are relative to a backup."""

    directory: Path
    destination: str
    """The directory of the component in a backup."""
    digests: Mapping[str, str] = field(repr=False)
    _sealed_ns: int = field(repr=False)
    """When its `SHA256SUMS` was written."""
    _taken: Counter[str] = field(factory=Counter, repr=False, eq=False)
    _lock: threading.Lock = field(factory=threading.Lock, repr=False, eq=False)

    @classmethod
    def of(cls, job: BackupJob) -> Base | None:
        """Return the base of `job`, where one was chosen.

        Raises `ComponentError` where it has no checksums, and `ChecksumsError` where they cannot be understood.
        """
        directory = job.repositories.base
        if directory is None:
            return None
        checksums = Checksums.read(directory)
        if checksums is None:
            raise ComponentError(f"{directory} has no {CHECKSUMS_NAME}: nothing tells whether it is intact")
        sealed = (directory / CHECKSUMS_NAME).stat().st_mtime_ns
        return cls(
            directory=directory, destination=job.component.destination, digests=checksums.digests, sealed_ns=sealed
        )

    @property
    def backup_id(self) -> str:
        """The id of that backup."""
        return self.directory.name

    def took(self, files: Iterable[Taken]) -> None:
        """Count files that were taken over."""
        with self._lock:
            for file in files:
                self._taken["linked_files" if file.linked else "copied_files"] += 1
                self._taken["linked_bytes" if file.linked else "copied_bytes"] += file.size

    def details(self) -> dict[str, JSON]:
        """Return what the manifest should say: its id, and how much was taken over from it, and how."""
        return {"base": self.backup_id, **dict(sorted(self._taken.items()))}

    def earlier(self, storage: str, relative_path: str) -> Earlier | None:
        """Return what the base has of a repository; None where that is nothing to build on.

        That is: nothing at all, a repository that did not exist or was empty, or one with `MOST_STEPS`.
        Raises `CorruptStreamError`, with the name of the file, where its manifest is damaged, or files are missing.
        """
        name = f"{self.destination}/{manifest_path(storage, relative_path, self.backup_id)}"
        if name not in self.digests:
            return None
        content = self.read(name)
        try:
            manifest = RepositoryManifest.from_toml(content)
        except CorruptStreamError as error:
            raise CorruptStreamError(f"{name} {error.message}") from None
        if manifest.empty or manifest.non_existent or len(manifest.steps) >= MOST_STEPS:
            return None
        names: list[str] = []
        for step in manifest.steps:
            if not step.ref_path.startswith(f"{storage}/{relative_path}/"):
                raise CorruptStreamError(f"{name} names a file of another repository: {step.ref_path}")
            refs, bundle, hooks = (
                f"{self.destination}/{path}" for path in (step.ref_path, step.bundle_path, step.custom_hooks_path)
            )
            needed = [refs] if self.digests.get(refs) == _EMPTY else [refs, bundle]
            names += [*needed, *([hooks] if hooks in self.digests else ())]
        for file in names:
            if file not in self.digests:
                raise CorruptStreamError(f"{file} is missing: {name} names it")
        earlier = Earlier(
            base=self, manifest=manifest, manifest_name=name, manifest_size=len(content), names=tuple(names)
        )
        return None if earlier.refs_sha256 == _EMPTY else earlier

    def absent(self, storage: str, relative_path: str) -> tuple[str, int] | None:
        """Return the name and the size of the manifest that says that a repository did not exist; None without one."""
        name = f"{self.destination}/{manifest_path(storage, relative_path, self.backup_id)}"
        with suppress(CorruptStreamError):
            if name in self.digests and (content := self.read(name)).startswith(ABSENT):
                return name, len(content)
        return None

    def check(self, name: str) -> int:
        """Return the size of a file, in bytes.

        Raises `CorruptStreamError` where it is not what it was, as far as that can be told; see above.
        """
        path = f"{self.directory}/{name}"
        try:
            status = os.lstat(path)
        except OSError as error:
            raise CorruptStreamError(f"{name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise CorruptStreamError(f"{name} is not a file")
        if status.st_mtime_ns >= self._sealed_ns:
            with self.open(name) as file:
                while file.read(_PIECE):
                    pass
        return status.st_size

    def read(self, name: str) -> bytes:
        """Return the content of a small file, checked. Raises `CorruptStreamError`."""
        fd = self._descriptor(name)
        try:
            content = os.read(fd, _MOST_MANIFESTS)
            # Shorter than that is not always all of it, but then its digest is wrong.
            if len(content) == _MOST_MANIFESTS:
                content += os.read(fd, _LARGEST_MANIFEST)
        except OSError as error:
            raise CorruptStreamError(f"{name} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)
        if hashlib.sha256(content).hexdigest() != self.digests[name]:
            raise CorruptStreamError(f"{name} is not what {CHECKSUMS_NAME} says")
        return content

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a file, to be read to its end. Raises `CorruptStreamError`, at the latest when the block ends."""
        with os.fdopen(self._descriptor(name), "rb", buffering=0) as file:
            digested = _Digested(file, name)
            yield cast("BinaryIO", digested)  # all that is done with it is reading
        if digested.sha256.hexdigest() != self.digests[name]:
            raise CorruptStreamError(f"{name} is not what {CHECKSUMS_NAME} says")

    def _descriptor(self, name: str) -> int:
        try:
            return os.open(f"{self.directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise CorruptStreamError(f"{name} cannot be read: {error.strerror}") from error


@frozen(kw_only=True)
class Earlier:
    """What the base has of one repository."""

    base: Base = field(repr=False)
    manifest: RepositoryManifest
    manifest_name: str
    manifest_size: int
    names: tuple[str, ...]
    """The files of all steps."""

    @property
    def last(self) -> Step:
        """The newest step."""
        return self.manifest.steps[-1]

    @property
    def refs_name(self) -> str:
        """The list of refs of the newest step."""
        return f"{self.base.destination}/{self.last.ref_path}"

    @property
    def refs_sha256(self) -> str:
        """The digest of that list."""
        return self.base.digests[self.refs_name]

    @property
    def hooks_sha256(self) -> str | None:
        """The digest of the archive of the custom hooks; None where there were none."""
        return self.base.digests.get(f"{self.base.destination}/{self.last.custom_hooks_path}")


class _Digested:
    """A file that is digested as it is read."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        try:
            data = self._file.read(size)
        except OSError as error:
            raise CorruptStreamError(f"{self._name} cannot be read: {error.strerror}") from error
        self.sha256.update(data)
        return data


@define
class Taken:
    """A file that was taken over into a new backup. It counts as one of its files when it is finished."""

    size: int
    linked: bool
    _job: BackupJob = field(repr=False)
    _name: str
    base: Base = field(repr=False)
    _sha256: str
    _finished: bool = False

    @classmethod
    def take(cls, job: BackupJob, base: Base, source: str, target: str, size: int) -> Taken:
        """Take over the file `source` of `base`, which was checked, as `target`: by a second name, else by a copy.

        The directory of `target` must be there. Raises `StreamError` where it cannot be made, and `CorruptStreamError`
        where the file is damaged; see above.
        """
        sha256 = base.digests[source]
        if link(f"{base.directory}/{source}", f"{job.root}/{target}"):
            return cls(size, True, job, target, base, sha256)  # noqa: FBT003 - its fields in order
        with FileSink(job.root / target) as sink, base.open(source) as file:
            while data := file.read(_PIECE):
                job.cancel.check()
                sink.write(data)
        return cls(sink.size, False, job, target, base, sha256)  # noqa: FBT003 - likewise

    def finish(self) -> None:
        """Name it as a file of the backup; `Files` counts it."""
        self._finished = True
        self._job.written(self._name, self._sha256)

    def abort(self) -> None:
        """Remove it, unless it is finished."""
        if not self._finished:
            with suppress(OSError):
                os.unlink(f"{self._job.root}/{self._name}")  # noqa: PTH108 - as everywhere here
