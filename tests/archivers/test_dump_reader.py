"""A dump is taken apart as psql does, however it comes in pieces and whatever it says."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gitlab_backup.archivers.database.sql import DumpReader, Statement
from gitlab_backup.errors import CorruptStreamError
from tests.archivers.test_dump_scanner import TABLES, TEXTS, dump_of


class Collecting:
    """Keeps all that a reader finds."""

    def __init__(self) -> None:
        self.found: list[tuple[str, object]] = []

    def statement(self, statement: Statement) -> None:
        self.found.append(("statement", statement))

    def take(self, data: bytes) -> None:
        if self.found[-1][0] == "rows":
            data = self.found.pop()[1] + data  # type: ignore[operator]
        self.found.append(("rows", data))

    def end_of_rows(self) -> None:
        self.found.append(("end", None))

    def line(self, line: bytes, number: int, offset: int) -> None:
        self.found.append(("line", (line, number, offset)))


def read(dump: bytes, sizes: list[int]) -> tuple[list[tuple[str, object]], DumpReader]:
    """Feed a dump in pieces of these sizes, over and over."""
    collecting = Collecting()
    reader = DumpReader(collecting)
    start, turn = 0, 0
    while start < len(dump):
        size = sizes[turn % len(sizes)]
        reader.feed(dump[start : start + size])
        start, turn = start + size, turn + 1
    return collecting.found, reader


def texts(dump: bytes) -> list[bytes]:
    return [found.text for _, found in read(dump, [1 << 20])[0] if isinstance(found, Statement)]


@given(TABLES, st.lists(TEXTS, max_size=3), st.lists(st.integers(1, 40), min_size=1, max_size=5))
@example([("s", [("\\.", "x"), ("\n\\.\n",)])], ["'"], [1])
@example([("s", [("\\.", "x"), ("\n\\.\n",)])], ["$$"], [2, 3])
def test_pieces_make_no_difference(
    tables: list[tuple[str, list[tuple[str, ...]]]], strings: list[str], sizes: list[int]
) -> None:
    """Statements, rows, lines and their places are the same for any cut."""
    dump, _ = dump_of(tables, strings)
    whole, reader = read(dump, [len(dump)])

    assert (whole, True) == (read(dump, sizes)[0], reader.between)
    for kind, found in whole:
        if isinstance(found, Statement):
            begin = dump[found.offset :]
            assert found.text in begin
            assert dump[: found.offset].count(b"\n") + 1 == found.line
        if kind == "line":
            assert isinstance(found, tuple)
            line, number, offset = found
            assert dump.split(b"\n")[number - 1] == line == dump[offset : offset + len(line)]


BODY = "BEGIN ATOMIC SELECT CASE WHEN (a = ';') THEN 1 ELSE 2 END; SELECT 1 AS \"END\"; END"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1; SELECT 2;SELECT 3;", ["SELECT 1", "SELECT 2", "SELECT 3"]),
        ("SELECT 1; -- it's; \nSELECT 2;", ["SELECT 1", "SELECT 2"]),
        ("/* a; /* b; */ c; */ SELECT 1;", ["SELECT 1"]),
        ("/* a;\n\n*/ SELECT 1;", ["SELECT 1"]),
        ("SELECT 1 /* ; /* ; */ ; */ + 1;", ["SELECT 1 /* ; /* ; */ ; */ + 1"]),
        ("SELECT ';', \"a;\"\";\", E'\\';', $$;$$, $a$;$$;$b$;$a$;", None),
        ("CREATE RULE r AS ON INSERT TO x DO ALSO (SELECT 1; SELECT 2);", None),
        (f"CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql {BODY};", None),
        (f"CREATE OR REPLACE PROCEDURE f(a int)\n    LANGUAGE sql\n    {BODY};", None),
        (f"CREATE\nOR REPLACE\nFUNCTION f() RETURNS int {BODY.lower()};", None),
        ("CREATE VIEW v AS SELECT CASE WHEN a THEN 1 END AS begin_;", None),
        ("BEGIN;\nSELECT 1;\nCOMMIT;", ["BEGIN", "SELECT 1", "COMMIT"]),
        ("CREATE FUNCTION f(b int = (SELECT 1)) AS 'BEGIN; END;';", None),
        ("SELECT a$b$c;\nSELECT 'x\n;\n-- y';", ["SELECT a$b$c", "SELECT 'x\n;\n-- y'"]),
        (";;\n ; SELECT 1;", ["SELECT 1"]),
    ],
)
def test_statements_end_where_they_end(sql: str, expected: list[str] | None) -> None:
    """At a semicolon of their own: none of a string, a name, a comment, a list in parentheses or a body."""
    expected = [sql.removesuffix(";")] if expected is None else expected
    assert [text.encode() for text in expected] == texts(f"{sql}\n".encode())
    both = [text.encode() for text in expected] * 2
    assert both == texts(f"{sql}\n{sql}\n".encode())


def test_only_lines_between_statements_are_commands() -> None:
    """A backslash inside a string, a comment or rows is text; anywhere else, psql takes what follows as a command."""
    dump = b"/*\n\\! a\n*/\nSELECT '\n\\! b\n' \\! e\n;\nCOPY t (a) FROM stdin;\n\\! c\n\\.\n\\! d\n"
    found, _ = read(dump, [7])
    lines = [entry[0] for kind, entry in found if kind == "line"]  # type: ignore[index]
    assert [b"\\! e", b"\\! d"] == lines
    assert ("rows", b"\\! c\n") in found


def test_what_never_ends_is_no_statement() -> None:
    """Memory does not grow with what the dump says: a line, or many lines, without a semicolon end as an error."""
    for piece in (b"x" * (1 << 20), (b"x" * 63 + b"\n") * (1 << 14)):
        reader = DumpReader(Collecting())
        reader.feed(b"SELECT 1;\n" + piece * 63)
        with pytest.raises(CorruptStreamError, match=r"line 2 \(byte 10\) is too long"):
            reader.feed(piece * 2)
