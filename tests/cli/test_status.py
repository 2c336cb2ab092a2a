"""How far a run is, asked from another terminal, by a signal, and by systemd."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from gitlab_backup_cli.commands.status import running
from gitlab_backup_cli.display.progress import progress
from gitlab_backup_cli.notify import notify

from gitlab_backup import BackupStore
from gitlab_backup.errors import StoreError
from tests.support.accounts import closed_directory

from .program import TIMEOUT
from .test_backup import replace_program
from .test_signals import make_fifo, read_pid

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def test_of_a_backup(installation: ThrowawayInstallation, program: Program) -> None:
    """While a dump waits, others see what runs and since when: status 6. When it has ended, nothing runs: status 0."""
    fifo = make_fifo(installation.directory / "started")
    answer = make_fifo(installation.directory / "go")
    real = installation.cluster.programs / "pg_dump"
    script = (
        f'case "$*" in *--version*) exec "{real}" "$@";; esac\necho $$ > "{installation.directory}/started"\n'
        f'read word < "{installation.directory}/go"\nexec "{real}" "$@"'
    )
    command = replace_program(installation, program, "pg_dump", script)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(installation.directory / "notify"))
        manager.settimeout(30)
        command = command.having(NOTIFY_SOCKET=str(installation.directory / "notify"))
        process = command.start("backup", "all", "--only", "db", "--quiet")
        read_pid(fifo)
        first = manager.recv(4096)
    assert first.startswith(b"STATUS=backup 1")
    where = ("--backup-path", installation.backup_path)
    asked = program("status", "--json", *where)
    document = asked.document["running"]
    assert 6 == asked.status
    assert ["operation", "pid", "since", "seconds_left", "progress"] == list(document)
    assert ("backup", process.pid) == (document["operation"], document["pid"])
    assert document["progress"]["components"].keys() == {"db"}
    shown = program("status", *where)
    assert (6, "") == (shown.status, shown.err)
    assert f"  pid {process.pid}, since 20" in shown.out
    assert shown.out.startswith(f"backup {document['progress']['backup_id']}")
    assert (6, "") == (program("status", "--quiet", *where).status, program("status", "--quiet", *where).out)
    process.send_signal(signal.SIGUSR1)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(f"backup {document['progress']['backup_id']}")
    os.write(answer, b"go\ngo\ngo\n")
    _, err = process.communicate(timeout=TIMEOUT)
    os.close(fifo)
    os.close(answer)
    assert (0, "") == (process.returncode, err)
    ended = program("status", *where)
    assert (0, f"nothing is running on {installation.backup_path}\n", "") == (ended.status, ended.out, ended.err)


def test_where_nothing_ever_ran(bare: Program, tmp_path: Path) -> None:
    """A backup path that does not exist is as one on which nothing runs, and is not made."""
    result = bare("status", "--json", "--backup-path", tmp_path / "missing")
    assert 0 == result.status
    assert {"backup_path": str(tmp_path / "missing"), "running": None} == result.document
    assert not (tmp_path / "missing").exists()


def test_an_operation_that_tells_nothing(bare: Program, tmp_path: Path) -> None:
    """An operation that has not told how far it is, is shown all the same; and so is one of another version."""
    with BackupStore(tmp_path).lock("restore") as lock:
        shown = bare("status", "--backup-path", tmp_path)
        assert 6 == shown.status
        assert shown.out.startswith(f"restore\n  pid {os.getpid()}, since 20")
        lock.tell({"step": "re\x1b[2J", "components": {"db": 3, "lfs": {"status": "\x1b"}}, "bytes_read": "many"})
        strange = bare("status", "--backup-path", tmp_path)
        assert (6, "") == (strange.status, strange.err)
        assert "\x1b" not in strange.out


def test_what_cannot_be_seen_is_not_nothing() -> None:
    """Where the lock cannot be looked at, that is an error: nobody is told that nothing runs."""
    with closed_directory(0o000) as path, pytest.raises(StoreError, match=r"cannot be seen: .*Permission denied"):
        running(BackupStore(path))


@pytest.mark.parametrize(
    ("left", "end"), [(None, "; 20.0 MiB read (2.0 MiB/s), 10 s"), (65, "; about 1 min 05 s left")]
)
def test_the_line(left: float | None, end: str) -> None:
    """One line has what runs, how much, how fast, how long, and what is left, where that is known."""
    record = {
        "step": "verify",
        "backup_id": "x",
        "elapsed_seconds": 10.0,
        "bytes_read": 20 << 20,
        "bytes_written": 0,
        "components": {"db": {"status": "running"}, "lfs": {"status": "waiting"}},
    }
    line = progress("restore", record, left)  # type: ignore[arg-type]
    assert line.startswith("restore x: verify db; ")
    assert line.endswith(end)


@pytest.mark.parametrize("address", ["", "nonsense", "/does/not/exist", "@" + "x" * 200])
def test_nobody_has_to_listen(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Whatever the service manager's address is, it breaks nothing."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("backup: started")
