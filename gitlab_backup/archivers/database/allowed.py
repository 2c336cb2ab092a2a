"""What a dump may ask for: the statements that pg_dump writes, and no others.

A dump is run with all rights of the role that restores it; of a superuser, that includes programs on the server
(`COPY … FROM PROGRAM`). psql, which is not used here, can be told to run programs of its own (CVE-2025-8714). So what
pg_dump never writes is refused. But a dump may make functions, and have them called (by an index, a trigger, SELECT).
What these do cannot be seen from outside: there, only the rights of the role are a limit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .sql import Statement

FRAMES: Final = frozenset({b"BEGIN", b"COMMIT"})
"""What pg_dump puts around large objects (`pg_backup_archiver.c`, `StartRestoreLOs`)."""

# The only commands to psql that pg_dump writes (since the minor releases of August 2025): they fence off the others.
_FENCE: Final = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\Z")
# In a transaction of ours, any of these would end it.
_TRANSACTION: Final = re.compile(
    rb"(?:ABORT|BEGIN|COMMIT|END|PREPARE\s+TRANSACTION|RELEASE|ROLLBACK|SAVEPOINT|START)\b", re.IGNORECASE
)
_COPY: Final = re.compile(rb"COPY\b", re.IGNORECASE)
# Of a whole server, which a dump of one database does not touch.
_OF_THE_SERVER: Final = rb"(?:DATABASE|GROUP|ROLE|SYSTEM|TABLESPACE|USER(?! MAPPING))\b"
_WRITTEN: Final = re.compile(
    rb"(?:ALTER|CREATE|DROP) (?!" + _OF_THE_SERVER + rb")"
    rb"|COMMENT ON |GRANT |INSERT INTO |REFRESH MATERIALIZED VIEW |REVOKE |SECURITY LABEL |SELECT\b|SET "
)


def objection_to_line(line: bytes) -> str | None:
    """Return what a line between statements, or the rest of one inside a statement, must not be; None for a comment."""
    return "a command to psql" if line.startswith(b"\\") and not _FENCE.match(line) else None


def objection_to(statement: Statement) -> str | None:
    """Return what a statement must not be, else None."""
    text = statement.text
    if b"\0" in text:
        return "a zero byte"
    if statement.copies_into is not None or text in FRAMES:
        return None
    if _COPY.match(text):
        # From a file or a program of the server.
        return "a COPY of something else than its own rows"
    if _TRANSACTION.match(text):
        return "a transaction of its own"
    return None if _WRITTEN.match(text) else "a statement that no dump has"
