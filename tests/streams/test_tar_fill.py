"""Extraction by several threads: the tree is that of one thread and of GNU tar, and so are failures."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitlab_backup.errors import CancelledError, CorruptStreamError, StreamError
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.system import using
from gitlab_backup.streams.tar import TarWriter
from gitlab_backup.streams.tar import extract as extract_ours
from gitlab_backup.streams.tar.fill import WORTH
from gitlab_backup.streams.tar.header import encode
from gitlab_backup.streams.tar.sparse import map_of
from tests.faults.broken import ERRORS, Failing, Watched

from .tar_support import ListSink, describe, extract

if TYPE_CHECKING:
    from collections.abc import Callable

_T = 1_700_000_000_000_000_001
_MIB = 1 << 20
_LONG = 20.0
"""Seconds that a thread waits for another; it never takes as long."""


def _entry(name: bytes, kind: bytes = b"0", body: bytes = b"", **more: object) -> tuple[bytes, bytes]:
    fields: dict[str, object] = {"mode": 0o755 if kind == b"5" else 0o640, "uid": os.geteuid(), "gid": os.getegid()}
    fields |= {"mtime_ns": _T, "size": len(body)} | more
    return encode(name, kind, **fields), body  # type: ignore[arg-type]


def _sparse(name: bytes, size: int, body: bytes, mode: int) -> tuple[bytes, bytes]:
    text, records = map_of([(size // 2, len(body)), (size, 0)], size)
    return _entry(name, body=text + body, mode=mode, records=records)


def _tar(*entries: tuple[bytes, bytes]) -> bytes:
    sink = ListSink()
    writer = TarWriter(sink)
    for header, body in entries:
        writer.add(header, body)
    writer.finish()
    return bytes(sink.content)


def _extract(source: bytes | io.BytesIO, target: Path, jobs: int = 3, cancel: Cancellation | None = None) -> None:
    """Extract; whatever comes of it, no thread and no descriptor is left."""
    before = len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        extract_ours(stream, root, cancel=cancel or Cancellation(), jobs=jobs)
    finally:
        os.close(root)
        assert before == (len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208


_NAMES = (b"./a", b"./b", b"./d/a", b"./d/b")
_SIZES = (0, 7, WORTH, WORTH + 5, _MIB + 3)
_KINDS = ("file", "file", "sparse", "hard", "soft", "pipe", "directory")
_operations = st.lists(
    st.tuples(
        st.sampled_from(_KINDS),
        st.sampled_from(_NAMES),
        st.sampled_from(_NAMES),
        st.sampled_from(_SIZES),
        st.integers(0, 0o1777),
    ),
    max_size=12,
)


def _archive(operations: list[tuple[str, bytes, bytes, int, int]]) -> bytes:
    entries = [_entry(b"./", b"5"), _entry(b"./d/", b"5", mode=0o700)]
    there: dict[bytes, str] = {}
    for number, (wanted, name, other, size, mode) in enumerate(operations):
        body = bytes([65 + number]) * size
        kind = "directory" if there.get(name) == "directory" else wanted
        if kind == "hard" and there.get(other, "directory") == "directory":
            kind = "file"
        if kind == "hard":
            entries.append(_entry(name, b"1", link=other, mode=mode))
        elif kind == "sparse":
            entries.append(_sparse(name, 4 * size, body, mode))
        elif kind == "file":
            entries.append(_entry(name, body=body, mode=mode, mtime_ns=_T + number))
        else:
            flag = {"soft": b"2", "pipe": b"6", "directory": b"5"}[kind]
            entries.append(_entry(name, flag, mode=mode, link=b"nowhere" if kind == "soft" else b""))
        there[name] = there[other] if kind == "hard" else kind
    return _tar(*entries)


@given(operations=_operations)
def test_any_archive_comes_out_as_by_one_thread_and_by_gnu_tar(
    operations: list[tuple[str, bytes, bytes, int, int]],
) -> None:
    """Duplicates, links to what is being filled, holes, and what takes the place of something of another kind."""
    data = _archive(operations)
    with TemporaryDirectory() as name:
        directory = Path(name)
        extract(data, directory / "theirs")
        for jobs in (1, 3):
            (directory / str(jobs)).mkdir()
            _extract(data, directory / str(jobs), jobs)
        theirs, one, several = (describe(directory / each) for each in ("theirs", "1", "3"))
        assert one == several
        assert _without_times_of_directories(theirs) == _without_times_of_directories(several)


def _without_times_of_directories(tree: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """GNU tar gives a directory its time when it leaves it, and loses that where it comes back."""
    return {
        name: facts[:3] + facts[4:] if stat.S_ISDIR(cast("int", facts[0])) else facts for name, facts in tree.items()
    }


class _Late(Watched):
    """Writes nothing before the archive's last member is made."""

    def __init__(self, last: str) -> None:
        super().__init__(self._watch)
        self.last = last
        self.made = threading.Event()
        self.late: list[bool] = []

    def _watch(self, call: str, _what: object) -> None:
        if call == "write":
            self.late.append(self.made.wait(_LONG))

    def symlink(self, target: bytes, path: bytes, *, dir_fd: int | None = None) -> None:
        """See `System`."""
        super().symlink(target, path, dir_fd=dir_fd)
        if os.fsdecode(path) == self.last:
            self.made.set()


def test_what_takes_the_place_of_a_file_is_not_written_through(tmp_path: Path) -> None:
    """A file that is filled is the one that was made, whatever its name leads to by now; its hard link is whole."""
    (tmp_path / "outside").write_bytes(b"precious")
    (tmp_path / "target").mkdir()
    body = b"x" * WORTH
    data = _tar(
        _entry(b"./", b"5"),
        _entry(b"./d/", b"5"),
        _entry(b"./d/file", body=body),
        _entry(b"./hard", b"1", link=b"./d/file"),
        _entry(b"./d/file", b"2", link=b"../../outside"),
    )
    late = _Late("file")
    with using(late):
        _extract(data, tmp_path / "target", jobs=2)
    assert [True] == late.late
    assert (b"precious", body) == ((tmp_path / "outside").read_bytes(), (tmp_path / "target/hard").read_bytes())
    assert "../../outside" == os.readlink(tmp_path / "target/d/file")  # noqa: PTH115
    assert (0o640, _T) == (
        (tmp_path / "target/hard").stat().st_mode & 0o7777,
        (tmp_path / "target/hard").stat().st_mtime_ns,
    )


def test_nothing_takes_the_place_of_a_directory_that_is_filled(tmp_path: Path) -> None:
    """A symbolic link in place of a directory is refused while a thread writes below that."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").mkdir()
    data = _tar(
        _entry(b"d/", b"5"),
        _entry(b"d/large", body=b"x" * (3 * _MIB)),
        _entry(b"d", b"2", link=b"../outside"),
        _entry(b"d/more", body=b"x" * (3 * _MIB)),
    )
    with pytest.raises(CorruptStreamError, match=r"'d'.*place of a directory"):
        _extract(data, tmp_path / "target")
    assert [] == list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("jobs", [2, 3])
def test_any_write_may_fail(tmp_path: Path, jobs: int) -> None:
    """The error says which member it was, why, and what to do, whichever thread met it."""
    large = {b"./%d" % number: bytes([65 + number]) * (WORTH + number * 3 * WORTH) for number in range(4)}
    data = _tar(_entry(b"./", b"5"), *(_entry(name, body=body) for name, body in large.items()), _entry(b"./e"))
    counting = Failing(0, kinds=("write",))
    (tmp_path / "all").mkdir()
    with using(counting):
        _extract(data, tmp_path / "all", jobs)
    assert counting.calls >= len(large)
    for at in range(1, counting.calls + 1):
        (tmp_path / f"{at}").mkdir()
        failing = Failing(ERRORS["ENOSPC"], kinds=("write",), at=at)
        with using(failing), pytest.raises(StreamError) as caught:
            _extract(data, tmp_path / f"{at}", jobs)
        name = Path(failing.failed.removeprefix("write ")).name
        assert f"the member './{name}' of the archive cannot be extracted: {os.strerror(28)}" == caught.value.message
        assert "Free space" in str(caught.value.hint)


def test_a_time_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """What a thread finds wrong with a member is told of that member, though another is at hand by then."""
    large = b"x" * WORTH
    data = _tar(_entry(b"bad", body=large, mtime_ns=93 * 10**26), *(_entry(b"good", body=large) for _ in range(9)))
    with pytest.raises(CorruptStreamError, match=r"'bad'.* has a time that cannot be"):
        _extract(data, tmp_path)


def test_an_error_that_nobody_expects_is_not_lost(tmp_path: Path) -> None:
    """Whatever a thread raises ends the extraction."""

    def watch(call: str, _what: object) -> None:
        if call == "write":
            raise MemoryError

    with using(Watched(watch)), pytest.raises(MemoryError):
        _extract(_tar(_entry(b"a", body=b"x" * WORTH)), tmp_path)


class _Source(io.BytesIO):
    """Tells how far it has been read."""

    def __init__(self, data: bytes, told: Callable[[int], None]) -> None:
        super().__init__(data)
        self._told = told

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._told(self.tell())
        return data


def test_reading_is_a_few_pieces_ahead_of_writing(tmp_path: Path) -> None:
    """It goes on while a thread writes, but what is on its way is bounded, so that memory is, too."""
    far = threading.Event()
    at, written, ahead = [0], [0], [0]

    def told(position: int) -> None:
        at[0] = position
        if position > 4 * _MIB:
            far.set()

    def watch(call: str, _what: object) -> None:
        if call == "write":
            assert far.wait(_LONG)
            ahead[0] = max(ahead[0], at[0] - written[0])
            written[0] += _MIB

    data = _tar(_entry(b"large", body=b"x" * (40 * _MIB)))
    with using(Watched(watch)):
        _extract(_Source(data, told), tmp_path, jobs=2)
    assert 4 * _MIB < ahead[0] < 9 * _MIB


def test_a_request_to_stop_is_met_at_once(tmp_path: Path) -> None:
    """Neither is more of the archive read, nor what has been read written."""
    cancel, writes = Cancellation(), [0]

    def watch(call: str, _what: object) -> None:
        if call == "write":
            writes[0] += 1
            cancel.request()

    with using(Watched(watch)), pytest.raises(CancelledError):
        _extract(_tar(_entry(b"large", body=b"x" * (40 * _MIB))), tmp_path, jobs=2, cancel=cancel)
    assert writes[0] < 9
