"""The reader of archives takes what others write, and nothing that is damaged or hostile."""

# ruff: noqa: PT017 - corruption is allowed, not required; the programs are those of the search path

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitlab_backup.errors import CorruptStreamError
from gitlab_backup.streams.tar import Kind, Limits, TarReader, check_name
from gitlab_backup.streams.tar.header import (
    CHARACTER,
    DIRECTORY,
    HARD_LINK,
    REGULAR,
    SYMBOLIC_LINK,
    encode,
)

from .tar_support import contents

if TYPE_CHECKING:
    from pathlib import Path

END = bytes(1024)


def _entry(
    name: bytes,
    body: bytes = b"",
    *,
    typeflag: bytes = REGULAR,
    link: bytes = b"",
    records: tuple[tuple[bytes, bytes], ...] = (),
    size: int | None = None,
) -> bytes:
    length = len(body) if size is None else size
    header = encode(name, typeflag, mode=0o644, uid=1, gid=1, mtime_ns=0, size=length, link=link, records=records)
    return header + body + bytes(-len(body) % 512)


SEED = (
    _entry(b"./", typeflag=DIRECTORY)
    + _entry(b"./file", b"body" * 200)
    + _entry(b"./" + b"n\xff" * 150, b"x")
    + _entry(b"./" + b"p" * 300, b"x")
    + _entry(b"./link", typeflag=SYMBOLIC_LINK, link=b"t\xff" * 100)
    + _entry(b"./hard", typeflag=HARD_LINK, link=b"./file")
    + _entry(
        b"./sparse",
        b"2\n0\n3\n1000\n0\n".ljust(512, b"\0") + b"abc",
        records=((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1000")),
    )
    + END
)


def _read(data: bytes) -> list[bytes]:
    names = []
    reader = TarReader(io.BytesIO(data))
    for member in reader:
        assert 0 <= member.size
        names.append(member.name)
        check_name(member)
        for _ in reader.blocks():
            pass
    return names


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
@pytest.mark.parametrize("archive_format", ["gnu", "pax", "ustar", "v7"])
def test_reads_what_programs_write(tmp_path: Path, program: str, archive_format: str) -> None:
    """Archives of GNU tar and bsdtar in all their formats give the same files, links and directories."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    if program == "bsdtar" and archive_format == "gnu":
        archive_format = "gnutar"
    tree = tmp_path / "in"
    long = archive_format not in {"ustar", "v7"}
    name = "n" * 120 if long else "n" * 90
    (tree / "d").mkdir(parents=True)
    (tree / name).write_bytes(b"body")
    (tree / "empty").touch()
    (tree / "link").symlink_to("t" * (150 if long else 50))
    (tree / "d/hard").hardlink_to(tree / name)
    with (tree / "sparse").open("wb") as file:
        for at in range(0, 100 << 20, 4 << 20):  # more pieces than fit into an old header
            file.seek(at)
            file.write(b"piece")
    command = [program, f"--format={archive_format}", "-c", "-S", "-f", "-", "-C", str(tree), "."]
    if program == "bsdtar" or not long:
        command.remove("-S")
    data = subprocess.run(command, capture_output=True, check=True).stdout
    found = contents(data)
    assert {b"./", b"./d/", b"./d/hard", b"./link", b"./empty", b"./sparse", b"./" + name.encode()} == set(found)
    assert (tree / "sparse").read_bytes() == found[b"./sparse"][1]
    kinds = {found[b"./d/hard"][0].kind, found[b"./" + name.encode()][0].kind}
    assert {Kind.FILE, Kind.HARD_LINK} == kinds
    assert (tree / "link").readlink().as_posix().encode() == found[b"./link"][0].link


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_reads_every_sparse_version(tmp_path: Path, version: str) -> None:
    """The three versions of pax sparse maps give the same file."""
    with (tmp_path / "sparse").open("wb") as file:
        for at in range(0, 20 << 20, 1 << 20):
            file.seek(at)
            file.write(b"piece")
        file.truncate(30 << 20)
    command = ["tar", "--format=posix", "-S", f"--sparse-version={version}", "-cf", "-", "-C", str(tmp_path), "sparse"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(data) < 1 << 20
    assert (tmp_path / "sparse").read_bytes() == contents(data)[b"sparse"][1]


@pytest.mark.parametrize("archive_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_reads_what_tarfile_writes(archive_format: int) -> None:
    """Archives of Python's tarfile are read, with large numbers where the format has them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=archive_format) as file:
        info = tarfile.TarInfo("d/" * 60 + "end")
        info.size, info.mtime = 4, 1_700_000_000
        info.uid = 1 if archive_format == tarfile.USTAR_FORMAT else 3_000_000_000
        file.addfile(info, io.BytesIO(b"body"))
    ((name, (member, body)),) = contents(buffer.getvalue()).items()
    assert (b"d/" * 60 + b"end", b"body", info.uid) == (name, body, member.uid)


@given(data=st.data())
def test_any_damage_is_corruption(data: st.DataObject) -> None:
    """A changed, cut or lengthened archive gives members or `CorruptStreamError`, never anything else."""
    mutated = bytearray(SEED)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        what = data.draw(st.sampled_from(["set", "text", "cut", "drop", "repeat"]))
        if what == "set":
            mutated[at] = data.draw(st.integers(0, 255))
        elif what == "text":
            mutated[at : at + 1] = data.draw(st.binary(min_size=1, max_size=20))
        elif what == "cut":
            del mutated[max(at, 1) :]
        elif what == "drop":
            del mutated[at // 512 * 512 : at // 512 * 512 + 512]
            mutated += b"" if mutated else b"\0"
        else:
            mutated[at:at] = mutated[at : at + 512]
    try:
        _read(bytes(mutated))
    except CorruptStreamError as error:
        assert "at byte" in error.message


@given(block=st.integers(0, len(SEED) // 512 - 1), at=st.integers(0, 499), value=st.binary(min_size=1, max_size=12))
def test_damage_behind_a_right_checksum_is_corruption(block: int, at: int, value: bytes) -> None:
    """Fields with nonsense in them, under a checksum that fits, are members or corruption."""
    mutated = bytearray(SEED)
    start = block * 512
    mutated[start + at : start + at + len(value)] = value
    header = mutated[start : start + 512]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    mutated[start : start + 512] = header
    try:
        _read(bytes(mutated))
    except CorruptStreamError as error:
        assert "at byte" in error.message


@given(garbage=st.binary(max_size=3000))
def test_garbage_is_corruption(garbage: bytes) -> None:
    """What is no archive at all is refused, unless it is nothing but an end."""
    try:
        _read(garbage)
    except CorruptStreamError:
        return
    assert not garbage.strip(b"\0")


def test_every_truncation_is_noticed() -> None:
    """An archive cut anywhere before the first block of its end is corrupt."""
    for length in [*range(0, len(SEED) - 1024, 97), len(SEED) - 1024, len(SEED) - 1024 + 511]:
        with pytest.raises(CorruptStreamError, match="too early"):
            _read(SEED[:length])
    assert 7 == len(_read(SEED)) == len(_read(SEED[:-512])) == len(_read(SEED + bytes(10240)))


def test_the_place_of_damage_is_named() -> None:
    """The error says at which byte and after which member."""
    data = bytearray(_entry(b"./first", b"x") + _entry(b"./second", b"x") + END)
    data[1024 + 2] ^= 1  # a letter of the name: only the checksum tells
    with pytest.raises(CorruptStreamError, match=r"at byte \d+, after member './first'"):
        _read(bytes(data))


_SPARSE = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"1000"))


@pytest.mark.parametrize(
    "data",
    [
        SEED + b"x",
        SEED[:-512] + b"x" * 512,
        _entry(b"a", typeflag=DIRECTORY, size=512) + bytes(512) + END,
        _entry(b"a", typeflag=b"Z") + END,
        _entry(b"a", typeflag=b"V") + END,
        _entry(b"a", records=((b"size", b"-1"),)) + END,
        _entry(b"a", records=((b"size", b"9" * 19),)) + END,
        _entry(b"a", records=((b"size", b"9" * 5000),)) + END,
        _entry(b"a", records=((b"path", b"x\0y"),)) + END,
        _entry(b"a", records=((b"path", b"x" * 70_000),)) + END,
        _entry(b"a", records=((b"mtime", b"soon"),)) + END,
        _entry(b"x", b"30 path=short\n", typeflag=b"x") + _entry(b"a") + END,
        _entry(b"x", b"path=short\n", typeflag=b"x") + _entry(b"a") + END,
        _entry(b"x", b"", typeflag=b"x") + END,
        _entry(b"x", b"", typeflag=b"x", size=1 << 30) + END,
        _entry(b"x", b"", typeflag=b"L", size=1 << 30) + END,
        _entry(b"x", b"".join(b"%d k%05d=\n" % (11, n) for n in range(2000)), typeflag=b"g") + END,
        _entry(b"s", b"1\n0\n999\n".ljust(512, b"\0") + b"abc", records=_SPARSE) + END,
        _entry(b"s", b"2\n5\n3\n0\n3\n".ljust(512, b"\0") + b"abcabc", records=_SPARSE) + END,
        _entry(b"s", b"1\n999\n3\n".ljust(512, b"\0") + b"abc", records=_SPARSE) + END,
        _entry(b"s", b"9999999\n".ljust(512, b"\0"), records=_SPARSE) + END,
        _entry(b"s", b"9" * 2048, records=_SPARSE) + END,
        _entry(b"s", b"1\n0\n", records=_SPARSE, size=4) + END,
        _entry(b"s", records=((b"GNU.sparse.major", b"2"), *_SPARSE[1:])) + END,
        _entry(b"s", records=((b"GNU.sparse.map", b"1,2,3"), (b"GNU.sparse.size", b"9"))) + END,
        _entry(b"s", typeflag=DIRECTORY, records=_SPARSE) + END,
    ],
)
def test_nonsense_is_corruption(data: bytes) -> None:
    """What no program writes, or what only wants memory, is refused."""
    with pytest.raises(CorruptStreamError):
        _read(data)


def test_endless_extended_headers_are_refused() -> None:
    """Pax headers without end do not fill the memory."""
    one = _entry(b"x", b"".join(b"10 %05d=\n" % n for n in range(1000)), typeflag=b"x")
    with pytest.raises(CorruptStreamError, match="too many pax records"):
        list(TarReader(io.BytesIO(one * 10), limits=Limits(records=50_000)))


@pytest.mark.parametrize(
    ("name", "typeflag", "link", "reason"),
    [
        (b"./fine..name/..x", REGULAR, b"", None),
        (b"/etc/passwd", REGULAR, b"", "absolute"),
        (b"./a/../../b", REGULAR, b"", "upwards"),
        (b"..", DIRECTORY, b"", "upwards"),
        (b"", REGULAR, b"", "empty"),
        (b"./h", HARD_LINK, b"../../etc/passwd", "upwards"),
        (b"./h", HARD_LINK, b"/etc/passwd", "absolute"),
        (b"./s", SYMBOLIC_LINK, b"../../anywhere", None),
        (b"./s", SYMBOLIC_LINK, b"", "empty"),
        (b"./null", CHARACTER, b"", "device"),
    ],
)
def test_hostile_members_are_named(name: bytes, typeflag: bytes, link: bytes, reason: str | None) -> None:
    """What would lead out of the target directory has a reason not to be extracted."""
    (member,) = TarReader(io.BytesIO(_entry(name, typeflag=typeflag, link=link) + END))
    found = check_name(member)
    assert (reason is None) == (found is None)
    assert (reason or "") in (found or "")
