"""The archiver of directories: a component's directory into the backup, and the check of what is there."""

from __future__ import annotations

import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

import pytest

from gitlab_backup.archivers.base import JSON, BackupJob, VerifyJob
from gitlab_backup.archivers.files import FilesArchiver
from gitlab_backup.components import COMPONENTS, Component
from gitlab_backup.errors import CancelledError, ComponentError
from gitlab_backup.instance.model import Directory, Instance
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.codec import codec_for, codec_named
from tests.support.accounts import closed_directory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UPLOADS = next(component for component in COMPONENTS if component.id == "uploads")


class _OneDirectory(Instance):
    """An installation of which only the directory of uploads matters."""

    def directory(self, component: Component) -> Directory:
        return Directory(path=self.root, left_out=None if self.root.exists() else f"{component.id} is missing")


def _instance(directory: Path) -> Instance:
    return _OneDirectory(
        gitlab_version="17.0.0",
        installation="source",
        root=directory,
        rails_env="test",
        backup_path=directory,
        system_user="git",
        databases=(),
        storages=(),
        settings=(),
        search_path="",
    )


def _back_up(
    directory: Path, backup: Path, *, codec: str = "none", cancel: Cancellation | None = None
) -> tuple[dict[str, JSON], list[str]]:
    warnings: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        job = BackupJob(
            instance=_instance(directory),
            component=UPLOADS,
            root=backup,
            backup_id="1",
            codec=codec_named(codec),
            level=None,
            jobs=1,
            keep_going=False,
            pool=pool,
            cancel=cancel or Cancellation(),
            progress=lambda _read, _written: None,
            written=lambda _name, _sha256: None,
            warn=warnings.append,
        )
        return FilesArchiver().back_up(job), warnings


def _verify(backup: Path, details: Mapping[str, JSON] | None = None) -> list[tuple[str, str]]:
    damages: list[tuple[str, str]] = []

    def open_file(name: str) -> BinaryIO:
        return (backup / name).open("rb")

    opened = ExitStack()

    def open_stream(name: str) -> BinaryIO:
        return codec_for(name).reader(opened.enter_context(open_file(name)))

    job = VerifyJob(
        component=UPLOADS,
        root=backup,
        backup_id="1",
        details=details,
        jobs=1,
        cancel=Cancellation(),
        open_file=open_file,
        open_stream=open_stream,
        damaged=lambda name, problem: damages.append((name, problem)),
        names=lambda _: [],
    )
    with opened:
        FilesArchiver().verify(job)
    return damages


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with something to archive, to leave out, and to link."""
    tree = tmp_path / "uploads"
    for name in ("a/one", "tmp/cache", "a/tmp/kept", "lost+found/x", "a/lost+found/y"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    return tree


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """An empty directory for the backup."""
    backup = tmp_path / "backup"
    backup.mkdir()
    return backup


def _members(archive: Path) -> list[str]:
    done = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_archives_as_the_reference_does(tree: Path, backup: Path) -> None:
    """`tmp` at the top and every `lost+found` are left out: the members are those of the reference's command."""
    details, warnings = _back_up(tree, backup)
    command = ["tar", "--exclude=lost+found", "--exclude=./tmp", f"--directory={tree}", "--create", "--file=-", "."]
    reference = backup.parent / "reference.tar"
    reference.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    ours = _members(backup / "uploads.tar")
    assert sorted(_members(reference)) == sorted(ours)
    assert (len(ours), []) == (details["members"], warnings)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_what_it_made_is_whole(tree: Path, backup: Path, codec: str) -> None:
    """An archive of any codec passes its own verification."""
    details, _ = _back_up(tree, backup, codec=codec)
    assert [] == _verify(backup, details)


def test_the_directory_may_be_a_link(tree: Path, backup: Path) -> None:
    """A configured directory that is a symbolic link is followed; links below it are not."""
    (tree / "inner").symlink_to("/etc")
    (tree.parent / "link").symlink_to(tree)
    _back_up(tree.parent / "link", backup)
    assert "./a/one" in _members(backup / "uploads.tar")
    assert "./inner" in _members(backup / "uploads.tar")


def test_a_missing_directory_is_an_error(tree: Path, backup: Path) -> None:
    """A directory that is gone by now fails the component with its path and a hint, and leaves no file behind."""
    with pytest.raises(ComponentError, match="nowhere") as caught:
        _back_up(tree / "nowhere", backup)
    assert caught.value.hint
    assert [] == list(backup.iterdir())
    assert FilesArchiver().left_out(UPLOADS, _instance(tree / "nowhere")) == "uploads is missing"


def test_a_directory_that_may_not_be_read_is_an_error(backup: Path) -> None:
    """It fails the component, with its path, the reason and a hint: an empty archive would look like a backup of it."""
    with closed_directory(0o000) as directory, pytest.raises(ComponentError, match="closed cannot be read") as caught:
        _back_up(directory, backup)
    assert "Permission denied" in caught.value.message
    assert "--skip uploads" in str(caught.value.hint)
    assert [] == list(backup.iterdir())


def test_a_cancelled_archive_leaves_nothing(tree: Path, backup: Path) -> None:
    """After a cancellation there is no file of the component."""
    cancel = Cancellation()
    cancel.request()
    with pytest.raises(CancelledError):
        _back_up(tree, backup, cancel=cancel)
    assert [] == list(backup.iterdir())


def test_what_was_made_is_restorable_whatever_was_there(tree: Path, backup: Path) -> None:
    """What no restore takes is left out or made harmless, with a warning: our own backup never verifies as damaged."""
    (tree / "a/one").chmod(0o6755)
    (tree / "a").chmod(0o2770)
    os.mkfifo(tree / "pipe")
    expected = ["./a/one would run as its owner or its group, and is kept without that (setuid, setgid)"]
    if os.geteuid() == 0:
        os.mknod(tree / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        expected.insert(0, "./null is a device node and was left out: no restore makes one")
    details, warnings = _back_up(tree, backup)
    assert expected == warnings
    assert ["./a/one"] == details["stripped"]
    assert [] == _verify(backup, details)


def test_warnings_are_bounded(tree: Path, backup: Path) -> None:
    """Each of the first twenty names is told, then how many more there are; the details know all of them."""
    import socket

    for number in range(25):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(tree / f"s{number:02d}"))
    details, warnings = _back_up(tree, backup)
    assert 21 == len(warnings)
    assert "and 5 more sockets were left out" == warnings[-1]
    assert (25, "./s00") == (details["sockets_count"], details["sockets"][0])  # type: ignore[index]


@pytest.mark.parametrize("at", [100, 1124, -1500])
def test_damage_is_reported(tree: Path, backup: Path, at: int) -> None:
    """A changed byte in a header, and a missing end, are damage of that file, with the place."""
    details, _ = _back_up(tree, backup)
    archive = backup / "uploads.tar"
    data = bytearray(archive.read_bytes())
    if at < 0:
        del data[3000:]
    else:
        data[at] ^= 0x01
    archive.write_bytes(data)
    ((name, problem),) = _verify(backup, details)
    assert "uploads.tar" == name
    assert "at byte" in problem


def test_hostile_and_missing_members_are_damage(tree: Path, backup: Path) -> None:
    """Members that lead out of the directory, and a number of them that is not the one recorded, are reported."""
    _back_up(tree, backup)
    command = ["tar", "-cPf", str(backup / "uploads.tar"), "/etc/hostname", "/etc/passwd"]
    subprocess.run(command, check=True)
    problems = [problem for _, problem in _verify(backup, {"members": 7})]
    assert 3 == len(problems)
    assert "'/etc/hostname' at byte 0 must not be extracted: its name is absolute" in problems[0]
    assert "has 2 members, not 7" in problems[2]


def test_a_missing_archive_is_damage(backup: Path) -> None:
    """No archive at all is damage."""
    assert [("uploads.tar", "is missing")] == _verify(backup)
