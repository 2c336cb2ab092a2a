"""Which programs are run, and what they get to know of the environment."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from gitlab_backup.errors import ProgramNotFoundError
from gitlab_backup.instance.programs import DEFAULT_PATH, find

from .sample import Installation, install


@pytest.fixture
def source(tmp_path: Path) -> Installation:
    """An installation from source."""
    return install(tmp_path)


def executable(file: Path) -> Path:
    """Make an empty program."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def test_search_path(source: Installation) -> None:
    """Programs are found in PATH as it was when the configuration was read, without its relative entries."""
    directories = [source.root.parent / "one", source.root.parent / "two"]
    for directory in directories:
        executable(directory / "some-program")
    instance = source.load(PATH=f".::bin:{directories[1]}:{directories[0]}:{directories[1]}")
    assert instance.search_path == f"{directories[1]}:{directories[0]}"
    assert instance.program("some-program") == str(directories[1] / "some-program")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757])
def test_a_directory_of_everybody(source: Installation, mode: int) -> None:
    """No program is taken from where anybody could put one, also where nobody could remove those of others."""
    theirs, ours = (executable(source.root.parent / name / "git").parent for name in ("theirs", "ours"))
    theirs.chmod(mode)
    ours.chmod(0o775)
    assert str(ours) == source.load(PATH=f"{theirs}:{ours}").search_path


@pytest.mark.parametrize("path", ["", "relative:."])
def test_no_search_path(source: Installation, path: str) -> None:
    """Without a usable PATH (cron), the system's directories are taken."""
    assert source.load(PATH=path).search_path == DEFAULT_PATH


def test_missing_program(source: Installation, tmp_path: Path) -> None:
    """A program that is not there is named, with every place and with what to install."""
    instance = source.load(PATH=f"{tmp_path}:/nowhere")
    with pytest.raises(ProgramNotFoundError) as caught:
        instance.program("git")
    assert caught.value.message == f"the program git was not found in {tmp_path}, /nowhere"
    assert "Install git" in str(caught.value.hint)
    with pytest.raises(ProgramNotFoundError) as caught:
        instance.program("unheard-of")
    assert "PATH" in str(caught.value.hint)


def test_file_that_is_not_executable(source: Installation, tmp_path: Path) -> None:
    """A file that may not be executed is no program."""
    executable(tmp_path / "git").chmod(0o644)
    with pytest.raises(ProgramNotFoundError):
        source.load(PATH=str(tmp_path)).program("git")


def test_postgresql_of_debian(source: Installation) -> None:
    """PostgreSQL's programs are found where Debian keeps them, those of the newest version first."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda file: int(file.parts[4]))
    if not versions:
        pytest.skip("PostgreSQL's programs are not where Debian keeps them")
    assert source.load(PATH="/nowhere").program("pg_dump") == str(versions[-1])


def test_gitaly_backup(source: Installation, tmp_path: Path) -> None:
    """gitaly-backup is the one that gitlab.yml names; if that is missing, the one in PATH."""
    named, other = tmp_path / "named" / "gitaly-backup", executable(tmp_path / "bin" / "gitaly-backup")
    instance = source.production(f"  backup: {{gitaly_backup_path: {named}}}\n").load(PATH=str(other.parent))
    assert instance.program("gitaly-backup") == str(other)
    executable(named)
    assert instance.program("gitaly-backup") == str(named)
    with pytest.raises(ProgramNotFoundError, match="/nowhere/x, /bin-of-nobody"):
        find("gitaly-backup", "/bin-of-nobody", preferred=Path("/nowhere/x/gitaly-backup"))


def test_environment(source: Installation) -> None:
    """A program gets a clean environment: nothing of the caller's, messages in English, the system user's home."""
    instance = source.load(PATH="/bin", GIT_DIR="/x", PGPASSWORD="x", LD_PRELOAD="x", LANG="de_DE.UTF-8")
    assert instance.environment() == {"PATH": "/bin", "HOME": "/", "LC_ALL": "C", "TZ": "UTC"}
    account = pwd.getpwuid(0)
    instance = source.production(f"  gitlab: {{user: {account.pw_name}}}\n").load(PATH="/bin")
    assert instance.environment()["HOME"] == account.pw_dir
