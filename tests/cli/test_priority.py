"""`--nice`, `--ionice`, `--rate-limit` and `--max-silence`: what programs inherit, and what is said of a wrong one."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from gitlab_backup_cli.priority import Priority
from gitlab_backup_cli.session import Session
from gitlab_backup_cli.signals import Signals

from gitlab_backup.streams.cancel import MAX_SILENCE

from .test_backup import replace_program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def test_programs_inherit_it(program: Program, installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """What the command starts has the priorities that were asked for, and the backup is what it is without them."""
    real = installation.cluster.programs / "pg_dump"
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)
    script = f'echo "$(nice) $(ionice -p $$)" >> {told}\nexec "{real}" "$@"'
    tmp_path.chmod(0o755)
    tmp_path.parent.chmod(0o755)
    replaced = replace_program(installation, program, "pg_dump", script)
    options = ("--nice", "11", "--ionice", "best-effort:6", "--rate-limit", "1G", "--json")
    result = replaced("backup", "all", "--only", "db", *options)
    assert (0, "complete") == (result.status, result.document["status"])
    assert {"11 best-effort: prio 6"} == set(told.read_text().splitlines())


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("--nice", "20"), "must be at most 19", "--help"),
        (("--ionice", "best-effort:8"), "--ionice cannot be 'best-effort:8'", "idle or best-effort"),
        (("--rate-limit", "100"), "cannot work at 100 bytes a second", "50M"),
        (("--max-silence", "soon"), "'soon' is not a span of time", "36h"),
    ],
)
def test_wrong_ones(reader: Program, tmp_path: Path, options: tuple[str, ...], message: str, hint: str) -> None:
    """What does not exist has status 2, and the hint says what does; nothing is begun."""
    store = tmp_path / "backups"
    result = reader("backup", "all", "--backup-path", store, *options)
    assert 2 == result.status
    assert message in result.err.splitlines()[0]
    assert hint in result.err.splitlines()[1]
    assert not store.exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, MAX_SILENCE), ("36h", 129_600), ("none", None), ("0", None), ("0h", None)]
)
def test_how_long_programs_may_be_silent(text: str | None, seconds: float | None) -> None:
    """What was given is what an operation allows to the programs that it runs."""
    session = Session(Signals())
    Priority(nice=None, ionice=None, rate_limit=None, max_silence=text).take(session)
    with session.cancelling() as cancel:
        assert seconds == cancel.max_silence


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="takes a right away, which root may")
def test_a_priority_that_is_not_allowed(reader: Program, tmp_path: Path) -> None:
    """Who may not become less nice is told how nice the command is already."""
    store = tmp_path / "backups"
    poor = reader.below("nice", "-n", "10", "setpriv", "--bounding-set=-sys_nice")
    result = poor("verify", "latest", "--backup-path", store, "--nice", "5")
    assert 2 == result.status
    assert "nice is 10, and only root may lower it" in result.err
    assert "\nhint: Give a number from 10 on" in result.err
