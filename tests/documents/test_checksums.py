"""`SHA256SUMS`, held against the real `sha256sum`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitlab_backup.checksums import Checksums
from gitlab_backup.errors import ChecksumsError
from gitlab_backup.strategies import checksums, file_names
from tests.documents.mutation import mutated_bytes

ODD = [
    "-",
    "a\nb",
    "a\rb",
    "a\\b",
    "\\n",
    "a\r",
    " x",
    "* x",
    "#",
    "\udcff",
    "é",
    "d/\\/-",
    "x" * 255,
    "SHA256 (x) = y",
]
ZERO = "0" * 64


def sha256sum(*arguments: str | bytes, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/usr/bin/env", "sha256sum", *arguments],
        cwd=cwd,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )


def make_files(directory: Path, names: list[str]) -> Checksums:
    """Make a file of each name, with a content of its own; names that need a directory where a file is are left out."""
    digests = {}
    for name in names:
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name) * 3)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return Checksums(digests)


def problems(document: bytes) -> tuple[str, ...]:
    with pytest.raises(ChecksumsError) as caught:
        Checksums.from_bytes(document, source="the/file")
    assert "the/file" in caught.value.message
    assert caught.value.hint
    return caught.value.problems


def agree(directory: Path, names: list[str]) -> None:
    sums = make_files(directory, names)
    (directory / "SUMS of this test").write_bytes(sums.to_bytes())

    checked = sha256sum("--check", "--strict", "SUMS of this test", cwd=directory)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert checked.stdout.count(b": OK\n") == len(sums)
    arguments = [b"./-" if name == "-" else os.fsencode(name) for name in sums]  # a lone hyphen is standard input
    for mode in ("--text", "--binary"):
        written = sha256sum(mode, "--", *arguments, cwd=directory).stdout
        assert sums == Checksums.from_bytes(written, source="sha256sum")
        if mode == "--text":
            assert written == sums.to_bytes()


def test_sha256sum_and_we_agree_on_odd_names(tmp_path: Path) -> None:
    """`sha256sum -c` accepts what we write, and we read and write the bytes that it writes."""
    agree(tmp_path, ODD)


@given(st.lists(file_names().filter(lambda name: not name.startswith("SUMS")), min_size=1, max_size=8, unique=True))
def test_sha256sum_and_we_agree_on_any_names(names: list[str]) -> None:
    """The same for names of any bytes that a file system takes."""
    with tempfile.TemporaryDirectory() as directory:
        agree(Path(directory), names)


def test_sha256sum_finds_a_changed_file(tmp_path: Path) -> None:
    """The digests are those of the files: a change is found by anyone."""
    sums = make_files(tmp_path, ["a", "b"])
    (tmp_path / "SHA256SUMS").write_bytes(sums.to_bytes())
    (tmp_path / "b").write_bytes(b"changed")

    assert b"b: FAILED\n" in sha256sum("-c", "SHA256SUMS", cwd=tmp_path).stdout


@given(checksums())
def test_what_is_written_is_read_back(value: Checksums) -> None:
    """Checksums survive being a file, which is sorted by the bytes of the names."""
    again = Checksums.from_bytes(value.to_bytes(), source="x")

    assert value == again
    assert sorted(again, key=os.fsencode) == list(again)
    assert value.to_bytes() == again.to_bytes()


@given(st.data(), checksums().map(Checksums.to_bytes))
def test_a_damaged_file_is_understood_or_refused(data: st.DataObject, valid: bytes) -> None:
    """Whatever is done to a file, it gives checksums that can be written again, or a ChecksumsError."""
    try:
        value = Checksums.from_bytes(data.draw(mutated_bytes(valid)), source="x")
    except ChecksumsError:
        return
    assert value == Checksums.from_bytes(value.to_bytes(), source="x")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (f"{ZERO}  a", "line 1: is cut short"),
        ("\n", "line 1: is not"),
        ("# a comment\n", "line 1: is not"),
        (f"{ZERO} a\n", "line 1: is not"),
        (f"{ZERO}  \n", "line 1: is not"),
        (f"{ZERO}0  a\n", "line 1: is not"),
        (f"{ZERO[1:]}g  a\n", "line 1: is not"),
        (f"{ZERO}  /etc/passwd\n", "line 1: '/etc/passwd' is absolute"),
        (f"{ZERO}  ../a\n", "line 1: '../a' is not the plain relative path"),
        (f"{ZERO}  a/..\n", "line 1: 'a/..' is not the plain relative path"),
        (f"{ZERO}  a//b\n", "line 1: 'a//b' is not the plain relative path"),
        (f"{ZERO}  a\0\n", "has a NUL"),
        (f"\\{ZERO}  a\\t\n", "line 1: has an escape in its name that does not exist"),
        (f"\\{ZERO}  a\\\n", "line 1: has an escape in its name that does not exist"),
        (f"{ZERO}  a\n{ZERO}  ./a\n", "line 2: 'a' appears more than once"),
    ],
)
def test_bad_lines_say_what_is_wrong(document: str, expected: str) -> None:
    """Each defect is named with its line."""
    (problem,) = problems(document.encode())

    assert expected in problem


def test_all_problems_are_told_but_not_without_end() -> None:
    """The first twenty are told, the others are counted."""
    found = problems(b"x\n" * 1000)

    assert len(found) == 21
    assert found[0].startswith("line 1:")
    assert found[-1] == "and 980 more"


def test_what_other_tools_write_is_read() -> None:
    """Binary marks, upper case, and the `./` of `find` mean the same."""
    text = f"{'AB' * 32} *a\n{ZERO}  ./b\n".encode()

    assert dict(Checksums.from_bytes(text, source="x")) == {"a": "ab" * 32, "b": ZERO}


@pytest.mark.parametrize(
    ("name", "digest"), [("/a", ZERO), ("", ZERO), ("a/../b", ZERO), ("./a", ZERO), ("a", "x"), ("a", "A" * 64)]
)
def test_no_checksums_are_made_that_could_not_be_read(name: str, digest: str) -> None:
    """A name or digest that the file could not hold is refused where it is made."""
    with pytest.raises(ValueError, match=r"."):
        Checksums({name: digest})


def test_the_file_of_a_backup_is_read(tmp_path: Path) -> None:
    """`read` takes the directory of a backup, and knows those that have no checksums."""
    assert Checksums.read(tmp_path) is None
    (tmp_path / Checksums.FILE_NAME).write_bytes(f"{ZERO}  a\n".encode())

    assert Checksums.read(tmp_path) == Checksums({"a": ZERO})
