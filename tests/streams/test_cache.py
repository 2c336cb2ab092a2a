"""The page cache: what was not in it before is not in it after."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup
from gitlab_backup.streams.cache import WINDOW, forget, is_cached
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.files import FileSink
from gitlab_backup.streams.tar import write_tree

from .codec_conformance import Memory

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

SIZES = {"empty": 0, "small": 10_000, "large": 5 << 20}


def cached(path: Path) -> bool:
    """Return whether the first and the last byte of a file are in the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return is_cached(fd, 0, path.stat().st_size - 1)
    finally:
        os.close(fd)


def drop(path: Path) -> None:
    """Have a file on disk alone."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    forget(fd)
    os.close(fd)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with files of which none is in the page cache, on a file system that can tell."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, size in SIZES.items():
        (tree / name).write_bytes(os.urandom(size))
        drop(tree / name)
    if cached(tree / "large"):
        pytest.skip("this file system keeps all files in memory")
    return tree


@pytest.mark.parametrize("name", ["small", "large"])
def test_what_was_cold_stays_cold(tree: Path, name: str) -> None:
    """A file that nobody has used is read, and not left in the page cache; one that somebody has used stays there."""
    used = tree / "used"
    used.write_bytes(os.urandom(SIZES[name]))
    os.sync()
    sink = Memory()
    root = os.open(tree, os.O_RDONLY)
    write_tree(root, sink, cancel=Cancellation())
    os.close(root)
    assert (False, True) == (cached(tree / name), cached(used))
    assert (tree / name).read_bytes() in bytes(sink.data)


def test_what_is_written_goes_to_disk(tree: Path) -> None:
    """Of a large new file, no more than the end waits in memory."""
    sink = FileSink(tree / "new")
    # Twice: what is being written to disk when it is to be dropped is dropped the next time.
    for _ in range(2):
        sink.write(os.urandom(WINDOW))
        os.sync()
    sink.write(bytes(WINDOW))
    os.sync()
    with (tree / "new").open("rb") as file:
        assert not is_cached(file.fileno(), 0)
    sink.finish()
    assert 3 * WINDOW == (tree / "new").stat().st_size


def test_what_is_read_again_stays(installation: ThrowawayInstallation) -> None:
    """A verification leaves nothing of a backup in the page cache; that of a restore does, which reads it again."""
    backup = Backup.create(installation.instance(), only=["uploads"])
    archive = backup.path / "uploads.tar.gz"
    drop(archive)
    if cached(archive):
        pytest.skip("this file system keeps all files in memory")
    drop(archive)  # to look has begun to read it
    assert not backup.verify().damages
    after_verify = cached(archive)
    drop(archive)
    backup.restore(installation.instance(), only=["uploads"], dry_run=True)
    assert (False, True) == (after_verify, cached(archive))
