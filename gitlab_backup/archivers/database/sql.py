"""Reads a plain dump of pg_dump as psql does: statement by statement, and the rows between them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from attrs import frozen

from ...errors import CorruptStreamError

if TYPE_CHECKING:
    from ...streams.sink import Buffer

# PostgreSQL manual, COPY, "Text Format": a line of backslash and period ends the rows. A value that looks
# like it has its backslash doubled, and a newline within a value is written as backslash and n.
_LAST_LINE: Final = b"\\.\n"
_NEWLINE: Final = 0x0A
# What matters in plain SQL text: PostgreSQL manual, 4.1 "Lexical Structure". Names may hold any byte above 127.
_TOKEN: Final = re.compile(
    rb"""(?P<dollar> (?<![\w$\x80-\xff]) \$ (?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)? \$ )
       | (?P<escape> (?<![\w$\x80-\xff]) [eE]' )
       | (?P<word> (?<![\w$\x80-\xff]) (?:BEGIN|CASE|END) (?![\w$\x80-\xff]) )
       | ['";()\\] | -- | /\* """,
    re.VERBOSE | re.IGNORECASE,
)
# Of a string with escapes: two quotes and an escaped byte belong to it, a lone quote ends it.
_ESCAPED: Final = re.compile(rb"''|\\.|'")
_END_OF_COMMENT: Final = b"*/"
_COMMENT: Final = re.compile(rb"/\*|\*/")
NAME: Final = rb'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][\w$\x80-\xff]*)'
"""A name, quoted or not, as a pattern."""
# Exactly as pg_dump writes it. "FROM stdin" can also end a COPY from a program: … WHERE a IS DISTINCT FROM stdin.
_COPY: Final = re.compile(
    rb"COPY (" + NAME + rb"(?:\." + NAME + rb")?) +(?:\(" + NAME + rb"(?:, " + NAME + rb")*\) +)?FROM stdin\Z"
)
# The body of an SQL-standard function holds semicolons: psql counts BEGIN, CASE and END only in these
# statements (PostgreSQL, `src/fe_utils/psqlscan.l`, begin_depth).
_ROUTINE: Final = re.compile(rb"CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\b", re.IGNORECASE)
_HEAD: Final = 1 << 12
"""Bytes at the start of a statement that say what it is."""
_LONGEST: Final = 64 << 20
"""Bytes of a statement, which has to be held in memory: far above the definition of any function or view."""
_SHOWN: Final = 200
# Strings may be anything: a password, a row of INSERT.
_STRING: Final = re.compile(r"'(?:[^']|'')*(?:'|\Z)")


@frozen
class Statement:
    """One SQL statement of a dump, without its semicolon and the comments before it."""

    text: bytes
    line: int
    """The line of the dump that it begins in, from 1 on."""
    offset: int
    """The byte of the dump that this line begins at."""
    copies_into: str | None = None
    """The table whose rows follow, if any, as pg_dump writes it: with schema, quoted where SQL needs it."""

    @property
    def first_line(self) -> str:
        """How messages show it."""
        return self.text.split(b"\n", 1)[0].decode("utf-8", "backslashreplace")


class DumpHandler(Protocol):
    """Takes what a `DumpReader` finds, in order."""

    def statement(self, statement: Statement) -> None:
        """Take a statement. Where it copies into a table, `take` gets its rows, then `end_of_rows`."""

    def take(self, data: bytes) -> None:
        """Take some of the bytes of the rows, as COPY takes them: cut anywhere."""

    def end_of_rows(self) -> None:
        """Take note that the rows are complete."""

    def line(self, line: bytes, number: int, offset: int) -> None:
        """Take a line between statements: a comment, or a command to psql (it begins with a backslash).

        A command to psql in the middle of a statement is one, too: psql looks for them anywhere outside of strings.
        """


class DumpReader:
    """Takes a dump in pieces of any size, and tells its handler what it finds.

    Nothing that the data, or the text of a function, says can mislead it.
    """

    def __init__(self, handler: DumpHandler) -> None:
        self.size = 0
        """Bytes seen."""
        self.lines = 0
        """Complete lines seen."""
        self.table: str | None = None
        """The table whose rows are being read."""
        self.position = 0
        """The byte after the line that the handler is just being told of: that of a statement, or the last of rows."""
        self._handler = handler
        self._held = b""  # the start of a line among rows that may be their end
        self._at_line_start = True  # whether the next byte of the rows begins a line
        self._line: list[bytes] = []  # the pieces of a line of SQL that is not complete
        self._line_offset = 0
        self._text = bytearray()  # the lines so far of a statement that is not complete
        self._length = 0  # bytes of those two
        self._begun: tuple[int, int] | None = None  # line and offset of that statement
        self._inside: bytes | None = None  # what ends the string, name or comment that the text is in
        self._escapes = False  # whether a backslash means something in that string
        self._comments = 0  # depth of block comments
        self._parentheses = 0
        self._bodies = 0  # depth of BEGIN and CASE in the body of a routine
        self._plain_escapes = False  # standard_conforming_strings = off

    @property
    def between(self) -> bool:
        """Whether nothing has begun that has not ended."""
        return self.table is None and self._begun is None and self._inside is None and not self._line

    @property
    def place(self) -> str:
        """Say how far the dump has been read, for messages."""
        within = f", among the rows of {self.table}" if self.table is not None else ""
        return f"byte {self.size}, line {self.lines + 1}{within}"

    def feed(self, data: Buffer) -> None:
        """Take the next piece. Raises `CorruptStreamError` for a statement that is longer than can be."""
        chunk = data if isinstance(data, bytes) else bytes(data)
        offset = self.size - len(self._held)
        self.size += len(chunk)
        if self._held:
            chunk, self._held = self._held + chunk, b""
        position = 0
        while position < len(chunk):
            if self.table is None:
                position = self._read_line(chunk, position, offset)
            else:
                position = self._read_rows(chunk, position, offset)

    def _read_rows(self, chunk: bytes, position: int, offset: int) -> int:
        if self._at_line_start and chunk.startswith(_LAST_LINE, position):
            return self._end_rows(position + len(_LAST_LINE), offset)
        # Nearly always there is none. Python looks for that three times as fast from the end.
        if chunk.rfind(b"\n" + _LAST_LINE, position) >= 0:
            end = chunk.find(b"\n" + _LAST_LINE, position)
            self._hand_on(chunk[position : end + 1])
            return self._end_rows(end + 1 + len(_LAST_LINE), offset)
        # The start of what may be the last line waits for the next piece.
        end = len(chunk)
        for start in (_LAST_LINE[:2], _LAST_LINE[:1]):
            before = end - len(start) - 1
            if chunk.endswith(start) and (chunk[before] == _NEWLINE if before >= position else self._at_line_start):
                end -= len(start)
                break
        if end > position:
            self._hand_on(chunk[position:end])
            self._at_line_start = chunk[end - 1] == _NEWLINE
        self._held = chunk[end:]
        return len(chunk)

    def _hand_on(self, rows: bytes) -> None:
        self.lines += rows.count(b"\n")
        self._handler.take(rows)

    def _end_rows(self, position: int, offset: int) -> int:
        self.lines += 1
        self.position = offset + position
        self.table = None
        self._handler.end_of_rows()
        return position

    def _read_line(self, chunk: bytes, position: int, offset: int) -> int:
        end = chunk.find(b"\n", position)
        if not self._line:
            self._line_offset = offset + position
        if end < 0:
            self._line.append(chunk[position:])
            self._hold(len(chunk) - position)
            return len(chunk)
        line = chunk[position:end]
        if self._line:
            line = b"".join((*self._line, line))
            self._line.clear()
            self._length -= len(line) - (end - position)
        self.lines += 1
        self.position = offset + end + 1
        if self._begun is None and self._inside is None and (not line or line.startswith((b"--", b"\\"))):
            self._handler.line(line, self.lines, self._line_offset)
        else:
            self._lex(line)
        return end + 1

    def _lex(self, line: bytes) -> None:
        position = start = 0
        while position < len(line):
            if self._inside is not None:
                position = self._skip(line, position)
            elif self._begun is None:
                start = position = self._skip_to_statement(line, position)
            else:
                token = _TOKEN.search(line, position)
                if token is None or token.group() == b"--":
                    break
                position = token.end()
                if token.group() == b";" and self._parentheses == 0 and self._bodies == 0:
                    self._end_statement(line[start : token.start()], last=not line[position:].strip())
                elif token.group() == b"\\":
                    self._handler.line(line[token.start() :], self.lines, self._line_offset)
                else:
                    self._note(token, line[start : token.start()])
        if self._begun is not None:
            self._text += line[start:] + b"\n"
            self._hold(len(line) - start + 1)
        else:
            self._length = 0

    def _hold(self, size: int) -> None:
        self._length += size
        if self._length > _LONGEST:
            line, offset = self._begun or (self.lines + 1, self._line_offset)
            raise CorruptStreamError(f"what begins at line {line} (byte {offset}) is too long to be a statement")

    def _skip_to_statement(self, line: bytes, position: int) -> int:
        """Pass over space and comments, which belong to no statement, and begin the next one."""
        position = len(line) - len(line[position:].lstrip())
        if position == len(line) or line.startswith(b"--", position):
            return len(line)
        if line.startswith(b"/*", position):
            self._inside, self._comments = _END_OF_COMMENT, 1
            return position + 2
        if line.startswith(b";", position):
            return position + 1
        self._begun = (self.lines, self._line_offset)
        return position

    def _note(self, token: re.Match[bytes], before: bytes) -> None:
        """Take account of a token inside a statement."""
        mark = token.group()
        if mark == b"(":
            self._parentheses += 1
        elif mark == b")":
            self._parentheses = max(0, self._parentheses - 1)
        elif mark == b"/*":
            self._inside, self._comments = _END_OF_COMMENT, 1
        elif token["word"]:
            self._note_word(mark.upper(), before)
        elif mark != b";":
            self._inside = mark if token["dollar"] else mark[-1:]
            self._escapes = token["escape"] is not None or (mark == b"'" and self._plain_escapes)

    def _note_word(self, word: bytes, before: bytes) -> None:
        if self._parentheses > 0 or not _ROUTINE.match(self._text[:_HEAD] + before):
            return
        if word == b"END":
            self._bodies = max(0, self._bodies - 1)
        elif word == b"BEGIN" or self._bodies > 0:
            self._bodies += 1

    def _skip(self, line: bytes, position: int) -> int:
        """Read on inside a string, a quoted name or a comment. A doubled quote ends one string and begins the next."""
        if self._inside == _END_OF_COMMENT:
            mark = _COMMENT.search(line, position)
            self._comments += 0 if mark is None else 1 if mark.group() == b"/*" else -1
            closed = self._comments == 0
        elif self._inside == b"'" and self._escapes:
            mark = _ESCAPED.search(line, position)
            closed = mark is not None and mark.group() == b"'"
        else:
            closing = self._inside or b""
            end = line.find(closing, position)
            self._inside = self._inside if end < 0 else None
            return len(line) if end < 0 else end + len(closing)
        if closed:
            self._inside = None
        return len(line) if mark is None else mark.end()

    def _end_statement(self, piece: bytes, *, last: bool) -> None:
        line, offset = self._begun or (self.lines, self._line_offset)
        text = bytes(self._text + piece)
        copy = _COPY.match(text) if last and text.startswith(b"COPY ") else None
        copies_into = copy.group(1).decode("utf-8", "backslashreplace") if copy else None
        self._text.clear()
        self._length = 0
        self._begun = None
        self._parentheses = self._bodies = 0
        if text == b"SET standard_conforming_strings = off":
            self._plain_escapes = True
        self._handler.statement(Statement(text, line, offset, copies_into))
        self.table = copies_into
        self._at_line_start = True


def shown(text: bytes) -> str:
    """Return the first line of a statement, without what its strings say, for a message."""
    line = _STRING.sub("'…'", text.split(b"\n", 1)[0].decode("utf-8", "backslashreplace"))
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
