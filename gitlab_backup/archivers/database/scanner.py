"""Reads a plain dump of pg_dump while it passes: whether it is whole, and how many rows each table has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .allowed import objection_to, objection_to_line
from .sql import DumpReader, shown

if TYPE_CHECKING:
    from ...streams.sink import Buffer, Sink
    from .sql import Statement

OPENING: Final = b"-- PostgreSQL database dump"
CLOSING: Final = b"-- PostgreSQL database dump complete"
"""The comments around every plain dump (PostgreSQL, `src/bin/pg_dump/pg_backup_archiver.c`, `RestoreArchive`)."""

_OPENING_LINE: Final = 2  # after a line of two hyphens


class DumpFrame:
    """Knows whether a dump begins and ends as pg_dump begins and ends one. A base of `DumpHandler`s."""

    def __init__(self) -> None:
        self.opened = False
        """Whether the dump begins as pg_dump begins one."""
        self.closed = False
        """Whether the closing line was seen, and no statement after it."""

    def line(self, line: bytes, number: int, offset: int) -> None:  # noqa: ARG002
        """Take note of the opening and the closing line."""
        if line == CLOSING:
            self.closed = True
        elif line == OPENING and number <= _OPENING_LINE:
            self.opened = True


class DumpScanner(DumpFrame):
    """Takes a dump in pieces of any size, and knows its tables, their rows, and whether it has come to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, int] = {}
        """How many rows each table has, by its name as pg_dump writes it: with schema, quoted where SQL needs it."""
        self.objection: str | None = None
        """The first thing in it that no restore may run, and where, if any."""
        self._reader = DumpReader(self)
        self._table = ""
        self._first = 0  # the number of lines before the rows of that table

    @property
    def size(self) -> int:
        """Bytes seen."""
        return self._reader.size

    @property
    def lines(self) -> int:
        """Complete lines seen."""
        return self._reader.lines

    @property
    def complete(self) -> bool:
        """Whether the closing line was seen, and no statement or broken line after it."""
        return self.closed and self._reader.between

    @property
    def place(self) -> str:
        """Say how far the dump has been read, for messages."""
        return self._reader.place

    def feed(self, data: Buffer) -> None:
        """Take the next piece."""
        self._reader.feed(data)

    def line(self, line: bytes, number: int, offset: int) -> None:
        """Take note of the frame, and of a command to psql."""
        super().line(line, number, offset)
        self._object(objection_to_line(line), line, number, offset)

    def statement(self, statement: Statement) -> None:
        """Take note of the table whose rows follow."""
        self.closed = False
        self._object(objection_to(statement), statement.text, statement.line, statement.offset)
        if statement.copies_into is not None:
            self._table, self._first = statement.copies_into, self._reader.lines
            self.rows.setdefault(self._table, 0)

    def take(self, data: bytes) -> None:
        """Pass over rows: each is a line in COPY's text format, and the reader counts lines already."""

    def end_of_rows(self) -> None:
        """Count the rows of the table, without the line that ends them."""
        self.rows[self._table] += self._reader.lines - self._first - 1

    def _object(self, what: str | None, text: bytes, number: int, offset: int) -> None:
        if what is not None and self.objection is None:
            self.objection = f"{what} at line {number} (byte {offset}): {shown(text)}"


class ScanningSink:
    """Shows everything to a `DumpScanner`, and hands it on."""

    def __init__(self, sink: Sink, scanner: DumpScanner) -> None:
        self._sink = sink
        self._scanner = scanner

    def write(self, data: Buffer, /) -> None:
        """Scan `data`, then hand it on."""
        self._scanner.feed(data)
        self._sink.write(data)

    def finish(self) -> None:
        """Leave what is below open: whether the dump is whole is decided when the program has ended."""

    def abort(self) -> None:
        """Abort what is below."""
        self._sink.abort()
