"""The one way that bytes flow: into a `Sink`, which hands them on to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes on their way down. Whoever hands them over must not change them afterwards."""


class Sink(Protocol):
    """Where bytes go. After `finish` or `abort` nothing more is written; `abort` after either does nothing."""

    def write(self, data: Buffer, /) -> None:
        """Take all of `data`, or raise. May block: that is the back-pressure."""

    def finish(self) -> None:
        """Complete the stream: when this returns, all of it has been handed on, down to the last stage."""

    def abort(self) -> None:
        """Give the stream up and release what it holds. Never raises."""


class CountingSink:
    """Hands everything on, and tells `count` the number of bytes of each write."""

    def __init__(self, sink: Sink, count: Callable[[int], None]) -> None:
        self._sink = sink
        self._count = count

    def write(self, data: Buffer, /) -> None:
        """Hand `data` on, then count it."""
        self._sink.write(data)
        self._count(len(data))

    def finish(self) -> None:
        """Finish what is below."""
        self._sink.finish()

    def abort(self) -> None:
        """Abort what is below."""
        self._sink.abort()
