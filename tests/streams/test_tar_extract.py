"""Extraction: what comes out is what went in, and nothing that an archive says happens outside of its directory."""

from __future__ import annotations

import grp
import io
import os
import pwd
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from gitlab_backup.errors import CancelledError, CorruptStreamError, StreamError
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.system import using
from gitlab_backup.streams.tar import Extracted, ExtractLimits, TarWriter, extract
from gitlab_backup.streams.tar.header import encode
from tests.faults.broken import ERRORS, MAKES, Failing
from tests.streams.tar_support import ListSink, archive, describe
from tests.support import trees
from tests.support.accounts import Account, is_root

if TYPE_CHECKING:
    from pathlib import Path

_T = 1_700_000_000_000_000_001


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory, with something beside it that must not change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"precious")
    target = tmp_path / "target"
    target.mkdir()
    return target


def _extract(
    data: bytes, target: Path, limits: ExtractLimits | None = None, cancel: Cancellation | None = None
) -> Extracted:
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return extract(io.BytesIO(data), root, cancel=cancel or Cancellation(), limits=limits)
    finally:
        os.close(root)


def _entry(name: bytes, kind: bytes = b"0", body: bytes = b"", **more: object) -> tuple[bytes, bytes]:
    fields: dict[str, object] = {"mode": 0o755 if kind == b"5" else 0o640, "uid": os.geteuid(), "gid": os.getegid()}
    fields |= {"mtime_ns": _T, "size": len(body)} | more
    return encode(name, kind, **fields), body  # type: ignore[arg-type]


def _tar(*entries: tuple[bytes, bytes]) -> bytes:
    sink = ListSink()
    writer = TarWriter(sink)
    for header, body in entries:
        writer.add(header, body)
    writer.finish()
    return bytes(sink.content)


@pytest.mark.parametrize("umask", [0o022, 0o777])
def test_everything_comes_back_whatever_the_umask(tmp_path: Path, target: Path, umask: int) -> None:
    """A tree with one of everything is the same after its way through an archive: attributes, links, holes, pipes."""
    source = tmp_path / "source"
    trees.create(source, files=20, seed="x", owner=Account.current(), excluded=None)
    os.mkfifo(source / "odd/pipe", 0o620)
    (source / "read-only").mkdir()
    (source / "read-only/file").touch(0o400)
    (source / "read-only").chmod(0o555)
    (source / "shared").mkdir()
    (source / "shared").chmod(0o2770)
    (source / "sticky").mkdir()
    (source / "sticky").chmod(0o1777)
    os.link(source / "odd/link", source / "odd/link-again", follow_symlinks=False)
    data, report = archive(source)
    before = os.umask(umask)
    try:
        done = _extract(data, target)
    finally:
        os.umask(before)
    assert describe(source) == describe(target)
    assert (report.members, True) == (done.members, done.has_root)
    sparse = (target / "odd/sparse").stat()
    assert sparse.st_blocks * 512 < sparse.st_size / 4
    (source / "read-only").chmod(0o755)
    (target / "read-only").chmod(0o755)


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
def test_archives_of_gnu_tar_come_back(tmp_path: Path, target: Path, form: str) -> None:
    """Every format of GNU tar comes out as GNU tar itself brings it out."""
    source, theirs = tmp_path / "source", tmp_path / "theirs"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_bytes(b"x" * 5000)
    (source / "a/link").symlink_to("b/file")
    (source / "a/hard").hardlink_to(source / "a/b/file")
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(300_000)
        file.write(b"data")
    sparse = ["--sparse"] if form in ("gnu", "posix") else []
    command = ["tar", "-C", str(source), "-c", f"--format={form}", *sparse, "-f", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    theirs.mkdir()
    subprocess.run(["tar", "-x", "-p", "-C", theirs, "-f", "-"], input=data, check=True)
    _extract(data, target)
    assert describe(theirs) == describe(target)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([_entry(b"/absolute")], "absolute"),
        ([_entry(b"../outside/new")], "upwards"),
        ([_entry(b"./a/../../outside/new")], "upwards"),
        ([_entry(b"..", b"5", mode=0o777)], "upwards"),
        ([_entry(b"link", b"2", link=b"../outside"), _entry(b"link/new", body=b"x")], "not a directory"),
        ([_entry(b"link", b"2", link=b"../outside"), _entry(b"link/below/new", b"5")], "not a directory"),
        ([_entry(b"link", b"2", link=b"../outside"), _entry(b"hard", b"1", link=b"link/file")], "not a directory"),
        ([_entry(b"hard", b"1", link=b"../outside/file")], "upwards"),
        ([_entry(b"hard", b"1", link=b"/etc/passwd")], "absolute"),
        ([_entry(b"d", b"5"), _entry(b"hard", b"1", link=b"d")], "hard link to a directory"),
        ([_entry(b"hard", b"1", link=b"nothing")], "No such file"),
        ([_entry(b"device", b"3", device=(1, 3))], "device node"),
        ([_entry(b"device", b"4", device=(8, 0))], "device node"),
        ([_entry(b"program", mode=0o4755)], "setuid"),
        ([_entry(b"program", mode=0o2755)], "setgid"),
        ([_entry(b"d", b"5"), _entry(b"d/file"), _entry(b"d")], "place of a directory"),
        ([_entry(b"d", b"5"), _entry(b"d", b"2", link=b"../outside")], "place of a directory"),
        ([_entry(b"file"), _entry(b"file/below")], "not a directory"),
        ([_entry(b".", b"2", link=b"../outside")], "place of the directory itself"),
        ([_entry(b"x" * 256)], "longer than 255"),
        ([_entry(b"d/" * 2049 + b"x")], "directories deep"),
        ([_entry(b"file", uid=2**32 - 1)], "no user's number"),
        ([_entry(b"file", mtime_ns=93 * 10**26)], "time that cannot be"),
    ],
)
def test_hostile_members_are_refused(target: Path, entries: list[tuple[bytes, bytes]], message: str) -> None:
    """What leads out, pretends or endangers ends the extraction; the world outside is as before."""
    before = describe(target.parent / "outside")
    with pytest.raises(StreamError, match=message):
        _extract(_tar(_entry(b"./", b"5"), *entries), target)
    assert before == describe(target.parent / "outside")
    assert ["outside", "target"] == sorted(path.name for path in target.parent.iterdir())


def test_links_are_data(target: Path) -> None:
    """A symbolic link is kept wherever it leads; what takes its place, or links to it, does not follow it."""
    data = _tar(
        _entry(b"a", b"2", link=b"../outside/file"),
        _entry(b"hard", b"1", link=b"a"),
        _entry(b"b", b"2", link=b"../outside/file"),
        _entry(b"b", body=b"new"),
        _entry(b"c", b"2", link=b"../outside"),
        _entry(b"c", b"5", mode=0o700),
        _entry(b"c/file", body=b"inside"),
    )
    before = describe(target.parent / "outside")
    _extract(data, target)
    assert before == describe(target.parent / "outside")
    assert ["../outside/file"] * 2 == [os.readlink(target / name) for name in ("a", "hard")]  # noqa: PTH115
    assert (b"new", b"inside") == ((target / "b").read_bytes(), (target / "c/file").read_bytes())


def test_a_later_member_wins(target: Path) -> None:
    """A file that comes again is replaced, other names of the first one are not; directories keep their contents."""
    data = _tar(
        _entry(b"./", b"5", mode=0o751),
        _entry(b"./d/", b"5", mode=0o755),
        _entry(b"./d/file", body=b"first"),
        _entry(b"./d/hard", b"1", link=b"./d/file"),
        _entry(b"./e", body=b"e"),
        _entry(b"./d/file", body=b"second"),
        _entry(b"./d/", b"5", mode=0o500, mtime_ns=_T + 5),
        _entry(b"./d/hard", b"1", link=b"./d/hard"),
    )
    _extract(data, target)
    assert (b"second", b"first") == ((target / "d/file").read_bytes(), (target / "d/hard").read_bytes())
    status = (target / "d").stat()
    assert (0o500, _T + 5) == (stat.S_IMODE(status.st_mode), status.st_mtime_ns)
    assert (0o751, _T) == (stat.S_IMODE(target.stat().st_mode), target.stat().st_mtime_ns)


def test_directories_may_come_in_any_order(target: Path) -> None:
    """Directories keep their times though things are made in them later; a missing one is made."""
    data = _tar(
        _entry(b"a/", b"5"),
        _entry(b"a/b/", b"5"),
        _entry(b"c/implied/file", body=b"x"),
        _entry(b"a/b/late", body=b"y"),
    )
    done = _extract(data, target)
    assert [_T, _T] == [(target / name).stat().st_mtime_ns for name in ("a", "a/b")]
    assert 0o755 == stat.S_IMODE((target / "c/implied").stat().st_mode)
    assert not done.has_root


def test_names_are_bytes(target: Path) -> None:
    """Newlines, bytes that are not UTF-8, shell characters and 255 bytes are names like others."""
    names = [b"a\nb", b"\xff\xfe", b"-rf $(x)", b"n" * 255, b" "]
    _extract(_tar(*(_entry(name, body=name) for name in names)), target)
    assert sorted(names) == sorted(os.fsencode(path.name) for path in target.iterdir())


def test_deep_trees_come_back_with_few_descriptors(target: Path) -> None:
    """Five hundred directories in each other keep their times, with fewer open files than that, on the way back too."""
    import resource

    entries = [_entry(b"d/" * depth, b"5", mtime_ns=_T + depth) for depth in range(1, 501)]
    entries += [_entry(b"d/" * depth + b"file", body=b"x") for depth in (500, 430, 100, 1)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 300), hard))
    try:
        _extract(_tar(*entries), target)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for depth in (1, 100, 430, 500):
        path = os.fsencode(target) + b"/d" * depth
        assert (_T + depth, True) == (os.stat(path).st_mtime_ns, os.path.exists(path + b"/file"))  # noqa: PTH110, PTH116


@pytest.mark.parametrize("limits", [ExtractLimits(members=2), ExtractLimits(data_bytes=7), ExtractLimits(space=8200)])
def test_bombs_are_refused(target: Path, limits: ExtractLimits) -> None:
    """The first member that is too many, or makes too many bytes, is not made; as many as allowed are."""
    entries = [_entry(name, body=b"1234") for name in (b"a", b"b", b"c")]
    with pytest.raises(CorruptStreamError, match=r"that there should be|8200 bytes, more than there is room for"):
        _extract(_tar(*entries), target, limits)
    made = sorted(path.name for path in target.iterdir())
    assert (["a"] if limits.data_bytes else ["a", "b"]) == made
    _extract(_tar(*entries), target, ExtractLimits(members=3, data_bytes=12))


def test_a_cancelled_extraction_stops(target: Path) -> None:
    """A request to stop is noticed at the next member."""
    cancel = Cancellation()
    cancel.request()
    with pytest.raises(CancelledError):
        _extract(_tar(_entry(b"a")), target, cancel=cancel)
    assert [] == list(target.iterdir())


def test_owners_are_the_archived_numbers(target: Path) -> None:
    """Root gives every owner, also those without a name here, to files, links and directories; modes survive that."""
    if not is_root():
        pytest.skip("only root can give files away")
    who: dict[str, Any] = {"uid": 123_456, "gid": 3_000_000}
    data = _tar(
        _entry(b"d", b"5", mode=0o2770, **who),
        _entry(b"d/f", mode=0o2640, **who),
        _entry(b"d/l", b"2", link=b"x", **who),
        _entry(b"d/p", b"6", mode=0o622, **who),
    )
    _extract(data, target)
    found = [(target / name).lstat() for name in ("d", "d/f", "d/l", "d/p")]
    assert {(123_456, 3_000_000)} == {(status.st_uid, status.st_gid) for status in found}
    assert [0o2770, 0o2640, 0o777, 0o622] == [stat.S_IMODE(status.st_mode) for status in found]


@pytest.mark.skipif(not is_root(), reason="only root gives files away")
def test_owners_go_by_name(target: Path) -> None:
    """As GNU tar does it: the same user may have another number here. A name that nobody has here leaves the number."""
    daemon, group = pwd.getpwnam("daemon"), grp.getgrnam("daemon")
    data = _tar(
        _entry(b"./known", uid=54321, gid=54322, uname=b"daemon", gname=b"daemon"),
        _entry(b"./unknown", uid=54321, gid=54322, uname=b"nobody-here", gname=b"\xff"),
        _entry(b"./without", uid=54321, gid=54322),
    )
    _extract(data, target)
    found = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in target.iterdir()}
    own, other = (daemon.pw_uid, group.gr_gid), (54321, 54322)
    assert {"known": own, "unknown": other, "without": other} == found


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("call", [*MAKES, "write"])
def test_a_full_disk_and_a_quota(target: Path, call: str, error: str) -> None:
    """Whatever cannot be made for want of space or by a quota: the error says which member, why, and what to do."""
    data = _tar(
        _entry(b"./", b"5"),
        _entry(b"./d/", b"5"),
        _entry(b"./d/file", body=b"content"),
        _entry(b"./d/hard", b"1", link=b"./d/file"),
        _entry(b"./d/soft", b"2", link=b"file"),
        _entry(b"./d/pipe", b"6"),
    )
    failing = Failing(ERRORS[error], kinds=(call,), at=1)
    with using(failing), pytest.raises(StreamError, match=os.strerror(ERRORS[error])) as caught:
        _extract(data, target)
    assert failing.failed
    assert "member './d" in caught.value.message
    assert ("Free space" in str(caught.value.hint), error == "EDQUOT") == (True, "quota" in str(caught.value.hint))
