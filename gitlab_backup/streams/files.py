"""Files that are whole or not there: new ones, replaced ones, published trees. Nobody opens an output file otherwise.

What POSIX promises, and this module relies on: a rename is atomic for those who look. What it does not promise is that
content is on disk before the name that leads to it, or that a name is on disk before its directory is synced. So the
order is always content, sync, rename, sync of the directory.

Every system call goes through `system()`, so that tests can fail one call, or record the order.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from ..errors import StreamError
from .background import BackgroundSink
from .cache import WINDOW, forget
from .profile import DIGESTING, Clock
from .system import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .sink import Buffer, Sink

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PIECE: Final = 1 << 20
"""Bytes that are read at once."""
_HINTS: Final = {
    errno.ENOSPC: "Free space on this file system, or choose another place.",
    errno.EDQUOT: "Free space, or have the disk quota of this user raised.",
    errno.EROFS: "The file system is mounted read-only. Mount it for writing, or choose another place.",
    errno.EACCES: "Give this user the right to write there, or run as one that has it.",
    errno.EPERM: "Give this user the right to write there, or run as one that has it.",
    errno.EIO: "The disk reports an error: look at the kernel's log.",
}


class _Digest:
    """Digests what is written to it."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: Buffer, /) -> None:
        with Clock(DIGESTING) as clock:
            self.sha256.update(data)
            clock.bytes = len(data)

    def finish(self) -> None:
        """Do nothing: it is done."""

    def abort(self) -> None:
        """Do nothing: it holds nothing."""


class FileSink:
    """A new file, digested as it is written. Raises `StreamError`, also where the file exists already.

    As a context manager it is finished at the end of the block, and aborted where that fails.
    With `beside`, the digest is made in a thread of its own, beside the writing: for what is long and comes fast.

    `finish` closes it but does not sync: a file counts only as a part of a tree, and one `sync_tree` before that is
    published costs far less than a wait for the disk at the end of each of its files.
    """

    def __init__(self, path: Path, *, mode: int = 0o600, beside: bool = False) -> None:
        self.path = path
        self.size = 0
        """Bytes written so far."""
        self._digest = _Digest()
        self._digesting: Sink = BackgroundSink(self._digest) if beside else self._digest
        self._forgotten = 0
        self._there = False
        self._fd: int | None = None
        try:
            self._fd = system().open(path, _CREATE, mode)
            self._there = True
            system().chmod(self._fd, mode)
        except OSError as error:
            self.abort()
            raise failure(path, "cannot be created", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abort()  # does nothing to one that is finished

    @property
    def sha256(self) -> str:
        """The digest of what was written, in hexadecimal. Valid after `finish`."""
        return self._digest.sha256.hexdigest()

    def write(self, data: Buffer, /) -> None:
        """Write and digest all of `data`."""
        if self._fd is None:
            raise StreamError(f"{self.path} has been closed already")
        view = memoryview(data).cast("B")
        self._digesting.write(view)
        try:
            write_all(self._fd, view)
        except OSError as error:
            raise failure(self.path, "cannot be written", error) from error
        self.size += len(view)
        if self.size >= self._forgotten + WINDOW:
            self._forgotten = self.size
            forget(self._fd)

    def finish(self) -> None:
        """Close the file."""
        if self._fd is None:
            return
        self._digesting.finish()
        fd, self._fd = self._fd, None
        try:
            system().close(fd)
        except OSError as error:
            # Some file systems (NFS, quotas) tell only now that the data did not fit.
            raise failure(self.path, "cannot be written", error) from error
        self._there = False

    def abort(self) -> None:
        """Close and remove the file, unless it is finished."""
        self._digesting.abort()
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                system().close(fd)
        if self._there:
            self._there = False
            with suppress(OSError):
                system().unlink(self.path)


def digest_in_place(path: Path, *, check: Callable[[], None], mode: int = 0o600) -> tuple[int, str]:
    """Give the file at `path`, which another program has written, a mode; return its size and its SHA-256.

    `check` is called now and then, and may raise. Raises `StreamError`, also where it is not a regular file.
    """
    calls = system()
    digest, size = hashlib.sha256(), 0
    try:
        # Not blocking, should it be a pipe.
        fd = calls.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StreamError(f"{path} is not a regular file")
            calls.chmod(fd, mode)
            while data := calls.read(fd, _PIECE):
                check()
                digest.update(data)
                size += len(data)
        finally:
            calls.close(fd)
    except OSError as error:
        raise failure(path, "cannot be read", error) from error
    return size, digest.hexdigest()


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write or replace a small file: whatever happens, either the old content is there or all of the new.

    On disk when this returns. Raises `StreamError`, also where something else than a file is there: the name of a
    device is not ours to give away. Where it is about the last sync, the new content is in place, but might not outlive
    a crash of the machine.
    """
    if path.exists() and not path.is_file():
        raise StreamError(f"{path} is not a regular file", hint="Give the name of a file, new or to be replaced.")
    calls = system()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        fd = calls.open(temporary, _CREATE, mode)
        try:
            try:
                calls.chmod(fd, mode)
                write_all(fd, memoryview(data))
                calls.fsync(fd)
            finally:
                calls.close(fd)
            calls.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                calls.unlink(temporary)
            raise
    except OSError as error:
        raise failure(path, "cannot be written", error) from error
    sync_directory(path.parent)


def put(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write or replace a small file of a tree that nobody uses yet: it is synced with all of it.

    One that is there keeps its owner and its mode. Raises `StreamError`.
    """
    calls = system()
    try:
        fd = calls.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            write_all(fd, memoryview(data))
        finally:
            calls.close(fd)
    except OSError as error:
        raise failure(path, "cannot be written", error) from error


def remove_durably(path: Path) -> None:
    """Remove a file, if it is there; it is gone from the disk when this returns. Raises `StreamError`."""
    try:
        with suppress(FileNotFoundError):
            system().unlink(path)
    except OSError as error:
        raise failure(path, "cannot be removed", error) from error
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to disk. Raises `StreamError`."""
    try:
        _sync(path, _DIRECTORY)
    except OSError as error:
        raise failure(path, "cannot be brought to disk", error) from error


def sync_tree(root: Path) -> None:
    """Bring everything below the directory `root`, which is on one file system, to disk. Raises `StreamError`.

    One syncfs(2) where the kernel tells errors by it; else file by file.
    """
    calls = system()
    try:
        fd = calls.open(root, _DIRECTORY)
        try:
            calls.syncfs(fd)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
        else:
            return
        finally:
            calls.close(fd)
        _sync_each(root)
    except OSError as error:
        raise failure(root, "cannot be brought to disk", error) from error


def publish(staging: Path, final: Path) -> None:
    """Give a tree that is on disk (`sync_tree`) its final name, in the same file system, and bring that name to disk.

    Never replaces anything: raises `StreamError` where `final` exists. File systems without RENAME_NOREPLACE leave a
    moment between the look and the rename, in which only an empty directory or a file could be lost.
    """
    calls = system()
    try:
        try:
            calls.rename_new(staging, final)
        except OSError as error:
            if error.errno not in {errno.ENOSYS, errno.EINVAL}:
                raise
            if os.path.lexists(final):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            calls.rename(staging, final)
    except FileExistsError as error:
        raise StreamError(f"{final} exists already", hint="Move it away, if it is not needed there.") from error
    except OSError as error:
        raise failure(final, f"cannot be made from {staging.name}", error) from error
    sync_directory(final.parent)
    if staging.parent != final.parent:
        sync_directory(staging.parent)


def free_bytes(path: Path) -> int:
    """Return how many bytes an ordinary user may still write where `path` is. Raises `StreamError`."""
    try:
        numbers = system().statvfs(path)
    except OSError as error:
        raise failure(path, "cannot be asked for its free space", error) from error
    return numbers.f_bavail * numbers.f_frsize


def remove_tree(path: Path, *, check: Callable[[], None] = lambda: None) -> None:
    """Remove a directory and all that is in it, a file, or a symbolic link itself; nothing, where nothing is there.

    Never follows a symbolic link, and opens directories that deny it. Takes any depth with two open directories: what
    lies deeper is first moved up. `check` is called for each entry, and may raise. Raises `StreamError` for what cannot
    be removed; much of the rest is gone by then.
    """
    calls = system()
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            calls.unlink(path)
            return
        with _opened(str(path)) as root:
            while names := _names(root):
                for name in names:
                    _remove_entry(name, root, check)
        calls.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise failure(path, "cannot be removed", error) from error


def _remove_entry(name: str, root: int, check: Callable[[], None]) -> None:
    check()
    calls = system()
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
            calls.unlink(name, dir_fd=root)
            return
        with _opened(name, root) as directory:
            for below in _names(directory):
                check()
                with suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.stat(below, dir_fd=directory, follow_symlinks=False).st_mode):
                        # A directory that may not be written cannot be moved: its `..` would change.
                        with _opened(below, directory):
                            calls.move(below, directory, f".{secrets.token_hex(8)}", root)
                    else:
                        calls.unlink(below, dir_fd=directory)
        calls.rmdir(name, dir_fd=root)


@contextmanager
def _opened(name: str, dir_fd: int | None = None) -> Iterator[int]:
    """Open a directory to remove what is in it, giving its owner the right to do so."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = system().open(name, flags | os.O_PATH, dir_fd=dir_fd)
    try:
        mode = os.fstat(handle).st_mode
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            # By way of its descriptor, as a name might be a link by now; fchmod(2) does not take an O_PATH one.
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(mode) | stat.S_IRWXU)  # noqa: PTH101
        fd = system().open(".", flags | os.O_RDONLY, dir_fd=handle)
    finally:
        system().close(handle)
    try:
        yield fd
    finally:
        system().close(fd)


def _names(directory: int) -> list[str]:
    return os.listdir(directory)


def write_all(fd: int, view: memoryview) -> None:
    """Write all of `view`, however little the system takes at a time. Raises `OSError`."""
    while view:
        view = view[system().write(fd, view) :]


def _sync(path: str | Path, flags: int) -> None:
    fd = system().open(path, flags)
    try:
        system().fsync(fd)
    except OSError as error:
        # Some file systems cannot sync a directory, and say it so (fsync(2)). They have nothing to lose by it.
        if error.errno != errno.EINVAL or not flags & os.O_DIRECTORY:
            raise
    finally:
        system().close(fd)


def _sync_each(root: Path) -> None:
    def refuse(error: OSError) -> None:
        raise error

    for directory, _, names in os.walk(root, topdown=False, onerror=refuse):
        for name in names:
            path = os.path.join(directory, name)  # noqa: PTH118 - a Path for each of many files is slow
            if stat.S_ISREG(os.lstat(path).st_mode):
                _sync(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        _sync(directory, _DIRECTORY)


def failure(path: Path | str, what: str, error: OSError) -> StreamError:
    """Return the error that says what cannot be done with a file and why, and what to do about it."""
    return StreamError(f"{path} {what}: {error.strerror}", hint=remedy(error))


def remedy(error: OSError) -> str | None:
    """Return what to do about an error of writing, where that is known."""
    return _HINTS.get(error.errno or 0)
