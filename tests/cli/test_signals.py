"""The command is interrupted or terminated: it ends soon, says so, and leaves nothing."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import BackupStore

from .program import COMMAND, TIMEOUT
from .test_backup import nothing_left, replace_program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def make_fifo(path: Path) -> int:
    """Make a named pipe that everybody may write to, and open it."""
    os.mkfifo(path)
    path.chmod(0o666)
    # Both ends, so that opening does not wait for the other side.
    return os.open(path, os.O_RDWR)


def read_pid(fifo: int) -> int:
    """Wait until somebody writes a process id into a pipe."""
    ready, _, _ = select.select([fifo], [], [], 30)
    assert ready
    return int(os.read(fifo, 100).split()[0])


def alive(pid: int) -> bool:
    """Return whether there is a process of that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 143, "terminated"),
    ],
)
def test_while_a_component_is_backed_up(
    installation: ThrowawayInstallation, program: Program, number: signal.Signals, status: int, word: str
) -> None:
    """A signal in the middle of a dump ends the dump too; nothing is published and nothing is left, as is said."""
    fifo = make_fifo(installation.directory / "started")
    real = installation.cluster.programs / "pg_dump"
    script = (
        f'case "$*" in *--version*) exec "{real}" "$@";; esac\n'
        f'echo $$ > "{installation.directory}/started"\nexec sleep 600'
    )
    command = replace_program(installation, program, "pg_dump", script)
    process = command.start("backup", "all", "--json")
    child = read_pid(fifo)
    os.close(fifo)
    began = time.monotonic()
    process.send_signal(number)
    # Whoever is impatient changes nothing.
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    # Two seconds on an idle machine; tests run beside each other.
    assert time.monotonic() - began < 10
    assert status == process.returncode
    assert err.endswith(f"error: {word}\nhint: No backup was published; what there was of it has been removed.\n")
    assert '"status": "failed"' in out
    assert not alive(child)
    assert nothing_left(BackupStore(installation.backup_path))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_before_anything_has_begun(
    installation: ThrowawayInstallation, program: Program, number: signal.Signals, status: int
) -> None:
    """A signal while the configuration is read ends the command at once, without a traceback."""
    fifo = make_fifo(installation.directory / "started")
    script = installation.directory / "config_command"
    script.write_text(f'#!/bin/sh\necho $$ > "{installation.directory}/started"\nexec sleep 600\n')
    script.chmod(0o755)
    text = installation.database_config.read_text().replace(
        "production:\n", f"production:\n  config_command: {script}\n"
    )
    installation.database_config.write_text(text)
    process = program.start("config", "show")
    child = read_pid(fifo)
    os.close(fifo)
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    assert (status, "") == (process.returncode, out)
    assert len(err.splitlines()) == 1
    assert not alive(child)


def test_ignored_signals_stay_ignored(installation: ThrowawayInstallation, program: Program) -> None:
    """Under `nohup`, the end of the terminal does not end the backup."""
    fifo = make_fifo(installation.directory / "started")
    answer = make_fifo(installation.directory / "go")
    real = installation.cluster.programs / "pg_dump"
    script = (
        f'case "$*" in *--version*) exec "{real}" "$@";; esac\necho $$ > "{installation.directory}/started"\n'
        f'read word < "{installation.directory}/go"\nexec "{real}" "$@"'
    )
    ignoring = evolve(program, command=("env", "--ignore-signal=HUP", *COMMAND[2:]))
    command = replace_program(installation, ignoring, "pg_dump", script)
    process = command.start("backup", "all", "--only", "db", "--quiet")
    read_pid(fifo)
    process.send_signal(signal.SIGHUP)
    os.write(answer, b"go\ngo\ngo\n")
    _, err = process.communicate(timeout=TIMEOUT)
    os.close(fifo)
    os.close(answer)
    assert (process.returncode, err) == (0, "")
