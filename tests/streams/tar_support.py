"""What the tests of tar archives share."""

# ruff: noqa: PTH115, PTH118, PTH123 - names are bytes here

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

from attrs import define, field

from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.tar import Member, TarReader, TarReport, write_tree
from gitlab_backup.streams.tar import extract as extract_ours
from gitlab_backup.streams.tar.clone import clone as system_clone

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from gitlab_backup.streams.sink import Buffer


@define(eq=False)
class ListSink:
    """Keeps what is written; `seen` is called with all of it so far after each write."""

    seen: Callable[[bytes], None] = lambda _: None
    content: bytearray = field(factory=bytearray)
    ended: str = ""

    def write(self, data: Buffer, /) -> None:
        self.content += data
        self.seen(bytes(self.content[-(3 << 20) :]))

    def finish(self) -> None:
        self.ended = "finished"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"


def when(needle: bytes, action: Callable[[], object], *, times: int = 1) -> ListSink:
    """Return a sink that acts when it is handed something that ends with `needle` in it."""
    left = [times]

    def seen(tail: bytes) -> None:
        if left[0] and needle in tail[-(1 << 20) - 2048 :]:
            left[0] -= 1
            action()

    return ListSink(seen)


def no_pause(seconds: float) -> None:
    """Do not wait."""


def archive(
    tree: Path | bytes,
    sink: ListSink | None = None,
    *,
    exclude: Collection[bytes] = (),
    exclude_everywhere: Collection[bytes] = (),
    pause: Callable[[float], None] = no_pause,
    cancel: Cancellation | None = None,
    clone: Callable[[int, int], int | None] = system_clone,
) -> tuple[bytes, TarReport]:
    """Archive a tree in memory."""
    sink = sink or ListSink()
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        report = write_tree(
            root,
            sink,
            cancel=cancel or Cancellation(),
            exclude=exclude,
            exclude_everywhere=exclude_everywhere,
            pause=pause,
            clone=clone,
        )
    finally:
        os.close(root)
    return bytes(sink.content), report


def contents(data: bytes) -> dict[bytes, tuple[Member, bytes]]:
    """Read an archive: the last member of each name, and its data with the holes filled."""
    found = {}
    reader = TarReader(io.BytesIO(data))
    for member in reader:
        body = bytearray(member.size)
        for start, piece in reader.blocks():
            body[start : start + len(piece)] = piece
        found[member.name] = (member, bytes(body))
    return found


# Names are told as they are, line ends and all.
_OF_THE_CLOCK = re.compile(
    rb"^tar: (?:(?!^tar: ).)*?: (?:implausibly old time stamp [^\n]*|time stamp [^\n]* s in the future)\n",
    re.MULTILINE | re.DOTALL,
)


def extract(data: bytes, target: Path, *, program: str = "tar", locale: str = "C.UTF-8") -> None:
    """Extract an archive with a program, which must not complain."""
    target.mkdir()
    command = [program, "-x", "-p", "-f", "-", "-C", str(target)]
    done = subprocess.run(command, input=data, env=os.environ | {"LC_ALL": locale}, capture_output=True, check=False)
    # A clock is no business of these tests: dates before 1970 are in them, and dates to come.
    assert (0, b"") == (done.returncode, _OF_THE_CLOCK.sub(b"", done.stderr))


def extracted_differences(data: bytes, tree: Path, directory: Path, *, times: bool = True) -> list[str]:
    """Extract an archive with GNU tar, with bsdtar if it is there, and with our own; say what differs from `tree`."""
    for program in ("tar", "bsdtar"):
        if shutil.which(program):
            extract(data, directory / f"by-{program}", program=program)
    (directory / "by-us").mkdir()
    root = os.open(directory / "by-us", os.O_RDONLY)
    try:
        extracted = extract_ours(io.BytesIO(data), root, cancel=Cancellation())
    finally:
        os.close(root)
    assert len(list(TarReader(io.BytesIO(data)))) == extracted.members
    expected = describe(tree, times=times)
    lines = []
    for found in sorted(directory.glob("by-*")):
        actual = describe(found, times=times)
        if found.name == "by-bsdtar":  # which leaves the time of the directory it extracts into alone
            actual[b"."] = expected[b"."]
        names = sorted(expected.keys() | actual.keys())
        lines += [f"{found.name}: {name!r}" for name in names if expected.get(name) != actual.get(name)]
    return lines


def describe(tree: Path, *, times: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Return all that an archive must keep of a tree: kinds, modes, owners, times, contents, targets, shared inodes."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[int, bytes] = {}
    root = os.fsencode(tree)
    for directory, directories, files in os.walk(root):
        for name in [b"", *sorted(directories), *sorted(files)]:
            path = os.path.join(directory, name) if name else directory
            relative = os.path.relpath(path, root)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            body: bytes | None = None
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    body = file.read()
            elif kind == stat.S_IFLNK:
                body = os.readlink(path)
            first = relative
            if kind != stat.S_IFDIR:
                first = groups.setdefault(status.st_ino, relative)
            found[relative] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns if times else None,
                status.st_rdev,
                body,
                first,
            )
    return found
