"""Files: exclusive, exact, durable in the right order, and gone where they failed."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import StreamError
from gitlab_backup.streams.files import (
    FileSink,
    free_bytes,
    publish,
    remove_durably,
    remove_tree,
    sync_directory,
    sync_tree,
    write_durably,
)
from gitlab_backup.streams.system import System, using

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Recorder(System):
    """Does everything for real, notes the order, and fails the calls that it is told to fail."""

    def __init__(self, **failing: int) -> None:
        self.calls: list[str] = []
        self._failing = failing
        self._names: dict[int, str] = {}

    def _note(self, call: str, what: str) -> None:
        self.calls.append(f"{call} {what}")
        if call in self._failing:
            raise OSError(self._failing[call], os.strerror(self._failing[call]))

    def open(self, path: str | bytes | Path, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
        fd = super().open(path, flags, mode, dir_fd=dir_fd)
        self._names[fd] = "directory" if flags & os.O_DIRECTORY else "file"
        return fd

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._note("write", self._names[fd])
        return super().write(fd, data[:3])

    def fsync(self, fd: int) -> None:
        self._note("fsync", self._names[fd])
        super().fsync(fd)

    def syncfs(self, fd: int) -> None:
        self._note("syncfs", self._names[fd])
        super().syncfs(fd)

    def close(self, fd: int) -> None:
        super().close(fd)
        if self._names.get(fd) == "file" and "close" in self._failing:
            self._note("close", "file")

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename", target.name)
        super().rename(source, target)

    def rename_new(self, source: Path, target: Path) -> None:
        self._note("rename_new", target.name)
        super().rename_new(source, target)


def names(directory: Path) -> list[str]:
    """Return what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o777)
    yield
    os.umask(before)


@pytest.mark.parametrize("beside", [False, True])
def test_sink_writes_and_digests(tmp_path: Path, *, beside: bool) -> None:
    """Size and digest are those of all that was written, also where the system takes only a little at a time."""
    data = os.urandom(1000)
    recorder = Recorder()
    with using(recorder):
        sink = FileSink(tmp_path / "file", beside=beside)
        sink.write(data[:500])
        sink.write(memoryview(data)[500:])
        sink.finish()
    sink.abort()
    assert data == (tmp_path / "file").read_bytes()
    assert (1000, hashlib.sha256(data).hexdigest()) == (sink.size, sink.sha256)
    assert "fsync file" not in recorder.calls


def test_sink_of_a_block(tmp_path: Path) -> None:
    """At the end of a block the file is there; where the block or the end fails, it is not."""
    with FileSink(tmp_path / "file") as sink:
        sink.write(b"data")
    assert b"data" == (tmp_path / "file").read_bytes()
    assert hashlib.sha256(b"data").hexdigest() == sink.sha256
    with pytest.raises(KeyError), FileSink(tmp_path / "failed") as sink:
        raise KeyError
    with using(Recorder(close=errno.EDQUOT)), pytest.raises(StreamError), FileSink(tmp_path / "unfinished") as sink:
        sink.write(b"data")
    assert ["file"] == names(tmp_path)


@pytest.mark.usefixtures("strict_umask")
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_mode_is_exact(tmp_path: Path, mode: int) -> None:
    """The mode is the one that was asked for, whatever the umask."""
    FileSink(tmp_path / "sink", mode=mode).finish()
    write_durably(tmp_path / "document", b"", mode=mode)
    assert [mode, mode] == [(tmp_path / name).stat().st_mode & 0o7777 for name in ("sink", "document")]


def test_sink_replaces_nothing(tmp_path: Path) -> None:
    """A file or a symbolic link that is there is left alone, also by `abort`."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(StreamError, match=name):
            FileSink(tmp_path / name)
    assert b"old" == (tmp_path / "file").read_bytes()
    assert ["file", "link"] == names(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("beside", [False, True])
def test_failed_write_says_what_to_do(tmp_path: Path, number: int, *, beside: bool) -> None:
    """An error names the file and has a hint; after `abort` the file is gone, and no thread is left."""
    threads = threading.active_count()
    with using(Recorder(write=number)):
        sink = FileSink(tmp_path / "file", beside=beside)
        with pytest.raises(StreamError, match=str(tmp_path / "file")) as caught:
            sink.write(b"data")
        sink.abort()
        sink.abort()
    assert threads == threading.active_count()
    assert caught.value.hint is not None
    assert [] == names(tmp_path)


def test_failed_close_is_a_failed_file(tmp_path: Path) -> None:
    """A file whose close fails is not complete: `finish` says so, and `abort` removes it."""
    with using(Recorder(close=errno.EDQUOT)):
        sink = FileSink(tmp_path / "file")
        with pytest.raises(StreamError):
            sink.finish()
        sink.abort()
    assert [] == names(tmp_path)


def test_durable_write_order(tmp_path: Path) -> None:
    """Content is on disk before the name leads to it, and the name before the call returns."""
    recorder = Recorder()
    with using(recorder):
        write_durably(tmp_path / "document", b"data")
    assert ["write file", "write file", "fsync file", "rename document", "fsync directory"] == recorder.calls
    assert b"data" == (tmp_path / "document").read_bytes()


@pytest.mark.parametrize("name", ["pipe", "link to it", "directory"])
def test_only_files_are_replaced(tmp_path: Path, name: str) -> None:
    """A name that stands for something else keeps standing for it: root could give /dev/null to a file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to it").symlink_to("pipe")
    (tmp_path / "directory").mkdir()
    with pytest.raises(StreamError, match=f"{name} is not a regular file"):
        write_durably(tmp_path / name, b"new")
    assert ["directory", "link to it", "pipe"] == names(tmp_path)
    assert (tmp_path / name).exists()
    assert not (tmp_path / name).is_file()


@pytest.mark.parametrize("call", ["write", "fsync", "close", "rename"])
def test_failed_durable_write_leaves_the_old(tmp_path: Path, call: str) -> None:
    """Whatever fails before the rename: the old content stays, nothing lies beside it."""
    (tmp_path / "document").write_bytes(b"old")
    with using(Recorder(**{call: errno.EIO})), pytest.raises(StreamError, match="document"):
        write_durably(tmp_path / "document", b"new")
    assert b"old" == (tmp_path / "document").read_bytes()
    assert ["document"] == names(tmp_path)


def test_durable_removal(tmp_path: Path) -> None:
    """A file is removed and its directory synced; one that is not there is no error."""
    (tmp_path / "document").write_bytes(b"")
    recorder = Recorder()
    with using(recorder):
        remove_durably(tmp_path / "document")
        remove_durably(tmp_path / "document")
    assert ["fsync directory"] * 2 == recorder.calls
    assert [] == names(tmp_path)


def test_directories_that_cannot_be_synced(tmp_path: Path) -> None:
    """EINVAL alone is forgiven: it means that the file system has nothing to sync there."""
    with using(Recorder(fsync=errno.EINVAL)):
        sync_directory(tmp_path)
    with using(Recorder(fsync=errno.EIO)), pytest.raises(StreamError):
        sync_directory(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two files and a symbolic link in two directories."""
    root = tmp_path / "staging"
    (root / "db").mkdir(parents=True)
    (root / "file").write_bytes(b"x")
    (root / "db" / "dump").write_bytes(b"x")
    (root / "link").symlink_to("nowhere")
    return root


def test_tree_is_synced_before_it_is_published(tmp_path: Path, tree: Path) -> None:
    """All content is on disk before the rename, and the new name after it."""
    recorder = Recorder()
    with using(recorder):
        sync_tree(tree)
        publish(tree, tmp_path / "final")
    expected = ["syncfs directory", "rename_new final", "fsync directory"]
    assert expected == recorder.calls
    assert ["final"] == names(tmp_path)


def test_tree_is_synced_file_by_file(tree: Path) -> None:
    """Where there is no syncfs that tells errors, every file and every directory is synced."""
    recorder = Recorder(syncfs=errno.ENOSYS)
    with using(recorder):
        sync_tree(tree)
    assert ["fsync directory"] * 2 + ["fsync file"] * 2 == sorted(recorder.calls[1:])
    assert "fsync directory" == recorder.calls[-1]


@pytest.mark.parametrize("failing", [{"syncfs": errno.EIO}, {"syncfs": errno.ENOSYS, "fsync": errno.EIO}])
def test_failed_sync_is_an_error(tree: Path, failing: dict[str, int]) -> None:
    """A tree that did not reach the disk is an error, and never tried again: the kernel tells it only once."""
    with using(Recorder(**failing)), pytest.raises(StreamError, match="staging"):
        sync_tree(tree)


@pytest.mark.parametrize("failing", [{}, {"rename_new": errno.EINVAL}])
@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_publish_replaces_nothing(tmp_path: Path, tree: Path, failing: dict[str, int], kind: str) -> None:
    """Whatever has the final name stays, even an empty directory, which rename(2) would replace."""
    final = tmp_path / "final"
    if kind == "directory":
        final.mkdir()
    elif kind == "file":
        final.touch()
    else:
        final.symlink_to("nowhere")
    before = final.lstat().st_ino
    with using(Recorder(**failing)), pytest.raises(StreamError, match="exists already"):
        publish(tree, final)
    assert before == final.lstat().st_ino
    assert (tree / "file").exists()


def test_publish_without_the_special_rename(tmp_path: Path, tree: Path) -> None:
    """A file system without RENAME_NOREPLACE publishes by an ordinary rename."""
    recorder = Recorder(rename_new=errno.EINVAL)
    with using(recorder):
        publish(tree, tmp_path / "final")
    assert ["rename_new final", "rename final", "fsync directory"] == recorder.calls


def test_failed_publish(tmp_path: Path, tree: Path) -> None:
    """A rename that fails leaves the staging directory, and nothing of the final name."""
    with using(Recorder(rename_new=errno.EIO)), pytest.raises(StreamError, match="final"):
        publish(tree, tmp_path / "final")
    assert ["staging"] == names(tmp_path)


def test_seam_reaches_all_threads(tmp_path: Path) -> None:
    """A replaced system serves threads that were there before, too, and only until the end of its block."""
    recorder, entered, done = Recorder(), threading.Event(), threading.Event()

    def work() -> None:
        entered.wait()
        sync_directory(tmp_path)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    with using(recorder):
        entered.set()
        done.wait()
    thread.join()
    sync_directory(tmp_path)
    assert ["fsync directory"] == recorder.calls


def test_remove_tree_leaves_what_links_point_to(tmp_path: Path, tree: Path) -> None:
    """Symbolic links are removed, never followed, also where the tree itself is one."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (tree / "to-directory").symlink_to(outside)
    (tree / "db" / "to-directory").symlink_to(outside)
    (tmp_path / "alias").symlink_to(outside)
    for name in ("staging", "alias", "missing"):
        remove_tree(tmp_path / name)
    assert ["outside"] == names(tmp_path)
    assert ["file"] == names(outside)


def test_remove_tree_takes_any_depth(tmp_path: Path) -> None:
    """A tree deeper than any path may be long, or than this process may open files, is removed."""
    root = tmp_path / "root"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_tree(root)
    assert [] == names(tmp_path)


def test_remove_tree_opens_what_denies(tmp_path: Path) -> None:
    """Directories that their owner may not write or read are removed, also by a user who is not root."""
    tmp_path.chmod(0o777)
    script = """
import os
from pathlib import Path
from gitlab_backup.streams.files import remove_tree
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
Path("root/a/b").mkdir(parents=True)
Path("root/a/b/file").touch()
for name in ("root/a/b", "root/a", "root"):
    Path(name).chmod(0o000 if name == "root/a" else 0o500)
remove_tree(Path("root"))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert [] == names(tmp_path)


def test_remove_tree_says_what_it_cannot(tree: Path) -> None:
    """What cannot be removed is an error, not a silence."""

    class Stubborn(System):
        def unlink(self, path: str | bytes | Path, *, dir_fd: int | None = None) -> None:  # noqa: ARG002
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with using(Stubborn()), pytest.raises(StreamError, match="staging cannot be removed"):
        remove_tree(tree)


def test_free_bytes(tmp_path: Path) -> None:
    """Free space is that of an ordinary user; a place that is not there is an error."""
    numbers = os.statvfs(tmp_path)
    assert 0 <= free_bytes(tmp_path) <= numbers.f_blocks * numbers.f_frsize
    with pytest.raises(StreamError, match="missing"):
        free_bytes(tmp_path / "missing")
