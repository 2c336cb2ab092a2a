"""Hooks: what they are told, what their failure means, and which are not run."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from gitlab_backup_cli.hooks import Hooks, Moment

from gitlab_backup import BackupStore
from gitlab_backup.errors import GitLabBackupError, ProgramError, RefusedError, UsageError
from gitlab_backup.streams.cancel import Cancellation

from .program import TIMEOUT
from .test_backup import replace_program
from .test_signals import make_fifo, read_pid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def write_hook(directory: Path, name: str, *, then: str = "exit 0") -> None:
    """Write a hook that keeps what it is told, and then does something else."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    hook = directory / name
    hook.write_text(f"#!/bin/sh\nenv > {directory}/{name}.env\ncat > {directory}/{name}.json\n{then}\n")
    hook.chmod(0o755)


def told(directory: Path, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the document and the variables that a hook got."""
    document = json.loads((directory / f"{name}.json").read_text())
    lines = (directory / f"{name}.env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if line.startswith("GITLAB_BACKUP_"))
    return document, variables


def test_of_a_backup(program: Program, installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """A backup is announced and reported, with its document and in the environment; nothing has failed."""
    hooks = tmp_path / "hooks"
    for moment in Moment:
        write_hook(hooks, f"backup-{moment}")
    result = program("backup", "all", "--only", "lfs", "--json", "--hook-directory", hooks)
    assert 0 == result.status
    document, variables = told(hooks, "backup-before")
    assert ("backup", "before", "started", None) == tuple(
        document[key] for key in ("operation", "hook", "status", "backup_id")
    )
    assert {
        "GITLAB_BACKUP_OPERATION": "backup",
        "GITLAB_BACKUP_HOOK": "before",
        "GITLAB_BACKUP_STATUS": "started",
    } == variables
    document, variables = told(hooks, "backup-after")
    assert {"operation": "backup", "hook": "after", "exit_status": 0, **result.document} == document
    (backup_id,) = BackupStore(installation.backup_path).ids()
    assert {
        "GITLAB_BACKUP_OPERATION": "backup",
        "GITLAB_BACKUP_HOOK": "after",
        "GITLAB_BACKUP_EXIT_STATUS": "0",
        "GITLAB_BACKUP_STATUS": "complete",
        "GITLAB_BACKUP_ID": backup_id,
        "GITLAB_BACKUP_DIRECTORY": str(installation.backup_path / backup_id),
    } == variables
    assert not (hooks / "backup-failed.json").exists()


def test_one_that_says_no(program: Program, installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """Where the hook before fails, nothing is done: status 8, with what it says; and that has failed."""
    hooks = tmp_path / "hooks"
    write_hook(hooks, "backup-before", then="echo not mounted >&2\nexit 3")
    write_hook(hooks, "backup-failed")
    log = tmp_path / "log"
    result = program("backup", "all", "--hook-directory", hooks, "--log-file", log)
    assert 8 == result.status
    assert "error: the hook says no: backup-before failed with status 3: not mounted" == result.err.splitlines()[0]
    assert not installation.backup_path.exists()
    document, variables = told(hooks, "backup-failed")
    assert (8, "failed", 8) == (document["exit_status"], document["status"], document["error"]["exit_status"])
    assert "8" == variables["GITLAB_BACKUP_EXIT_STATUS"]
    assert "error hook backup-before: backup-before failed with status 3" in log.read_text()
    assert "info hook backup-failed: done" in log.read_text()


def test_one_that_fails_afterwards(program: Program, installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """A backup counts, whatever the hook after it says: a warning, and status 3. So it is when it takes too long."""
    hooks = tmp_path / "hooks"
    write_hook(hooks, "backup-after", then="exec sleep 600")
    result = program("backup", "all", "--only", "lfs", "--quiet", "--hook-directory", hooks, "--hook-timeout", "1")
    assert (3, "") == (result.status, result.out)
    assert "warning: a hook has failed: backup-after did not end within 1 seconds\n" == result.err
    assert 1 == len(BackupStore(installation.backup_path).ids())


def test_an_interruption(program: Program, installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """A backup that is interrupted has failed, and its hook is told so; the next interruption is for the hook."""
    hooks = tmp_path / "hooks"
    dumping, told_of = (make_fifo(installation.directory / name) for name in ("dumping", "told"))
    wait = f'echo $$ > "{installation.directory}/%s"\nexec sleep 600'
    write_hook(hooks, "backup-failed", then=wait % "told")
    real = installation.cluster.programs / "pg_dump"
    script = f'case "$*" in *--version*) exec "{real}" "$@";; esac\n{wait % "dumping"}'
    command = replace_program(installation, program, "pg_dump", script)
    process = command.start("backup", "all", "--only", "db", "--hook-directory", hooks)
    for fifo in (dumping, told_of):
        read_pid(fifo)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT)
    for fifo in (dumping, told_of):
        os.close(fifo)
    assert 130 == process.returncode
    document, variables = told(hooks, "backup-failed")
    assert (130, "failed") == (document["error"]["exit_status"], document["status"])
    assert "130" == variables["GITLAB_BACKUP_EXIT_STATUS"]
    assert "warning: a hook has failed: interrupted\nerror: interrupted\n" in err


def test_a_restore_is_announced_once_it_is_agreed(program: Program, tmp_path: Path) -> None:
    """The hook before a restore comes after the checks; where it says no, nothing is changed. A dry run has none."""
    hooks = tmp_path / "hooks"
    backup = program("backup", "all", "--only", "lfs", "--json").document
    write_hook(hooks, "restore-before", then="exit 1")
    restore = ("restore", "all", "latest", "--only", "lfs", "--hook-directory", hooks)
    assert 0 == program(*restore, "--dry-run").status
    assert not (hooks / "restore-before.json").exists()
    result = program(*restore, "--yes", "--json")
    assert (8, "failed") == (result.status, result.document["status"])
    assert result.document["plan"]
    document, variables = told(hooks, "restore-before")
    assert backup["backup_id"] == document["backup_id"] == variables["GITLAB_BACKUP_ID"]


def test_of_a_prune(program: Program, tmp_path: Path) -> None:
    """A prune that cannot begin has failed, and its hook is told why."""
    hooks = tmp_path / "hooks"
    write_hook(hooks, "prune-failed")
    result = program("prune", "--keep-last", "-1", "--hook-directory", hooks)
    assert 2 == result.status
    document, variables = told(hooks, "prune-failed")
    assert (2, "prune") == (document["error"]["exit_status"], variables["GITLAB_BACKUP_OPERATION"])


def test_only_those_of_this_operation_and_moment(tmp_path: Path) -> None:
    """What is not there is not run, and what is called otherwise is nobody's hook."""
    write_hook(tmp_path / "hooks", "backup-after")
    hooks = Hooks(tmp_path / "hooks", "restore", 10)
    hooks.check()
    assert [] == [moment for moment in Moment if hooks.has(moment)]


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o644])
def test_rights_of_a_hook(tmp_path: Path, mode: int) -> None:
    """A hook that others could have written, or that cannot be run, refuses the run before anything is done."""
    write_hook(tmp_path / "hooks", "backup-failed")
    (tmp_path / "hooks" / "backup-failed").chmod(mode)
    hooks = Hooks(tmp_path / "hooks", "backup", 10)
    for attempt in (hooks.check, lambda: hooks.run(Moment.FAILED, {}, Cancellation())):
        with pytest.raises(RefusedError, match=r"the hook .*/backup-failed is not") as caught:
            attempt()
        assert caught.value.hint
    assert not (tmp_path / "hooks" / "backup-failed.json").exists()


def test_rights_of_its_directory(tmp_path: Path) -> None:
    """Who can write to a directory on the way could replace the hook; a link to it changes nothing about that."""
    write_hook(tmp_path / "hooks", "backup-after")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "backup-after").symlink_to(tmp_path / "hooks" / "backup-after")
    Hooks(tmp_path / "links", "backup", 10).check()
    (tmp_path / "hooks").chmod(0o777)
    with pytest.raises(RefusedError, match=r"others can write to .*/hooks$"):
        Hooks(tmp_path / "links", "backup", 10).check()
    # As /tmp: there nobody can replace what belongs to others.
    (tmp_path / "hooks").chmod(0o1777)
    Hooks(tmp_path / "links", "backup", 10).check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_of_a_hook(tmp_path: Path) -> None:
    """A hook of another user is not run, however private it is."""
    write_hook(tmp_path / "hooks", "backup-after")
    os.chown(tmp_path / "hooks" / "backup-after", 12345, 12345)
    with pytest.raises(RefusedError, match=r"belongs to another user \(12345\)"):
        Hooks(tmp_path / "hooks", "backup", 10).check()


@pytest.mark.parametrize(
    ("then", "error"), [("exit 1", ProgramError), ("kill -9 $$", ProgramError), ("exit 0", GitLabBackupError)]
)
def test_errors_of_a_hook(tmp_path: Path, then: str, error: type[GitLabBackupError]) -> None:
    """A status, a signal, and a request to stop are errors that tell."""
    write_hook(tmp_path / "hooks", "backup-after", then=then)
    cancel = Cancellation()
    if then == "exit 0":
        cancel.request()
    with pytest.raises(error):
        Hooks(tmp_path / "hooks", "backup", 10).run(Moment.AFTER, {}, cancel)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped directory does not mean that there are no hooks."""
    with pytest.raises(UsageError, match="is not a directory"):
        Hooks(tmp_path / "missing", "backup", 10).check()
