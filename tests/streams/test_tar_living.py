"""Trees that change while they are archived give valid archives, and what is not true in them is named.

Changes happen at known moments: when the sink has been handed a certain piece of the archive, or between the tries.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import CancelledError, StreamError
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.system import using
from tests.faults.broken import Watched

from .tar_support import archive, contents, describe, extract, extracted_differences, when

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BIG = 3 << 20


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"appended")


def _truncate(path: Path) -> None:
    os.truncate(path, 100)


def _rewrite(path: Path) -> None:
    path.write_bytes(b"B" * BIG)


def _rewrite_unseen(path: Path) -> None:
    before = path.stat()
    _rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [_append, _truncate, _rewrite, _rewrite_unseen])
def test_a_file_that_changes_once_is_written_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A file that is changed while it is read ends up as it was afterwards, with its links; all else is exact too."""
    tree = tmp_path / "in"
    (tree / "d").mkdir(parents=True)
    (tree / "d/big").write_bytes(b"A" * BIG)
    (tree / "d/later").write_bytes(b"later")
    (tree / "e").hardlink_to(tree / "d/big")
    data, report = archive(tree, when(b"A" * 1000, lambda: change(tree / "d/big")))
    assert (1, 0, 0) == (report.rewritten, report.changed_count, report.unreadable_count)
    assert [] == extracted_differences(data, tree, tmp_path)
    assert (tree / "d/big").read_bytes() == contents(data)[b"./d/big"][1]


def test_a_small_file_is_never_torn(tmp_path: Path) -> None:
    """One that shrinks just before it is read is in the archive as it is then, each time: nothing has to be filled."""
    (tmp_path / "small").write_bytes(b"A" * 1000)

    def shrink(call: str, _what: object) -> None:
        if call == "read" and (tmp_path / "small").stat().st_size > 3:
            (tmp_path / "small").write_bytes(b"BBB")

    with using(Watched(shrink)):
        data, report = archive(tmp_path)
    assert (1, 0) == (report.rewritten, report.changed_count)
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        files = [members.extractfile(each) for each in members if each.isfile()]
        assert {b"BBB"} == {file.read() for file in files if file is not None}


def test_a_file_that_never_holds_still_is_named(tmp_path: Path) -> None:
    """After three tries with growing pauses the file is named with both sizes; the archive stays valid."""
    (tmp_path / "busy").write_bytes(b"A" * BIG)
    pauses: list[float] = []
    sink = when(b"A" * 1000, lambda: _append(tmp_path / "busy"), times=10**6)
    data, report = archive(tmp_path, sink, pause=pauses.append)
    assert (0, 1, ["busy"]) == (report.rewritten, report.changed_count, [c.name[2:] for c in report.changed])
    assert report.changed[0].sizes[0] < report.changed[0].sizes[1]
    assert 2 == len(pauses)
    assert pauses[0] < pauses[1]
    listed = subprocess.run(["tar", "-tf", "-"], input=data, capture_output=True, check=True)
    assert b"" == listed.stderr
    assert 3 == listed.stdout.count(b"./busy\n")


def test_a_file_that_changes_and_vanishes_is_named(tmp_path: Path) -> None:
    """What changed and is gone at the second try is in the archive as a mixture, so it is named."""
    (tmp_path / "big").write_bytes(b"A" * BIG)
    path = tmp_path / "big"
    data, report = archive(
        tmp_path, when(b"A" * 1000, lambda: _append(path)), pause=lambda _: path.unlink(missing_ok=True)
    )
    assert (1, 1) == (report.vanished, report.changed_count)
    assert BIG == len(contents(data)[b"./big"][1])


def test_a_file_that_is_removed_while_it_is_read_is_whole(tmp_path: Path) -> None:
    """Removing a file does not change what is read from it: nothing is wrong."""
    (tmp_path / "big").write_bytes(b"A" * BIG)
    data, report = archive(tmp_path, when(b"A" * 1000, (tmp_path / "big").unlink))
    assert 0 == report.changed_count
    assert b"A" * BIG == contents(data)[b"./big"][1]


def test_links_to_a_file_that_changes_between_them(tmp_path: Path) -> None:
    """Names of one file stay one file, in its last state, when it changes between their turns."""
    tree = tmp_path / "in"
    tree.mkdir()
    (tree / "a").write_bytes(b"old")
    (tree / "b").write_bytes(b"A" * BIG)
    (tree / "c").hardlink_to(tree / "a")
    data, _ = archive(tree, when(b"A" * 1000, lambda: (tree / "a").write_bytes(b"new and longer")))
    extract(data, tmp_path / "out")
    assert describe(tree) == describe(tmp_path / "out")


def test_what_vanishes_is_counted(tmp_path: Path) -> None:
    """Files and directories that go between the listing and their turn are no error."""
    (tmp_path / "a").write_bytes(b"A" * BIG)
    (tmp_path / "b").touch()
    (tmp_path / "c").mkdir()
    (tmp_path / "d").symlink_to("a")

    def remove() -> None:
        (tmp_path / "b").unlink()
        (tmp_path / "c").rmdir()
        (tmp_path / "d").unlink()

    data, report = archive(tmp_path, when(b"A" * 1000, remove))
    assert (3, 0, 0) == (report.vanished, report.unreadable_count, report.changed_count)
    assert {b"./", b"./a"} == set(contents(data))


def test_a_swapped_directory_is_never_followed(tmp_path: Path) -> None:
    """A directory or file that becomes a link out of the tree is archived as that link, not as what it leads to."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"SECRET")
    tree = tmp_path / "in"
    (tree / "b").mkdir(parents=True)
    (tree / "b/key").write_bytes(b"mine")
    (tree / "c").write_bytes(b"mine")
    (tree / "a").write_bytes(b"A" * BIG)

    def swap() -> None:
        shutil.rmtree(tree / "b")
        (tree / "b").symlink_to(secret)
        (tree / "c").unlink()
        (tree / "c").symlink_to(secret / "key")

    data, report = archive(tree, when(b"A" * 1000, swap))
    assert b"SECRET" not in data
    assert 0 == report.unreadable_count
    extract(data, tmp_path / "out")
    assert describe(tree, times=False) == describe(tmp_path / "out", times=False)


def test_a_directory_moved_during_its_walk(tmp_path: Path) -> None:
    """A directory that is moved, and replaced by a link, while it is read is still read itself."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "z").write_bytes(b"SECRET")
    tree = tmp_path / "in"
    (tree / "d").mkdir(parents=True)
    (tree / "d/a").write_bytes(b"A" * BIG)
    (tree / "d/z").write_bytes(b"mine")

    def move() -> None:
        (tree / "d").rename(tree / "moved")
        (tree / "d").symlink_to(secret)

    data, _ = archive(tree, when(b"A" * 1000, move))
    assert b"SECRET" not in data
    assert b"mine" == contents(data)[b"./d/z"][1]


def test_kinds_that_replace_each_other(tmp_path: Path) -> None:
    """A file that becomes a pipe or a directory is archived as what it is, and nothing blocks."""
    for name in "bcd":
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a").write_bytes(b"A" * BIG)

    def replace() -> None:
        for name in "bcd":
            (tmp_path / name).unlink()
        os.mkfifo(tmp_path / "b")
        (tmp_path / "c").mkdir()
        (tmp_path / "c/inner").write_bytes(b"y")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(tmp_path / "d"))

    data, report = archive(tmp_path, when(b"A" * 1000, replace))
    assert {b"./", b"./a", b"./b", b"./c/", b"./c/inner"} == set(contents(data))
    assert ("./d",) == report.sockets


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """As an unprivileged user: what may not be read is named, and the rest is archived."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/inner").touch()
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "open").write_bytes(b"x")
    (tmp_path / "closed").chmod(0)
    (tmp_path / "secret").chmod(0)
    # The directory is opened before the privileges go, so that it may lie anywhere.
    program = """if True:
        import grp, json, os, pwd, sys  # all that is loaded late: not everybody may read this Python
        from tests.streams.tar_support import ListSink, no_pause
        from gitlab_backup.streams.tar import write_tree
        from gitlab_backup.streams.cancel import Cancellation
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        report = write_tree(int(sys.argv[1]), ListSink(), cancel=Cancellation(), pause=no_pause)
        print(json.dumps([report.members, report.unreadable_count, [u.name for u in report.unreadable]]))
    """
    tmp_path.chmod(0o755)
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(root)], pass_fds=[root], capture_output=True, text=True, check=False
        )
    finally:
        os.close(root)
    assert '[3, 2, ["./closed", "./secret"]]\n' == done.stdout, done.stderr


def test_a_cancelled_run_aborts(tmp_path: Path) -> None:
    """A cancellation in the middle of a file ends the run, and the sink is given up."""
    (tmp_path / "big").write_bytes(b"A" * BIG)
    cancel = Cancellation()
    sink = when(b"A" * 1000, cancel.request)
    with pytest.raises(CancelledError):
        archive(tmp_path, sink, cancel=cancel)
    assert "aborted" == sink.ended


def test_an_error_of_the_sink_is_not_one_of_a_file(tmp_path: Path) -> None:
    """A full disk below ends the run; no file is blamed for it."""
    (tmp_path / "big").write_bytes(b"A" * BIG)

    def full() -> None:
        raise OSError(28, "No space left on device")

    sink = when(b"A" * 1000, full)
    with pytest.raises(StreamError, match="No space left"):
        archive(tmp_path, sink)
    assert "aborted" == sink.ended
