"""The table of `docs/reliability.md` is that of the tests."""

from __future__ import annotations

import re

import pytest

from . import matrix
from .schedule import FULL


@pytest.mark.skipif(FULL, reason="the page is written at the end of this run")
def test_the_page_has_every_row() -> None:
    """Each cell that the tests know is there, in the same words; each has injections, or a reason for having none."""
    rows = [line for line in matrix.on_page().splitlines()[2:] if line]
    assert rows == [
        re.sub(r"\| 0 \|$", f"| {found} |", expected)
        for expected, found in zip(
            matrix.rendered({}).splitlines()[2:], (row.rstrip(" |").rpartition("| ")[2] for row in rows), strict=True
        )
    ]
    counts = [row.rstrip("|").rpartition("|")[2].strip() for row in rows]
    for row, count in zip(rows, counts, strict=True):
        assert "not applicable: " in row if not count else int(count) > 0, row


def test_every_cell_is_filled() -> None:
    """No fault lacks an outcome, or a reason, for any operation."""
    for fault, row in matrix.TABLE.items():
        assert 1 + len(matrix.OPERATIONS) == len(row), fault
        assert all(each.reason if isinstance(each, matrix.Not) else each for each in row[1:])


def test_what_the_table_does_not_know_is_refused() -> None:
    """A test cannot claim an injection that the table has no outcome for."""
    with pytest.raises(AssertionError, match="runs no other program"):
        matrix.cell("program dies", "prune")
    with pytest.raises(KeyError):
        matrix.cell("nothing", "backup")
