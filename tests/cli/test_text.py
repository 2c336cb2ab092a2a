"""Numbers and names as the command prints them."""

from __future__ import annotations

import pytest
from gitlab_backup_cli.text import duration, escape, size, table


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**5, "5.0 PiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    """A number of bytes has the unit in which it is at least one, also where it is rounded up to it."""
    assert text == size(count)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.34, "0.3 s"),
        (9.99, "10.0 s"),
        (12.4, "12 s"),
        (59.6, "1 min 00 s"),
        (184, "3 min 04 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """A number of seconds is printed as precisely as it matters."""
    assert text == duration(seconds)


def test_escape_leaves_no_control_character() -> None:
    """What could move a cursor, change a colour or begin a line is printed as an escape; letters are left alone."""
    assert escape("Käse\x1b[31m\n\r\x7f\u202e\udcff 漢字") == r"Käse\x1b[31m\n\r\x7f\u202e\udcff 漢字"
    assert escape("one\n\ttwo", lines=True) == "one\n\\ttwo"


def test_table_cuts_nothing_off() -> None:
    """Columns are as wide as their widest cell, and what a cell holds is escaped."""
    assert table(("a", "b"), [("long", "1"), ("\n", "1000")], right={1}) == "a        b\nlong     1\n\\n    1000\n"


def test_table_on_a_narrow_screen() -> None:
    """What is too wide to be read in columns is below one another, and nothing of it is cut off."""
    header, rows = ("setting", "value", "from"), [("path", "/a/long/path", "option"), ("user", "git", "")]
    wide = "setting  value         from\npath     /a/long/path  option\nuser     git\n"
    assert wide == table(header, rows, width=29)
    narrow = "setting path\n  value  /a/long/path\n  from   option\nsetting user\n  value  git\n"
    assert narrow == table(header, rows, width=28)
