"""What was moved during a walk to where that had been already.

Whoever moves something changes the time of both directories, and the status change time of what is moved. So a walk in
which no directory was younger than its beginning has missed nothing; after another one, only such directories are
looked at again, for what in them is as young and was not there before.
"""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING

from attrs import define, field

from .access import open_directory
from .versions import beginning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from .report import Notes

_BATCH = 50_000
"""How many names are gathered before they are held against those of all directories."""


def _digest(path: bytes) -> int:
    return hash(path) & 0xFFFF_FFFF_FFFF_FFFF


@define(eq=False, kw_only=True)
class Moved:
    """The directories that a walk went through, in 8 bytes each, and what it may have missed."""

    root: int
    exclude: Collection[bytes]
    everywhere: Collection[bytes]
    notes: Notes
    _since: int = field(factory=beginning)
    _walked: array[int] = field(factory=lambda: array("Q"))
    _doubt: bool = False

    def entered(self, path: bytes, status: os.stat_result) -> None:
        """Take note of a directory (`./a/`) whose names are about to be read."""
        self._walked.append(_digest(path))
        self.left(status)

    def left(self, status: os.stat_result | None) -> None:
        """Take note of what a directory was like at the end; None for one that was not found again."""
        if status is None or status.st_mtime_ns > self._since:
            self._doubt = True

    def batches(self) -> Iterator[dict[bytes, bool]]:
        """Return what may have been missed: paths (`./a`), and whether each is a directory, by name.

        What is below another of them is left out: a directory is missed as a whole.
        """
        if not self._doubt:
            return
        found: dict[bytes, bool] = {}
        for path, is_directory in self._young():
            found[path] = is_directory
            if len(found) >= _BATCH:
                yield self._missed(found)
                found = {}
        yield self._missed(found)

    def _young(self) -> Iterator[tuple[bytes, bool]]:
        waiting = [b"./"]
        while waiting:
            path = waiting.pop()
            without = {*self.everywhere, *(self.exclude if path == b"./" else ())}
            try:
                fd = open_directory(self.root, path)
            except OSError:  # moved or removed since: then it is not here
                continue
            try:
                changed = os.fstat(fd).st_mtime_ns > self._since
                young = []
                with os.scandir(fd) as listing:
                    for entry in listing:
                        name = os.fsencode(entry.name)
                        if name in without:
                            continue
                        is_directory = entry.is_dir(follow_symlinks=False)
                        if is_directory:
                            waiting.append(path + name + b"/")
                        if changed and self._is_young(entry):
                            young.append((path + name, is_directory))
            except OSError:
                continue
            finally:
                os.close(fd)
            yield from young

    def _is_young(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.stat(follow_symlinks=False).st_ctime_ns > self._since
        except OSError:
            return False

    def _missed(self, found: dict[bytes, bool]) -> dict[bytes, bool]:
        directories = {_digest(path + b"/"): path for path in found}
        for digest in self._walked:
            path = directories.pop(digest, None)
            if path is not None and not found.pop(path):
                # Extraction puts nothing in the place of a directory.
                self.notes.note_unreadable(path, "it took the place of a directory that had been read already")
        missed: dict[bytes, bool] = {}
        for path in sorted(found):
            above = path
            while above := above.rpartition(b"/")[0]:
                if missed.get(above):
                    break
            else:
                missed[path] = found[path]
        return missed
