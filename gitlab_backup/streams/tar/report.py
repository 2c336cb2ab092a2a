"""What became of a tree on its way into an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field, frozen

if TYPE_CHECKING:
    import os

NAMES_KEPT = 1000
"""How many names of each sort are kept; the counts go on."""


def display(name: bytes) -> str:
    """Return a file name for people: what is not UTF-8 or does not print is escaped."""
    text = name.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@frozen
class Changed:
    """A file that never held still: its size (bytes) and time (nanoseconds) before and after it was last read."""

    name: str
    sizes: tuple[int, int]
    mtimes_ns: tuple[int, int]


@frozen
class Unreadable:
    """A file or directory that could not be read, or not to its end."""

    name: str
    reason: str


@frozen(kw_only=True)
class TarReport:
    """What is in an archive, and what is not. Of each sort, the first `NAMES_KEPT` are named."""

    members: int
    """Entries of the archive. What was written again counts again."""
    bytes: int
    """Bytes of data in them, without headers and padding."""
    vanished: int
    """Files and directories that were listed, and gone when their turn came: no error on a living system."""
    rewritten: int
    """Files that changed while they were read, and were whole when they were read again."""
    changed: tuple[Changed, ...]
    changed_count: int
    unreadable: tuple[Unreadable, ...]
    unreadable_count: int
    sockets: tuple[str, ...]
    """Sockets, which tar cannot hold."""
    sockets_count: int
    devices: tuple[str, ...]
    """Device nodes, which no restore makes."""
    devices_count: int
    stripped: tuple[str, ...]
    """Files that would run as their owner or their group (setuid, setgid), and are in the archive without that."""
    stripped_count: int
    unlinked: int
    """Names of files with several names that were written as files of their own, because too many links were open."""


@define
class Notes:
    """Collects what a `TarReport` says."""

    vanished: int = 0
    rewritten: int = 0
    unlinked: int = 0
    changed: list[Changed] = field(factory=list)
    changed_count: int = 0
    unreadable: dict[str, Unreadable] = field(factory=dict)
    """By name: what is looked at twice is named once."""
    unreadable_count: int = 0
    sockets: dict[str, None] = field(factory=dict)
    sockets_count: int = 0
    devices: dict[str, None] = field(factory=dict)
    devices_count: int = 0
    stripped: dict[str, None] = field(factory=dict)
    stripped_count: int = 0

    def note_changed(self, name: bytes, before: os.stat_result, after: os.stat_result) -> None:
        """Note a file that did not hold still."""
        self.changed_count += 1
        if len(self.changed) < NAMES_KEPT:
            sizes = (before.st_size, after.st_size)
            self.changed.append(Changed(display(name), sizes, (before.st_mtime_ns, after.st_mtime_ns)))

    def note_unreadable(self, name: bytes, reason: str) -> None:
        """Note what could not be read."""
        shown = display(name)
        if shown in self.unreadable:
            return
        self.unreadable_count += 1
        if len(self.unreadable) < NAMES_KEPT:
            self.unreadable[shown] = Unreadable(shown, reason)

    def note_socket(self, name: bytes) -> None:
        """Note a socket."""
        self.sockets_count += _named(self.sockets, name)

    def note_device(self, name: bytes) -> None:
        """Note a device node that was left out."""
        self.devices_count += _named(self.devices, name)

    def note_stripped(self, name: bytes) -> None:
        """Note a file that was stored without setuid or setgid."""
        self.stripped_count += _named(self.stripped, name)

    def report(self, *, members: int, bytes_: int) -> TarReport:
        """Return it all."""
        return TarReport(
            members=members,
            bytes=bytes_,
            vanished=self.vanished,
            rewritten=self.rewritten,
            changed=tuple(self.changed),
            changed_count=self.changed_count,
            unreadable=tuple(self.unreadable.values()),
            unreadable_count=self.unreadable_count,
            sockets=tuple(self.sockets),
            sockets_count=self.sockets_count,
            devices=tuple(self.devices),
            devices_count=self.devices_count,
            stripped=tuple(self.stripped),
            stripped_count=self.stripped_count,
            unlinked=self.unlinked,
        )


def _named(names: dict[str, None], name: bytes) -> int:
    """Keep a name, if there is room. Return 1; or 0 for one that is there already, as what is written twice."""
    shown = display(name)
    if shown in names:
        return 0
    if len(names) < NAMES_KEPT:
        names[shown] = None
    return 1
