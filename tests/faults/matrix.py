"""What goes wrong, in which operation, and what comes of it: the table of `docs/reliability.md`.

A test says which cells it is about by the marker `injects`, or counts its injections by the fixture `injected`. The
plugin beside this module collects the counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN: Final = "<!-- The table is written by `nox -s faults`. -->\n"
_END: Final = "<!-- The end of the table. -->\n"

OPERATIONS: Final = ("backup", "restore", "prune", "reading")
"""`reading` is `list`, `show` and `verify`."""


@frozen
class Not:
    """Why there is nothing to inject in a cell."""

    reason: str


Row = tuple[str, "str | Not", "str | Not", "str | Not", "str | Not"]

_RUNS_NO_PROGRAM: Final = Not("runs no other program")
_NO_DATABASE: Final = Not("needs no database")
_WRITES_NOTHING: Final = Not("writes nothing")
_NO_BACKUP: Final = "fails; no new backup, nothing left, the next run succeeds"
_AS_IT_WAS: Final = "fails; the installation is as it was, nothing left"
_PRUNE_WHOLE: Final = "fails; each backup is whole or gone, the next run does the rest"

TABLE: Final[Mapping[str, Row]] = {
    "killed": (
        "killed (SIGKILL) at a step: a file, a rename, a program, a connection",
        "no new backup; the next run removes the staging and succeeds",
        "the next run of any kind puts back what was, or finishes",
        "each backup is whole or gone; the next run removes the rest",
        Not("there is nothing that a dead reader could leave"),
    ),
    "ENOSPC": (
        "no space: any one write, sync, rename, new file",
        _NO_BACKUP,
        _AS_IT_WAS,
        _PRUNE_WHOLE,
        _WRITES_NOTHING,
    ),
    "EDQUOT": (
        "quota: any one write, sync, rename, new file",
        _NO_BACKUP,
        _AS_IT_WAS,
        _PRUNE_WHOLE,
        _WRITES_NOTHING,
    ),
    "EIO": (
        "disk error: any one write, sync, rename, new file",
        _NO_BACKUP,
        _AS_IT_WAS,
        _PRUNE_WHOLE,
        _WRITES_NOTHING,
    ),
    "read-only": (
        "a file system that is mounted read-only",
        "fails before any work, and says so",
        "refused before any change",
        "fails before any deletion",
        "works",
    ),
    "unreadable": (
        "disk error (EIO) in what is read",
        "the file is named; status 3, all else is in the backup",
        "refused: the backup is damaged; nothing changed",
        "left alone, and named",
        "the file is named; status 4",
    ),
    "power": (
        "loss of power: the order of what reaches the disk, recorded",
        "all is on disk before the rename, the directory after it",
        "the new is on disk before the old moves, the journal before either",
        "the hidden name is on disk before the first file goes",
        _WRITES_NOTHING,
    ),
    "program fails": (
        "a program exits with an error at its end",
        _NO_BACKUP,
        _AS_IT_WAS,
        _RUNS_NO_PROGRAM,
        _RUNS_NO_PROGRAM,
    ),
    "program dies": (
        "a program dies by a signal in the middle",
        _NO_BACKUP,
        _AS_IT_WAS,
        _RUNS_NO_PROGRAM,
        _RUNS_NO_PROGRAM,
    ),
    "program hangs": (
        "a program is silent for ever",
        "ended after 12 hours of silence, or when asked; its processes are gone",
        "as in a backup: programs are run in one place",
        _RUNS_NO_PROGRAM,
        _RUNS_NO_PROGRAM,
    ),
    "program floods": (
        "a program floods its standard error",
        "succeeds; the last 16 KiB are kept",
        "as in a backup: programs are run in one place",
        _RUNS_NO_PROGRAM,
        _RUNS_NO_PROGRAM,
    ),
    "program says nothing": (
        "a program does nothing, and says that it succeeded",
        _NO_BACKUP,
        _AS_IT_WAS,
        _RUNS_NO_PROGRAM,
        _RUNS_NO_PROGRAM,
    ),
    "connection cut": (
        "connections to PostgreSQL are cut: that of a program, that which holds the snapshot, or all",
        _NO_BACKUP,
        _AS_IT_WAS,
        _NO_DATABASE,
        _NO_DATABASE,
    ),
    "server restarted": (
        "PostgreSQL is restarted or killed in the middle",
        _NO_BACKUP,
        "put back at once, or by the next run when the server is there",
        _NO_DATABASE,
        _NO_DATABASE,
    ),
    "timeouts": (
        "`statement_timeout` and the like set by the administrator",
        "no effect",
        "no effect",
        _NO_DATABASE,
        _NO_DATABASE,
    ),
    "PgBouncer": (
        "PgBouncer between, in transaction mode or in session mode",
        "fails, and it is named, with the way around it; in session mode, succeeds; nothing set stays behind",
        "succeeds; nothing set stays behind",
        _NO_DATABASE,
        _NO_DATABASE,
    ),
    "damage": (
        "a byte or file of a backup flipped, cut, added, exchanged, removed",
        Not("reads no other backup, but for increments: those verify what they take"),
        "refused; nothing changed",
        "left alone where a document is damaged or a file is missing",
        "the file is named; status 4",
    ),
    "together": (
        "backup, restore, prune while one is at work",
        "the second is told who has the lock; the first succeeds",
        "the second is told who has the lock; the first succeeds",
        "the second is told who has the lock; the first succeeds",
        "`list` and `verify` see whole backups at every step of the others",
    ),
    "surroundings": (
        "1 GiB of address space and 256 descriptors; no `/proc`; hostile variables, PATH and umask; a locale of ASCII",
        "no effect",
        "no effect",
        "no effect",
        "no effect",
    ),
}
"""By the short name of a fault: what it is, and for each of `OPERATIONS` what comes of it."""


def cell(fault: str, operation: str) -> str:
    """Return the outcome. A test that claims what the table does not know is wrong."""
    outcome = TABLE[fault][1 + OPERATIONS.index(operation)]
    assert isinstance(outcome, str), f"{fault} is not to be injected into {operation}: {outcome.reason}"
    return outcome


def cells() -> list[tuple[str, str]]:
    """Return the cells in which something is to be injected."""
    return [
        (fault, operation)
        for fault, row in TABLE.items()
        for operation, outcome in zip(OPERATIONS, row[1:], strict=True)
        if not isinstance(outcome, Not)
    ]


def rendered(counts: Mapping[tuple[str, str], int]) -> str:
    """Return the table in Markdown: a line for each cell."""
    lines = ["| fault | operation | outcome | injections |", "|---|---|---|--:|"]
    for fault, row in TABLE.items():
        for operation, outcome in zip(OPERATIONS, row[1:], strict=True):
            if isinstance(outcome, Not):
                lines.append(f"| {row[0]} | {operation} | *not applicable: {outcome.reason}* | |")
            else:
                lines.append(f"| {row[0]} | {operation} | {outcome} | {counts.get((fault, operation), 0)} |")
    return "".join(f"{line}\n" for line in lines)


def on_page() -> str:
    """Return the table that is on the page."""
    return PAGE.read_text().partition(_BEGIN)[2].partition(_END)[0].strip("\n") + "\n"


def write(counts: Mapping[tuple[str, str], int]) -> None:
    """Put the table on the page."""
    before, begin, rest = PAGE.read_text().partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, "the page has no place for the table"
    assert end, "the page has no place for the table"
    PAGE.write_text(f"{before}{begin}\n{rendered(counts)}\n{end}{after}")
