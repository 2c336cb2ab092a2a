"""The command on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .program import Program


def on_terminal(
    program: Program, *arguments: str, columns: int = 100, answer: bytes | signal.Signals | None = None
) -> tuple[int, str]:
    """Run the command with a terminal as its standard streams; return its exit status, and all that it wrote.

    Where it asks for a yes, `answer` is what is typed, or the signal that it is sent.
    """
    controller, terminal = pty.openpty()
    process = program.having(COLUMNS=str(columns)).start(*arguments, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    written = b""
    try:
        while data := os.read(controller, 65536):
            written += data
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
