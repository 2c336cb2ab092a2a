"""Standard output that cannot take what is written to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .program import COMMAND, TIMEOUT, Program


def test_reader_that_has_gone_away(bare: Program, tmp_path: Path) -> None:
    """Where nobody reads the result any more (`… | head`), the command ends without a word, and not with success."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stream:
        process = bare.start("list", "--json", "--backup-path", tmp_path, stdout=stream)
    _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (1, "")


def test_full_disk(bare: Program, tmp_path: Path) -> None:
    """A result that could not be written is an error."""
    with Path("/dev/full").open("wb") as stream:
        process = bare.start("list", "--json", "--backup-path", tmp_path, stdout=stream)
    _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (1, "error: cannot write to standard output: No space left on device\n")


def test_closed_streams(bare: Program, tmp_path: Path) -> None:
    """The command also works where its standard streams are closed."""
    script = 'exec "$@" <&- >&- 2>&-'
    ended = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *COMMAND, "list", "--backup-path", tmp_path],
        env=dict(bare.environment),
        check=False,
    )
    assert ended.returncode == 0
