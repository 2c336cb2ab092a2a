"""Files with several names on their way into an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from .versions import content_version, identity

if TYPE_CHECKING:
    import os

_OPEN = 500_000
"""How many files of which names are still to come are remembered, in about 300 bytes each."""
_CLOSED = 50_000
"""How many files of which all names have come are remembered."""


@define(eq=False)
class Linked:
    """A file with several names: those that are in the archive, and how many are still to come."""

    names: list[bytes]
    """The first one has the content, or had it at last."""
    left: int
    was: tuple[int, int]
    """The size and time of what is in the archive."""


@define(eq=False)
class Links:
    """The files with several names that are in an archive."""

    _open: dict[tuple[int, int], Linked] = field(factory=dict)
    _closed: dict[tuple[int, int], Linked] = field(factory=dict)

    def get(self, status: os.stat_result) -> Linked | None:
        """Return what is known of a file some names of which are still to come."""
        return self._open.get(identity(status)) if status.st_nlink > 1 else None

    def names(self, status: os.stat_result) -> list[bytes]:
        """Return the names in the archive of a file, also where all of them have come."""
        known = self._open.get(identity(status)) or self._closed.get(identity(status))
        return list(known.names) if known else []

    def content(self, path: bytes, status: os.stat_result) -> bool:
        """Remember a name under which the content was written. Return whether there was room for it."""
        known = self._open.get(identity(status))
        if known is None and len(self._open) >= _OPEN:
            return False
        names = [path, *known.names] if known else [path]
        left = known.left if known else status.st_nlink
        self._open[identity(status)] = Linked(names, left, content_version(status))
        self._count(status)
        return True

    def link(self, path: bytes, status: os.stat_result) -> None:
        """Remember a name under which a link to the first name was written."""
        self._open[identity(status)].names.append(path)
        self._count(status)

    def _count(self, status: os.stat_result) -> None:
        known = self._open[identity(status)]
        known.left -= 1
        if known.left <= 0:
            self._closed[identity(status)] = self._open.pop(identity(status))
            if len(self._closed) > _CLOSED:
                del self._closed[next(iter(self._closed))]
