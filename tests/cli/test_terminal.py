"""The command on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import BackupStore

from .test_backup import nothing_left, replace_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.installation import ThrowawayInstallation

    from .program import Program


def on_terminal(
    program: Program,
    *arguments: str,
    columns: int = 100,
    answer: bytes | signal.Signals | None = None,
    press: Callable[[bytes], bytes | None] | None = None,
) -> tuple[int, str]:
    """Run the command with a terminal as its standard streams; return its exit status, and all that it wrote.

    Where it asks for a yes, `answer` is what is typed, or the signal that it is sent. `press` is asked, of all that was
    written so far, what is typed now.
    """
    controller, terminal = pty.openpty()
    process = program.having(COLUMNS=str(columns)).start(*arguments, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    written = b""
    try:
        while data := os.read(controller, 65536):
            written += data
            if press is not None and (keys := press(written)):
                os.write(controller, keys)
            if answer is not None and written.endswith(b"as it is: "):
                process.send_signal(answer) if isinstance(answer, signal.Signals) else os.write(controller, answer)
                answer = None
    except OSError:
        pass  # the other side is closed: Linux says so with EIO
    os.close(controller)
    return process.wait(), written.decode(errors="replace")


def without_colour(text: str) -> str:
    """Return a text without the escape sequences that colour it or move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("columns", [30, 100])
def test_backup(program: Program, columns: int) -> None:
    """On a terminal, what is worked on moves, and a table of all components is what stays."""
    status, written = on_terminal(
        program.having(TERM="xterm-256color"),
        "backup",
        "all",
        "--only",
        "lfs,uploads,ci_catalog_bundles",
        columns=columns,
    )
    assert status in {0, 3}
    assert "\x1b[?25l" in written
    # The cursor that was hidden is there again.
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    table = without_colour(written[written.rindex("component ") :]).splitlines()
    assert {"uploads", "lfs"} <= {line.split()[0] for line in table if line.strip()}
    assert any(line.startswith("backup ") for line in table)


def test_no_colour(program: Program) -> None:
    """With `NO_COLOR` nothing is coloured."""
    _, written = on_terminal(program.having(TERM="xterm-256color", NO_COLOR="1"), "backup", "all", "--only", "lfs")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", written)


@pytest.mark.parametrize("term", ["dumb", ""])
def test_dumb_terminal(program: Program, term: str) -> None:
    """On a terminal that cannot move its cursor there are plain lines."""
    status, written = on_terminal(program.having(TERM=term), "backup", "all", "--only", "lfs")
    assert status == 0
    assert "\x1b" not in written
    assert "\nlfs: complete; " in written


@pytest.mark.parametrize("columns", [40, 80])
def test_help(bare: Program, columns: int) -> None:
    """No line of a help is wider than the screen, but for examples and names, which stay whole."""
    status, written = on_terminal(bare, "backup", "all", "--help", columns=columns)
    text, _, examples = written.partition("Examples:")
    assert status == 0
    wide = [line for line in text.splitlines() if len(line) > columns and len(line.split()) > 2]
    assert wide == []
    assert max(map(len, examples.splitlines())) <= 80


def test_configuration_on_a_narrow_screen(reader: Program) -> None:
    """What was found is readable: a value, and below it where it is from."""
    status, written = on_terminal(reader, "config", "show", columns=80)
    assert status == 0
    lines = written.splitlines()
    place = lines.index("setting gitlab_version")
    assert [line.split()[0] for line in lines[place : place + 3]] == ["setting", "value", "from"]
    assert "   " not in "".join(line.strip() for line in lines if line.startswith("setting"))


def test_ascii(program: Program) -> None:
    """On a terminal that has ASCII alone, what moves is drawn with it, and names have escapes."""
    ascii_only = program.having(TERM="xterm-256color", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    status, written = on_terminal(ascii_only, "backup", "all", "--only", "lfs")
    assert status == 0
    assert "\x1b[?25l" in written
    assert written.isascii()


def test_control_c(installation: ThrowawayInstallation, program: Program) -> None:
    """Ctrl-C on the terminal ends a backup soon: the cursor is there again, and what is left is said to be nothing."""
    real = installation.cluster.programs / "pg_dump"
    script = f'case "$*" in *--version*) exec "{real}" "$@";; esac\nexec sleep 600'
    command = replace_program(installation, program, "pg_dump", script).having(TERM="xterm-256color")
    pressed: list[float] = []

    def press(written: bytes) -> bytes | None:
        if pressed or b" db " not in written:
            return None
        pressed.append(time.monotonic())
        return b"\x03"

    # Of the session that the terminal controls, everything that runs in it is interrupted.
    status, written = on_terminal(command.below("setsid", "--ctty"), "backup", "all", columns=40, press=press)
    # Two seconds on an idle machine; tests run beside each other.
    assert time.monotonic() - pressed[0] < 10
    assert status == 130
    assert "error: interrupted\r\nhint: No backup was published; what there was of it has been removed." in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")
    assert nothing_left(BackupStore(installation.backup_path))
