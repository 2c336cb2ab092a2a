"""The files of a backup, as an operation reads them: each once, its digest taken on the way."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from attrs import define, field, frozen

from ..checksums import FILE_NAME as CHECKSUMS_NAME
from ..checksums import Checksums
from ..errors import DocumentError, StreamError
from ..manifest import FILE_NAME as MANIFEST_NAME
from ..manifest import Manifest
from ..metadata import FILE_NAME as METADATA_NAME
from ..metadata import Metadata
from ..streams.ahead import read_ahead
from ..streams.cache import forget, is_cached
from ..streams.codec import NoneCodec, codec_for, codec_that_made
from ..streams.profile import DIGESTING, READING, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..components import Component
    from ..streams.cancel import Cancellation
    from ..streams.sink import Buffer

_CHUNK = 1 << 20

DOCUMENTS = frozenset({MANIFEST_NAME, METADATA_NAME, CHECKSUMS_NAME})


@frozen(order=True)
class Damage:
    """Something in a backup that is not as it must be."""

    file: str
    """Its name, relative to the backup."""
    problem: str
    """What is wrong, and where in the file."""


def is_of(name: str, component: Component) -> bool:
    """Return whether a file of a backup is below the component's directory, or its archive with any suffix."""
    destination = component.destination
    return name == destination or name.startswith((f"{destination}/", f"{destination}."))


@define
class Contents:
    """The files of a backup, each read once."""

    path: Path
    names: list[str]
    digests: dict[str, str] = field(factory=dict)
    damages: list[Damage] = field(factory=list)
    bytes_read: int = 0
    compression: str | None = None
    """The codec that the manifest names; None without one."""
    pace: Callable[[int], None] = lambda _count: None
    """Takes the number of bytes of each read, and returns when the next may be made."""
    once: bool = False
    """Whether nobody will read it again soon: then it is not left in the page cache."""
    _lock: threading.Lock = field(factory=threading.Lock)

    @classmethod
    def of(cls, path: Path, *, once: bool = False) -> Contents:
        """List all files below `path`. What is neither a file nor a directory does not belong there: it is damage."""
        contents = cls(path, [], once=once)
        for directory, subdirectories, files in os.walk(path, onerror=contents.unreadable, followlinks=False):
            for name in [*files, *subdirectories]:
                full = Path(directory, name)
                mode = full.lstat().st_mode
                relative = os.path.relpath(full, path)
                if stat.S_ISREG(mode):
                    contents.names.append(relative)
                elif not stat.S_ISDIR(mode):
                    contents.damaged(relative, "is neither a file nor a directory")
        contents.names.sort(key=os.fsencode)
        return contents

    def unreadable(self, error: OSError) -> None:
        """Note a directory that cannot be listed."""
        self.damaged(os.path.relpath(error.filename, self.path), f"cannot be read: {error.strerror}")

    def damaged(self, name: str, problem: str) -> None:
        """Note damage."""
        with self._lock:
            self.damages.append(Damage(name, problem))

    def has(self, component: Component) -> bool:
        """Return whether there are files of this component."""
        return any(is_of(name, component) for name in self.names)

    def listed(self, directory: str) -> list[str]:
        """Return the files below a directory of the backup."""
        return [name for name in self.names if name.startswith(f"{directory}/")]

    def open(self, name: str, count: Callable[[int], None] | None = None) -> BinaryIO:
        """Open a file; its digest is known once it was read to its end. Raises `StreamError`."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StreamError(f"{self.path / name} cannot be read: {error.strerror}") from error
        return cast("BinaryIO", io.BufferedReader(_DigestedFile(descriptor, name, self, count), _CHUNK))

    def open_stream(self, name: str, count: Callable[[int], None] | None = None) -> BinaryIO:
        """Open a file through the codec that its suffix says. It is read and uncompressed by another thread.

        Raises `PluginError` where that suffix says nothing, and the codec of the backup cannot be used.
        """
        codec = codec_for(name)
        if isinstance(codec, NoneCodec) and self.compression is not None:
            codec_that_made(self.compression)
        return read_ahead(codec.reader(self.open(name, count)))

    def digest(self, name: str, cancel: Cancellation) -> None:
        """Read a file for its digest alone."""
        buffer = bytearray(_CHUNK)
        try:
            with self.open(name) as file:
                while file.readinto(buffer):  # type: ignore[attr-defined]
                    cancel.check()
        except (OSError, StreamError) as error:
            self.damaged(name, f"cannot be read: {error}")

    def was_read(self, name: str, digest: str, size: int) -> None:
        """Take the digest of a file that was read to its end."""
        with self._lock:
            self.digests[name] = digest
            self.bytes_read += size

    def compare(self, checksums: Checksums, interesting: Callable[[str], bool]) -> None:
        """Compare the digests of the interesting files with what `SHA256SUMS` says of them."""
        present = set(self.names)
        for name, expected in checksums.items():
            if not interesting(name):
                continue
            if name not in present:
                self.damaged(name, f"is missing; {CHECKSUMS_NAME} lists it")
            elif (found := self.digests.get(name)) is not None and found != expected:
                self.damaged(name, f"has the SHA-256 {found}, not {expected} as {CHECKSUMS_NAME} says")
        for name in filter(interesting, self.names):
            if name not in checksums and name != CHECKSUMS_NAME:
                self.damaged(name, f"is not listed in {CHECKSUMS_NAME}")


class _DigestedFile(io.RawIOBase):
    """A file that is digested as it is read. The digest counts once all of it was read, in order."""

    def __init__(self, descriptor: int, name: str, contents: Contents, count: Callable[[int], None] | None) -> None:
        self._file = io.FileIO(descriptor)
        self._forget = contents.once and not is_cached(descriptor, 0)
        self._name = name
        self._contents = contents
        self._count = count
        self._hash = hashlib.sha256()
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:  # type: ignore[override]
        with Clock(READING) as clock:
            count = clock.bytes = self._file.readinto(buffer)
        if count:
            with Clock(DIGESTING) as clock:
                self._hash.update(memoryview(buffer)[:count])
                clock.bytes = count
            self._size += count
            if self._count is not None:
                self._count(count)
            self._contents.pace(count)
        return count

    def close(self) -> None:
        if not self.closed:
            # A reader that knows where its data end does not look for the end of the file.
            complete = self._size == os.fstat(self._file.fileno()).st_size
            if self._forget:
                forget(self._file.fileno())
            self._file.close()
            if complete:
                self._contents.was_read(self._name, self._hash.hexdigest(), self._size)
        super().close()


@frozen
class Documents:
    """What a backup says of itself. None for a document that is not there, or that cannot be understood (damage)."""

    metadata: Metadata | None
    manifest: Manifest | None
    checksums: Checksums | None

    @classmethod
    def read(cls, contents: Contents) -> Documents:
        """Read the documents of a backup, and hold them against each other."""
        metadata = _document(contents, METADATA_NAME, lambda data, path: Metadata.from_json(data, source=path))
        manifest = _document(contents, MANIFEST_NAME, lambda data, path: Manifest.from_json(data, source=path))
        checksums = _document(contents, CHECKSUMS_NAME, lambda data, path: Checksums.from_bytes(data, source=path))
        if METADATA_NAME not in contents.names:
            contents.damaged(METADATA_NAME, "is missing: without it this is not a backup")
        if (MANIFEST_NAME in contents.names) != (CHECKSUMS_NAME in contents.names):
            missing = CHECKSUMS_NAME if MANIFEST_NAME in contents.names else MANIFEST_NAME
            contents.damaged(missing, "is missing")
        if metadata is not None and metadata.backup_id != contents.path.name:
            contents.damaged(
                METADATA_NAME, f"has the backup id {metadata.backup_id}, the directory is {contents.path.name}"
            )
        if manifest is not None:
            contents.compression = manifest.compression.codec
        if metadata is not None and manifest is not None:
            for key in ("backup_id", "gitlab_version"):
                if (said := getattr(manifest, key)) != (known := getattr(metadata, key)):
                    contents.damaged(MANIFEST_NAME, f"{key} is {said}, in {METADATA_NAME} it is {known}")
        return cls(metadata, manifest, checksums)


_T = TypeVar("_T")


def _document(contents: Contents, name: str, parse: Callable[[bytes, Path], _T]) -> _T | None:
    if name not in contents.names:
        return None
    try:
        with contents.open(name) as file:
            return parse(file.read(), contents.path / name)
    except DocumentError as error:
        contents.damaged(name, "; ".join(error.problems) or error.message)
    except (OSError, StreamError) as error:
        contents.damaged(name, f"cannot be read: {error}")
    return None
