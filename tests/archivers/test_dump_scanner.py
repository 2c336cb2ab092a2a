"""What a dump says of itself while it passes, whatever its data and its functions say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gitlab_backup.archivers.database.scanner import DumpScanner

if TYPE_CHECKING:
    from tests.support import postgres

OPENING = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc123\n\n"
CLOSING = "--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc123\n\n"

# What would mislead a reader that only looks for lines.
TRAPS = st.sampled_from(
    [
        "\\.",
        "\n\\.\n",
        "COPY a.b (c) FROM stdin;",
        "\nCOPY a.b (c) FROM stdin;\n",
        "\n-- PostgreSQL database dump complete\n",
        "\\N",
        "\\",
        "'",
        "''",
        "\\'",
        '"',
        "$$",
        "$_$",
        "--",
        "/*",
        "*/",
        ";",
        "\t",
        "\n",
        "E'",
        "é\u2028",
    ]
)
TEXTS = st.lists(TRAPS | st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=5), max_size=5).map(
    "".join
)
NAMES = TEXTS.filter(bool)
TABLES = st.lists(st.tuples(NAMES, st.lists(st.lists(TEXTS, max_size=3).map(tuple), max_size=6)), max_size=4)


def copied(value: str) -> str:
    """Return a value as COPY writes it (PostgreSQL manual, COPY, "Text Format")."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def statements(text: str) -> list[str]:
    """Return statements that hold `text` in every way that SQL has."""
    quoted = text.replace("'", "''")
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    dollars = text.replace("$", "")
    return [
        f"COMMENT ON TABLE x IS '{quoted}';\n",
        f"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$\nSELECT '{dollars}';\n$_$;\n",
        f"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $${dollars}$$;\n",
        f"CREATE VIEW v AS SELECT E'{escaped}' AS {quoted_name(text or 'x')}, 1 AS a$b;\n",
        f"CREATE TABLE {quoted_name(text or 'x')} (a text DEFAULT '{quoted}'::text);\n",
        f"-- {' '.join(text.split())}\n",
        f"SELECT 1 /* outer /* {text.replace('*/', '').replace('/*', '')} */ '\n */;\n",
    ]


def dump_of(tables: list[tuple[str, list[tuple[str, ...]]]], texts: list[str]) -> tuple[bytes, dict[str, int]]:
    """Return a dump, and the rows that it has."""
    rows: dict[str, int] = {}
    parts = [OPENING]
    for number, (name, lines) in enumerate(tables):
        table = f"{quoted_name(name)}.t{number}"
        rows[table] = len(lines)
        parts += [part for text in texts for part in statements(text)]
        parts.append(f"COPY {table} (a, b) FROM stdin;\n")
        parts += ["\t".join(map(copied, line)) + "\n" for line in lines]
        parts.append("\\.\n\n\n")
    return "".join([*parts, CLOSING]).encode(), rows


def scan(dump: bytes, size: int) -> DumpScanner:
    scanner = DumpScanner()
    for start in range(0, len(dump), size):
        scanner.feed(dump[start : start + size])
    return scanner


@given(TABLES, st.lists(TEXTS, max_size=3), st.integers(1, 300) | st.just(1 << 20))
@example([("s", [("a", "b")])], ["\n-- PostgreSQL database dump complete\n"], 1)
@example([("\nCOPY a.b (c) FROM stdin;\n", [("\\.",), ()])], ["'"], 3)
def test_rows_are_counted_whatever_the_data_say(
    tables: list[tuple[str, list[tuple[str, ...]]]], texts: list[str], size: int
) -> None:
    """The rows of each table are exact, however the dump is cut into pieces, and the dump counts as whole."""
    dump, rows = dump_of(tables, texts)

    scanner = scan(dump, size)

    assert rows == scanner.rows
    assert scanner.opened
    assert scanner.complete
    assert len(dump) == scanner.size
    assert dump.count(b"\n") == scanner.lines


@given(TABLES, st.lists(TEXTS, max_size=2), st.data())
def test_a_dump_that_is_cut_short_is_never_complete(
    tables: list[tuple[str, list[tuple[str, ...]]]], texts: list[str], data: st.DataObject
) -> None:
    """Nothing before the closing line counts as the end, not even a text that looks like it."""
    dump, _ = dump_of(tables, texts)
    length = data.draw(st.integers(0, len(dump) - len(CLOSING) + len("--\n-- PostgreSQL database dump complete")))

    assert not scan(dump[:length], 64).complete


def test_what_follows_the_closing_line_makes_a_dump_incomplete() -> None:
    """Two dumps, one of them cut short, are not one."""
    whole, _ = dump_of([], [])

    assert scan(whole, 10).complete
    assert not scan(whole + b"SELECT 1;\n", 10).complete


@pytest.mark.parametrize(
    "text",
    ["", "\n", "-- PostgreSQL database cluster dump\n", "PGDMP\x01", f"SELECT 1;\n{OPENING}", "SELECT\n" + OPENING],
)
def test_what_does_not_begin_as_a_dump_is_none(text: str) -> None:
    """The dump of a cluster, an archive of pg_dump and plain SQL are something else."""
    assert not scan(text.encode(), 5).opened


@pytest.mark.parametrize(
    "statement",
    [
        r"CREATE VIEW v AS SELECT E'\'' AS q;",
        r"CREATE VIEW v AS SELECT E'\\' AS q;",
        r"CREATE VIEW v AS SELECT e'''\'' AS q;",
        "CREATE VIEW v AS SELECT E'\\\n' AS q;",
        r"CREATE VIEW v AS SELECT '\' AS q;",
        r"CREATE VIEW v AS SELECT type'\' AS q;",
        "CREATE VIEW v AS SELECT a$b$c FROM x;",
        "CREATE VIEW v AS SELECT $b$ $ $c$ ; ' $b$;",
        'CREATE VIEW v AS SELECT 5 - 3 / 2 * 1 AS "\'";',
        "CREATE VIEW v AS SELECT 1; -- it's",
        "SELECT /* /* \" */ it's */ 1;",
        "COPY (SELECT 1) TO 'file';",
        "COPY public.t FROM 'stdin;';",
        "CREATE RULE r AS ON INSERT TO x DO (SELECT 1; SELECT 2);",
        "\\connect it's",
    ],
)
def test_each_part_of_sql_ends_where_it_ends(statement: str) -> None:
    """After one such statement alone, the rows that follow are still found."""
    text = f"{OPENING}{statement}\nCOPY public.t (a) FROM stdin;\n1\n\\.\n\n{CLOSING}".encode()

    for size in (1, 1000):
        scanner = scan(text, size)
        assert scanner.rows == {"public.t": 1}
        assert scanner.complete


def test_backslashes_count_where_the_dump_says_so() -> None:
    """With `standard_conforming_strings = off`, a backslash keeps a quote from ending a string."""
    text = "SET standard_conforming_strings = off;\nCOMMENT ON TABLE x IS 'it\\'s\n\nCOPY a.b (c) FROM stdin;\n';\n"

    assert scan((OPENING + text + CLOSING).encode(), 7).rows == {}
    assert scan((OPENING + text + CLOSING).encode(), 7).complete


def test_the_place_names_the_table_that_is_being_read() -> None:
    """Byte, line and table say where a dump ends."""
    scanner = scan(b"COPY public.users (id) FROM stdin;\n1\n2", 4)

    assert scanner.place == "byte 38, line 3, among the rows of public.users"


def test_the_rows_of_a_real_dump_are_counted(cluster: postgres.Cluster, database: str) -> None:
    """Names, functions, comments, rules and values made to mislead do not, as pg_dump writes them."""
    cluster.psql(
        r"""
        CREATE SCHEMA "we.ird";
        CREATE TABLE "we.ird"."a""b
COPY x.y (z) FROM stdin;" (id int, "co;l'" text);
        INSERT INTO "we.ird"."a""b
COPY x.y (z) FROM stdin;" SELECT i, E'\\.\n\\.\nCOPY a.b (c) FROM stdin;\n' FROM generate_series(1, 1234) i;
        CREATE TABLE empty (id int);
        CREATE TABLE no_columns ();
        INSERT INTO no_columns DEFAULT VALUES;
        INSERT INTO no_columns DEFAULT VALUES;
        CREATE TABLE one (t text DEFAULT E'\\''\n\nCOPY a.b (c) FROM stdin;\n');
        INSERT INTO one VALUES (E'\\.');
        CREATE TABLE parted (id int) PARTITION BY RANGE (id);
        CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
        INSERT INTO parted VALUES (1), (2), (3);
        COMMENT ON TABLE one IS E'it''s\nCOPY a.b (c) FROM stdin;\n-- PostgreSQL database dump complete\n';
        CREATE FUNCTION plain() RETURNS text LANGUAGE sql AS $f$
COPY a.b (c) FROM stdin;
SELECT $x$';$x$
$f$;
        CREATE FUNCTION atomic(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT a + 1; END;
        CREATE VIEW v AS SELECT E'\\''; COPY a.b (c) FROM stdin;\n' AS "q""
COPY a.b (c) FROM stdin;";
        CREATE RULE r AS ON INSERT TO empty DO ALSO (INSERT INTO one VALUES ('x'); DELETE FROM part_1 WHERE id = 9);
        SELECT lo_from_bytea(0, '\x5c2e0a');
        """,
        database,
    )

    dump = cluster.run("pg_dump", "--clean", "--if-exists", database)
    scanner = scan(dump, 1000)

    expected = {
        '"we.ird"."a""b\nCOPY x.y (z) FROM stdin;"': 1234,
        "public.empty": 0,
        "public.no_columns": 2,
        "public.one": 1,
        "public.part_1": 3,
    }
    assert expected == scanner.rows
    assert scanner.opened
    assert scanner.complete
    assert scan(dump, 1 << 20).rows == scanner.rows
