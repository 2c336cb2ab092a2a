"""What moves, has several names or shares a clock tick while it is archived; and reading from clones.

Changes happen when the sink has been handed a certain piece of the archive, or between the tries.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.streams.tar.clone import clone
from gitlab_backup.streams.tar.versions import beginning, certain_status, version

from .tar_support import ListSink, archive, contents, describe, extract, extracted_differences, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BIG = 3 << 20
A = b"A" * 1000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in which something is read for a while: when `b/big` is, `a` is done and `c` is not."""
    tree = tmp_path / "in"
    for name in ("a", "b", "c"):
        (tree / name / "inner").mkdir(parents=True)
        (tree / name / "inner/file").write_bytes(name.encode())
    (tree / "b/big").write_bytes(b"A" * BIG)
    return tree


MOVES: list[Callable[[Path], object]] = [
    lambda tree: (tree / "c").rename(tree / "a/moved"),
    lambda tree: (tree / "c").rename(tree / "aa"),
    lambda tree: (tree / "c/inner").rename(tree / "a/c"),
    lambda tree: (tree / "c/inner/file").rename(tree / "a/inner/another"),
    lambda tree: (tree / "c/inner/file").rename(tree / "a/inner/file"),
    lambda tree: (tree / "c").rename(tree / "z"),
]


@pytest.mark.parametrize("move", MOVES)
def test_what_is_moved_out_of_the_way_of_the_walk_is_archived(
    tmp_path: Path, tree: Path, move: Callable[[Path], object]
) -> None:
    """A file or directory that moves from where the walk was not yet to where it had been is at its new place."""
    data, report = archive(tree, when(A, lambda: move(tree)))
    assert (0, 0) == (report.changed_count, report.unreadable_count)
    extract(data, tmp_path / "out")
    now, found = describe(tree, times=False), describe(tmp_path / "out", times=False)
    assert now == {name: found.get(name) for name in now}


def test_a_quiet_tree_is_archived_once(tmp_path: Path, tree: Path) -> None:
    """Where nothing moves, each member is there once, also when all was made a moment ago."""
    data, report = archive(tree)
    assert len(contents(data)) == report.members
    assert [] == extracted_differences(data, tree, tmp_path)


def test_what_is_left_out_stays_left_out(tree: Path) -> None:
    """The search for what moved leaves out what the walk does."""
    (tree / "tmp").mkdir()

    def move() -> None:
        (tree / "tmp/new").write_bytes(b"new")
        (tree / "a/lost").mkdir()
        (tree / "a/lost/new").write_bytes(b"new")
        (tree / "c").rename(tree / "a/c")

    data, _ = archive(tree, when(A, move), exclude=[b"tmp"], exclude_everywhere=[b"lost"])
    names = set(contents(data))
    assert {b"./a/c/inner/file"} == {name for name in names if name.startswith(b"./a/c/inner/")} - {b"./a/c/inner/"}
    assert [] == [name for name in names if b"tmp" in name or b"lost" in name]


def test_what_takes_the_place_of_a_directory_is_named(tmp_path: Path, tree: Path) -> None:
    """A file where a directory was archived cannot be extracted there; it is named, and the archive is sound."""

    def replace() -> None:
        (tree / "c").rename(tree / "a/c")
        (tree / "a/inner/file").unlink()
        (tree / "a/inner").rmdir()
        (tree / "a/inner").write_bytes(b"a file now")

    data, report = archive(tree, when(A, replace))
    assert ["./a/inner"] == [item.name for item in report.unreadable]
    extract(data, tmp_path / "out")
    assert b"c" == (tmp_path / "out/a/c/inner/file").read_bytes()


def test_all_names_of_a_file_that_changed_between_them(tmp_path: Path) -> None:
    """Also those that were links to what it was before, in other directories: they stay one file, in its last state."""
    tree = tmp_path / "in"
    for name in "abcd":
        (tree / name).mkdir(parents=True)
    (tree / "a/one").write_bytes(b"old")
    for name in ("b/two", "d/three"):
        (tree / name).hardlink_to(tree / "a/one")
    (tree / "c/big").write_bytes(b"A" * BIG)
    data, report = archive(tree, when(A, lambda: (tree / "a/one").write_bytes(b"new, and longer")))
    assert 0 == report.changed_count
    assert [] == extracted_differences(data, tree, tmp_path)


def test_another_name_of_a_file_that_lost_its_first(tmp_path: Path) -> None:
    """A file that changed, and whose first name is gone, is written again under the next one; the lost one is named."""
    tree = tmp_path / "in"
    tree.mkdir()
    (tree / "big").write_bytes(b"A" * BIG)
    (tree / "other").hardlink_to(tree / "big")

    def append() -> None:
        with (tree / "big").open("ab") as file:
            file.write(b"more")

    data, report = archive(tree, when(A, append), pause=lambda _: (tree / "big").unlink(missing_ok=True))
    assert (["./big"], 1) == ([item.name for item in report.changed], report.vanished)
    assert b"A" * BIG + b"more" == contents(data)[b"./other"][1]


def test_a_link_to_what_was_torn_is_named_when_its_file_is_gone(tmp_path: Path) -> None:
    """All names under which a mixture is in the archive are named if there is nothing better to put there."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a/big").write_bytes(b"A" * BIG)
    (tmp_path / "b/link").hardlink_to(tmp_path / "a/big")
    (tmp_path / "c/other").hardlink_to(tmp_path / "a/big")
    before = (tmp_path / "a/big").stat()

    def rewrite() -> None:
        (tmp_path / "a/big").write_bytes(b"B" * BIG)
        os.utime(tmp_path / "a/big", ns=(before.st_atime_ns, before.st_mtime_ns))

    def remove(_: float) -> None:
        for name in ("a/big", "b/link"):
            (tmp_path / name).unlink(missing_ok=True)

    data, report = archive(tmp_path, when(A, rewrite), pause=remove)
    assert {"./a/big", "./b/link"} == {item.name for item in report.changed}
    assert b"B" * BIG == contents(data)[b"./c/other"][1]


def test_a_changed_file_that_is_replaced_is_archived_as_the_new_one(tmp_path: Path) -> None:
    """A file that changes while it is read, and then has another one renamed over it, is that one."""
    tree = tmp_path / "in"
    tree.mkdir()
    (tree / "log").write_bytes(b"A" * BIG)

    def replace(_: float) -> None:
        (tmp_path / "new").write_bytes(b"a new file")
        (tmp_path / "new").rename(tree / "log")

    data, report = archive(tree, when(A, lambda: os.truncate(tree / "log", 10)), pause=replace)
    assert (0, 1) == (report.changed_count, report.rewritten)
    assert [] == extracted_differences(data, tree, tmp_path)


def test_a_linked_file_found_again(tmp_path: Path, tree: Path) -> None:
    """The search for what moved comes upon a name of a file that is archived already: all its names are right after."""
    (tree / "a/one").write_bytes(b"one")
    (tree / "b/a-link").hardlink_to(tree / "a/one")

    def move() -> None:
        (tree / "c/new").touch()
        (tree / "a/one").chmod(0o600)
        (tree / "a/third").hardlink_to(tree / "a/one")

    data, _ = archive(tree, when(A, move))
    assert [] == extracted_differences(data, tree, tmp_path, times=False)


def test_sparse_files_that_change_stay_sparse(tmp_path: Path) -> None:
    """A file with holes that is written again has them in the archive, too."""
    tree = tmp_path / "in"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.write(b"A" * BIG)
        file.truncate(64 << 20)

    def append() -> None:
        with (tree / "sparse").open("ab") as file:
            file.write(b"the end")

    data, report = archive(tree, when(A, append))
    assert 1 == report.rewritten
    assert len(data) < 3 * BIG
    assert [] == extracted_differences(data, tree, tmp_path)


def test_two_changes_in_one_tick_are_two(tmp_path: Path) -> None:
    """Once a status is taken, every later change of the same size shows, however soon it comes."""
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        same = 0
        for _ in range(20):
            os.pwrite(fd, b"one", 0)
            before = certain_status(fd)
            os.pwrite(fd, b"two", 0)
            same += version(before) == version(os.fstat(fd))
        assert 0 == same
    finally:
        os.close(fd)


def test_a_file_from_the_future_is_not_waited_for(tmp_path: Path) -> None:
    """A time stamp that is ahead says nothing of the present tick; what counts is when the status changed."""
    path = tmp_path / "file"
    path.touch()
    os.utime(path, ns=(2**62, 2**62))
    fd = os.open(path, os.O_RDONLY)
    try:
        assert 2**62 == certain_status(fd).st_mtime_ns
    finally:
        os.close(fd)


def test_the_beginning_lies_between_before_and_after(tmp_path: Path) -> None:
    """What is made before is not later than the beginning, what is made after is."""
    for number in range(10):
        (tmp_path / f"before-{number}").mkdir()
        start = beginning()
        (tmp_path / f"after-{number}").mkdir()
        assert (
            (tmp_path / f"before-{number}").stat().st_mtime_ns
            <= start
            < (tmp_path / f"after-{number}").stat().st_mtime_ns
        )


# Clones


def _busy(tree: Path) -> tuple[ListSink, list[int]]:
    # A file that is appended to whenever a piece of it has been read, and the sizes that it has had.
    path = tree / "busy"
    path.write_bytes(b"A" * BIG)
    sizes = [BIG]

    def append() -> None:
        with path.open("ab") as file:
            file.write(b"B" * 1000)
        sizes.append(path.stat().st_size)

    return when(A, append, times=10**6), sizes


def _copy(directory: int, source: int) -> int | None:
    # What a clone is, on a file system that has none: a copy at one moment.
    copy = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=directory)
    os.sendfile(copy, source, 0, os.fstat(source).st_size)
    return copy


def test_a_file_that_never_holds_still_is_read_from_a_clone(tmp_path: Path) -> None:
    """Where a file can be cloned it is written again once, as it was at one moment, and nothing is left behind."""
    tree = tmp_path / "in"
    tree.mkdir()
    sink, sizes = _busy(tree)
    data, report = archive(tree, sink, clone=_copy)
    assert (1, 0) == (report.rewritten, report.changed_count)
    member, body = contents(data)[b"./busy"]
    assert len(body) in sizes[1:]
    assert b"A" * BIG + b"B" * (len(body) - BIG) == body
    assert (0o644, os.getuid()) == (member.mode & 0o777, member.uid)
    assert [tree / "busy"] == list(tree.iterdir())


def _clones(directory: Path) -> bool:
    (directory / "probe").write_bytes(b"x" * 8192)
    fd, above = os.open(directory / "probe", os.O_RDONLY), os.open(directory, os.O_RDONLY)
    try:
        copy = clone(above, fd)
        if copy is not None:
            os.close(copy)
        return copy is not None
    finally:
        os.close(fd)
        os.close(above)
        (directory / "probe").unlink()


def test_without_clones_the_file_itself_is_read(tmp_path: Path) -> None:
    """A file system that cannot clone, or not be written to, is no error: the file is tried again, and named."""
    if _clones(tmp_path):
        pytest.skip("this file system can clone")
    sink, _ = _busy(tmp_path)
    _, report = archive(tmp_path, sink)
    assert (0, 1) == (report.rewritten, report.changed_count)
    sysfs = os.open("/proc/self", os.O_RDONLY)
    try:
        assert None is clone(sysfs, sysfs)
    finally:
        os.close(sysfs)


@pytest.fixture(params=["xfs", "btrfs"])
def reflinks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that can clone."""
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    image.touch()
    os.truncate(image, 512 << 20)
    commands = [[f"mkfs.{request.param}", "-q", str(image)], ["mount", "-o", "loop", str(image), str(mounted)]]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no {request.param} here: {command[0]}: {error}")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def test_real_clones(reflinks: Path) -> None:
    """On a file system that can clone, a file that is written to all the time is whole in the archive; holes too."""
    tree = reflinks / "in"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.write(b"A" * BIG)
        file.truncate(64 << 20)
    (tree / "sparse").chmod(0o604)

    def append() -> None:
        with (tree / "sparse").open("ab") as file:
            file.write(b"B" * 1000)

    sink = when(A, append, times=10**6)
    data, report = archive(tree, sink)
    assert (1, 0, 0) == (report.rewritten, report.changed_count, report.unreadable_count)
    member, body = contents(data)[b"./sparse"]
    assert b"A" * BIG == body[:BIG]
    assert b"" == body[BIG:].strip(b"\0B")
    assert 0 == (len(body) - (64 << 20)) % 1000
    assert (0o604, True) == (member.mode & 0o777, len(data) < 4 * BIG)
    assert [tree / "sparse"] == list(tree.iterdir())
