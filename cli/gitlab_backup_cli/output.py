"""The standard streams: results as text or as one JSON document, and what happens when nobody takes them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from gitlab_backup.errors import GitLabBackupError

if TYPE_CHECKING:
    from .documents import Document


class OutputError(GitLabBackupError):
    """The result could not be written to standard output. `closed` where its reader has gone away (`… | head`)."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror}")
        self.closed = isinstance(error, BrokenPipeError)


def prepare_streams() -> None:
    """Let names be printed that the encoding of the terminal does not have: escaped, instead of a crash."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the command
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a device, open until the end
            setattr(sys, name, stream)
        stream.reconfigure(errors="backslashreplace")


def close_streams(status: int) -> int:
    """Write what is still in the buffers, and return the exit status. A loss has been reported before."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # What Python writes at its own exit, and the complaint about it, goes nowhere.
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
                os.dup2(nowhere.fileno(), stream.fileno())
    return status


def write(text: str) -> None:
    """Write a result to standard output. Raises `OutputError`."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(error) from error


def write_json(document: Document) -> None:
    """Write one JSON document to standard output. Raises `OutputError`."""
    import json

    # ASCII alone: a file name that is not text still makes a document that every reader takes.
    write(json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def columns(stream: TextIO) -> int | None:
    """Return how many columns a stream shows; None where it is no terminal, whose lines are not to be broken."""
    if not stream.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def complain(text: str, stream: TextIO | None = None) -> None:
    """Write to standard error; if that is not possible either, there is nobody left to tell."""
    stream = stream or sys.stderr
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        pass
