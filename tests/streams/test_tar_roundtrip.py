"""What is archived comes back exactly, with the programs that people have."""

# ruff: noqa: PTH101, PTH102, PTH103, PTH115, PTH123, PTH211, S202 - names are bytes here, and the programs those of the search path

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gitlab_backup.streams.tar import Kind, TarReader
from gitlab_backup.streams.tar.header import DIRECTORY, REGULAR, encode

from .tar_support import archive, contents, describe, extract

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")
LOCALES = ("C", "C.UTF-8")


def _odd_tree(root: Path) -> None:
    # Everything that an archive has to carry, in one tree.
    top = os.fsencode(root)
    deep = b"/".join([b"level \xff\n"] * 40)
    os.makedirs(top + b"/" + deep)
    for name in (
        b"plain",
        b"-dash",
        b" space ",
        b"new\nline",
        b"\xff\xfe not utf-8",
        "\N{SNOWMAN}".encode(),
        b"\\back\\",
    ):
        Path(os.fsdecode(top + b"/" + name)).write_bytes(b"content of " + name)
    Path(os.fsdecode(top + b"/" + deep + b"/" + b"n" * 255)).write_bytes(b"deep")
    ascii_deep = root / "/".join(["a" * 90] * 5)
    ascii_deep.mkdir(parents=True)
    (ascii_deep / "end").write_text("x")
    (root / ("b" * 120)).mkdir()
    (root / ("b" * 120) / ("c" * 100)).write_text("just fits")
    (root / "empty directory").mkdir()
    (root / "empty").touch()
    os.symlink(b"nowhere \xfe/\n" * 30, top + b"/long link")
    os.symlink("a" * 300, root / "long plain link")
    os.symlink("plain", root / "link")
    os.link(root / "plain", root / "zz hard link")
    os.link(top + b"/" + deep + b"/" + b"n" * 255, top + b"/zz far hard link")
    os.mkfifo(root / "pipe")
    (root / "exact").write_bytes(b"x" * 1024)
    (root / "one more").write_bytes(b"x" * 1025)
    (root / "large").write_bytes(bytes(range(256)) * 20_000)
    (root / "plain").chmod(0o1751)
    (root / "empty directory").chmod(0o1777)
    os.utime(root / "empty", ns=(0, -1))
    os.utime(root / "exact", ns=(0, -86_400_000_000_000))
    os.utime(root / "large", ns=(0, 1_700_000_000_123_456_789))
    os.utime(root / "link", ns=(0, 1_600_000_000_000_000_001), follow_symlinks=False)


@pytest.mark.parametrize("locale", LOCALES)
def test_gnu_tar_restores_everything(tmp_path: Path, locale: str) -> None:
    """GNU tar restores an odd tree exactly, to the nanosecond, in any locale, without a complaint."""
    (tmp_path / "in").mkdir()
    _odd_tree(tmp_path / "in")
    data, report = archive(tmp_path / "in")
    extract(data, tmp_path / "out", locale=locale)
    assert describe(tmp_path / "in") == describe(tmp_path / "out")
    assert (0, 0, 0) == (report.vanished, report.changed_count, report.unreadable_count)
    assert 0 == len(data) % 10240


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="bsdtar is not installed")
@pytest.mark.parametrize("locale", LOCALES)
def test_bsdtar_restores_everything(tmp_path: Path, locale: str) -> None:
    """So does bsdtar, but for fractions of seconds before 1970, and the time of the directory it extracts into."""
    (tmp_path / "in").mkdir()
    _odd_tree(tmp_path / "in")
    os.utime(tmp_path / "in/empty", ns=(0, 0))
    data, _ = archive(tmp_path / "in")
    extract(data, tmp_path / "out", program="bsdtar", locale=locale)
    shutil.copystat(tmp_path / "in", tmp_path / "out")
    assert describe(tmp_path / "in") == describe(tmp_path / "out")


def extract_with_tarfile(file: tarfile.TarFile, target: Path) -> None:
    """Extract everything as it is."""
    # Python 3.11 knows the argument `filter` from 3.11.4 on only; before, it does as this says.
    file.extraction_filter = lambda member, _: member
    file.extractall(target)


def test_tarfile_restores_everything(tmp_path: Path) -> None:
    """So does Python's tarfile, but for the last digits of times, which it keeps as floats."""
    (tmp_path / "in").mkdir()
    _odd_tree(tmp_path / "in")
    data, _ = archive(tmp_path / "in")
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        extract_with_tarfile(file, tmp_path / "out")
    assert describe(tmp_path / "in", times=False) == describe(tmp_path / "out", times=False)


def test_own_reader_sees_everything(tmp_path: Path) -> None:
    """Our own reader finds what is on the disk, `./` first, sorted by name."""
    (tmp_path / "in").mkdir()
    _odd_tree(tmp_path / "in")
    data, report = archive(tmp_path / "in")
    found = contents(data)
    assert b"./" == next(iter(found))
    assert report.members == len(found)
    for name, (member, body) in found.items():
        path = os.fsencode(tmp_path / "in") + b"/" + name
        status = os.lstat(path)
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (member.mode, member.mtime_ns)
        if member.kind is Kind.FILE:
            assert Path(os.fsdecode(path)).read_bytes() == body
        if member.kind is Kind.SYMBOLIC_LINK:
            assert os.readlink(path) == member.link
    top = [name for name in found if name.rstrip(b"/").count(b"/") == 1]
    assert sorted(top, key=lambda name: name.rstrip(b"/")) == top


@as_root
def test_owners_come_back(tmp_path: Path) -> None:
    """Owners beyond the ustar field, and owners without a name, are restored."""
    tree = tmp_path / "in"
    tree.mkdir()
    for uid, gid in ((0, 0), (65534, 65534), (2_097_151, 2_097_152), (3_000_000_000, 4_000_000_000)):
        (tree / str(uid)).touch()
        os.chown(tree / str(uid), uid, gid)
    data, _ = archive(tree)
    extract(data, tmp_path / "out")
    assert describe(tree) == describe(tmp_path / "out")


def test_what_no_restore_takes_is_not_archived(tmp_path: Path) -> None:
    """Files lose setuid and setgid, also behind a second name, and are named once; a directory keeps its setgid."""
    tree = tmp_path / "in"
    tree.mkdir()
    for name, mode in (("user", 0o4711), ("group", 0o2755), ("both", 0o6755), ("lock", 0o2644), ("plain", 0o755)):
        (tree / name).write_bytes(b"x")
        (tree / name).chmod(mode)
    (tree / "zweite").hardlink_to(tree / "user")
    (tree / "shared").mkdir()
    (tree / "shared").chmod(0o2770)
    data, report = archive(tree)
    modes = {
        name: oct(member.mode) for name, (member, _) in contents(data).items() if member.kind is not Kind.HARD_LINK
    }
    assert (("./both", "./group", "./user"), 3) == (report.stripped, report.stripped_count)
    assert modes == {
        b"./": oct(stat.S_IMODE(tree.stat().st_mode)),
        b"./both": "0o755",
        b"./group": "0o755",
        b"./lock": "0o2644",
        b"./plain": "0o755",
        b"./shared/": "0o2770",
        b"./user": "0o711",
    }


@as_root
def test_device_nodes_are_left_out(tmp_path: Path) -> None:
    """No restore makes one, so none is archived; each is named."""
    tree = tmp_path / "in"
    tree.mkdir()
    os.mknod(tree / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(tree / "loop", 0o600 | stat.S_IFBLK, os.makedev(259, 1_048_575))
    data, report = archive(tree)
    assert {b"./"} == contents(data).keys()
    assert (("./loop", "./null"), 2) == (report.devices, report.devices_count)


@pytest.mark.parametrize("program", ["tar", "bsdtar", "tarfile"])
@pytest.mark.parametrize("pieces", [[], [0], [5 << 20], [0, 3 << 20, 9 << 20], [(10 << 20) - 5]])
def test_holes_stay_holes(tmp_path: Path, program: str, pieces: list[int]) -> None:
    """A sparse file is stored without its holes, under an odd name too, and comes back with them."""
    if program == "bsdtar" and shutil.which("bsdtar") is None:
        pytest.skip("bsdtar is not installed")
    tree = tmp_path / "in"
    tree.mkdir()
    with open(os.fsencode(tree) + b"/sparse \xff" + b"x" * 150, "wb") as file:
        file.truncate(10 << 20)
        for at in pieces:
            file.seek(at)
            file.write(b"12345")
    data, _ = archive(tree)
    assert len(data) < 1 << 20
    if program == "tarfile":
        with tarfile.open(fileobj=io.BytesIO(data)) as archived:
            extract_with_tarfile(archived, tmp_path / "out")
    else:
        extract(data, tmp_path / "out", program=program)
    assert describe(tree, times=False) == describe(tmp_path / "out", times=False)
    ours = contents(data)
    assert describe(tree)[b"sparse \xff" + b"x" * 150][5] == ours[b"./sparse \xff" + b"x" * 150][1]
    (restored,) = (tmp_path / "out").iterdir()
    assert restored.stat().st_blocks * 512 < 1 << 20


def test_sizes_beyond_eight_gib() -> None:
    """The header of a file that is too large for the octal field is read by GNU tar and by us."""
    size = (8 << 30) + 7
    header = encode(b"./huge", REGULAR, mode=0o644, uid=0, gid=0, mtime_ns=0, size=size)
    done = subprocess.run(["tar", "-tvf", "-"], input=header + bytes(4096), capture_output=True, check=False)
    assert str(size).encode() in done.stdout
    assert size == next(iter(TarReader(io.BytesIO(header + bytes(4096))))).size


@given(
    name=st.binary(min_size=1, max_size=600).filter(lambda n: b"\0" not in n),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    mtime_ns=st.integers(-(10**21), 10**21),
)
@example(name=b"/" * 300, mode=0, uid=0, mtime_ns=0)
@example(name=b"a/" * 50, mode=0, uid=0, mtime_ns=8**11 * 10**9)
def test_headers_round_trip(name: bytes, mode: int, uid: int, mtime_ns: int) -> None:
    """Whatever a header says, it is read back."""
    data = encode(name, DIRECTORY, mode=mode, uid=uid, gid=uid, mtime_ns=mtime_ns) + bytes(1024)
    (member,) = TarReader(io.BytesIO(data))
    assert (name, mode, uid, uid, mtime_ns) == (member.name, member.mode, member.uid, member.gid, member.mtime_ns)


_names = st.binary(min_size=1, max_size=120).filter(lambda n: n not in {b".", b".."} and not set(n) & {0, 47})
_files = st.tuples(st.binary(max_size=3000), st.integers(0, 0o1777), st.integers(-(10**18), 4 * 10**18))
_trees = st.recursive(
    st.one_of(_files, _names), lambda inner: st.dictionaries(_names, inner, max_size=6), max_leaves=25
)


def _build(path: bytes, tree: object, seen: list[bytes]) -> None:
    if isinstance(tree, dict):
        os.mkdir(path)
        for name, below in tree.items():
            _build(path + b"/" + name, below, seen)
    elif isinstance(tree, bytes):
        if seen and tree[0] % 2:
            os.link(seen[tree[0] % len(seen)], path, follow_symlinks=False)
        else:
            os.symlink(tree, path)
    else:
        body, mode, mtime_ns = cast("tuple[bytes, int, int]", tree)
        with open(path, "wb") as file:
            file.write(body)
        os.chmod(path, mode)
        os.utime(path, ns=(0, mtime_ns))
        seen.append(path)


@as_root
@given(tree=st.dictionaries(_names, _trees, max_size=6))
@example(tree={b"before": (b"", 0, -(10**18)), b"to come": (b"", 0, 4 * 10**18)})
def test_any_tree_comes_back(tree: dict[bytes, object]) -> None:
    """GNU tar restores any tree of files, links and directories exactly."""
    with TemporaryDirectory() as directory:
        _build(os.fsencode(directory) + b"/in", tree, [])
        data, report = archive(Path(directory, "in"))
        extract(data, Path(directory, "out"))
        assert describe(Path(directory, "in")) == describe(Path(directory, "out"))
        assert 0 == report.unreadable_count


def test_exclusions(tmp_path: Path) -> None:
    """Some names are left out at the top only, others everywhere, directories with all that is in them."""
    for name in ("tmp/a", "keep/tmp/b", "lost+found/c", "keep/lost+found/d", "keep/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    data, _ = archive(tmp_path, exclude=[b"tmp"], exclude_everywhere=[b"lost+found"])
    assert [b"./", b"./keep/", b"./keep/e", b"./keep/tmp/", b"./keep/tmp/b"] == list(contents(data))


def test_very_deep_trees(tmp_path: Path) -> None:
    """A tree deeper than file descriptors and path lengths allow is archived whole, and read on after the way back."""
    fd = os.open(tmp_path, os.O_RDONLY)
    depth = 1500
    try:
        for level in range(depth):
            os.mkdir(b"directory", dir_fd=fd)
            os.close(os.open(b"zz", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
            below = os.open(b"directory", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
            assert level < depth
        data, report = archive(tmp_path)
    finally:
        os.close(fd)
        subprocess.run(["rm", "-rf", tmp_path / "directory"], check=True)  # too deep for pytest
    found = contents(data)
    assert (0, 2 * depth + 1) == (report.unreadable_count, report.members)
    assert b"./" + b"directory/" * (depth - 1) + b"zz" in found
    assert b"./zz" in found
