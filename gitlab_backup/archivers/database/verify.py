"""Reads the dumps of a backup to their ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from ...errors import StreamError
from .scanner import DumpScanner

if TYPE_CHECKING:
    from ..base import VerifyJob

_PIECE: Final = 1 << 20
_DUMP: Final = re.compile(r"(?:(?P<name>[^/]+)_)?database\.sql(?:\.[^/.]+)?")
_SHOWN: Final = 3


def verify_dumps(job: VerifyJob) -> None:
    """Report, through `job.damaged`, dumps that are missing, damaged, cut short, or not those of the manifest."""
    destination = job.component.destination
    found = dumps_by_name(job.names(destination), destination)
    databases = _section(job.details, "databases")
    for name in {"main": None, **databases}:
        if name not in found:
            expected = _section(databases, name).get("file", f"{destination}/database.sql")
            job.damaged(str(expected), f"the dump of the database {name} is missing")
    for name, path in found.items():
        _verify_dump(job, path, _section(databases, name))


def dumps_by_name(names: Iterable[str], destination: str) -> dict[str, str]:
    """Return the dumps among the files of a backup, by the name of their connection."""
    matches = {path: _DUMP.fullmatch(path.removeprefix(f"{destination}/")) for path in names}
    return {match["name"] or "main": path for path, match in matches.items() if match}


def _verify_dump(job: VerifyJob, path: str, details: Mapping[str, object]) -> None:
    scanner = DumpScanner()
    zero = -1
    try:
        with job.open_stream(path) as stream:
            while piece := stream.read(_PIECE):
                job.cancel.check()
                if (at := piece.find(b"\0")) >= 0:
                    zero = scanner.size + at
                    break
                scanner.feed(piece)
    except StreamError as error:
        job.damaged(path, f"{error.message} (in the dump: {scanner.place})")
        return
    if zero >= 0:
        job.damaged(path, f"holds a zero byte, which no dump has, at byte {zero} of the dump")
    elif not scanner.opened:
        job.damaged(path, "is not a plain dump of pg_dump: it does not begin like one")
    elif scanner.objection is not None:
        job.damaged(path, f"holds {scanner.objection}")
    elif not scanner.complete:
        job.damaged(path, f"is cut short: it ends at {scanner.place}, without the closing line of pg_dump")
    elif isinstance(expected := details.get("dump_bytes"), int) and scanner.size != expected:
        job.damaged(path, f"is a dump of {scanner.size} bytes, not {expected} as when it was made")
    elif "rows" in details:
        _compare_rows(job, path, scanner.rows, _section(details, "rows"))


def _compare_rows(job: VerifyJob, path: str, found: Mapping[str, int], expected: Mapping[str, object]) -> None:
    different = [table for table in {**expected, **found} if found.get(table) != expected.get(table)]
    if different:
        shown = "; ".join(
            f"{table} has {_rows(found.get(table))}, in the manifest {_rows(expected.get(table))}"
            for table in different[:_SHOWN]
        )
        more = f"; and {len(different) - _SHOWN} more tables" if len(different) > _SHOWN else ""
        job.damaged(path, f"does not have the rows that the manifest says: {shown}{more}")


def _rows(count: object) -> str:
    return "none of it" if count is None else f"{count} row" if count == 1 else f"{count} rows"


def _section(document: Mapping[str, object] | None, key: str) -> Mapping[str, object]:
    """Return a part of the manifest's details, which may be anything, as a mapping."""
    value = document.get(key) if document is not None else None
    return value if isinstance(value, Mapping) else {}
