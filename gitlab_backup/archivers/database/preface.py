"""What a dump says of itself before its first table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, Final

from attrs import frozen

from ...errors import ComponentError
from .scanner import DumpFrame
from .sql import DumpReader

if TYPE_CHECKING:
    from .sql import Statement

_PIECE: Final = 1 << 16
_SERVER: Final = re.compile(rb"-- Dumped from database version (\d+)")
_EXTENSION: Final = re.compile(rb'CREATE EXTENSION (?:IF NOT EXISTS )?("(?:[^"]|"")+"|\S+)')


@frozen
class Preface:
    """What a restore has to know of a dump before it starts."""

    server_major: int | None
    """The major version of the server that was dumped."""
    extensions: tuple[str, ...]
    """The extensions that the dump creates. pg_dump writes them before all that may need them."""


def read_preface(dump: BinaryIO, name: str) -> Preface:
    """Read a dump up to its first table. Raises `ComponentError` where it is none, and `StreamError`."""
    notes = _Notes()
    reader = DumpReader(notes)
    while not notes.ended and (piece := dump.read(_PIECE)):
        reader.feed(piece)
        if not notes.opened:
            break
    if not notes.opened:
        raise ComponentError(f"{name} is not a plain dump of pg_dump", hint="Look at it: `zless` shows its text.")
    return Preface(notes.server_major, tuple(notes.extensions))


class _Notes(DumpFrame):
    """Takes note of what counts, as a `DumpHandler`."""

    def __init__(self) -> None:
        super().__init__()
        self.server_major: int | None = None
        self.extensions: list[str] = []
        self.ended = False

    def line(self, line: bytes, number: int, offset: int) -> None:
        super().line(line, number, offset)
        if match := _SERVER.match(line):
            self.server_major = int(match[1])

    def statement(self, statement: Statement) -> None:
        if match := _EXTENSION.match(statement.text):
            self.extensions.append(match[1].decode().strip('"').replace('""', '"'))
        elif statement.text.startswith((b"CREATE TABLE ", b"COPY ")):
            self.ended = True

    def take(self, data: bytes) -> None: ...

    def end_of_rows(self) -> None: ...
