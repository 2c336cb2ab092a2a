"""Puts headers and data together to a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import StreamError
from .header import BLOCK, padding

if TYPE_CHECKING:
    from ..sink import Buffer, Sink

CHUNK = 1 << 20
"""How many bytes are read from a file, and handed on, at a time."""

_LARGE = CHUNK // 4
_RECORD = 20 * BLOCK
"""What tar fills the end of an archive up to (GNU tar manual, "The Blocking Factor of an Archive")."""


class TarWriter:
    """Writes an archive into a sink. Small members are gathered; large data goes on without being copied.

    After `add` with the header of a member comes its data (`data`, as often as needed), then `end_data`. `finish`
    finishes the sink, `abort` aborts it. Raises what the sink raises, an `OSError` of it as `StreamError`.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._parts: list[Buffer] = []
        self._gathered = 0
        self._written = 0
        self._data = 0
        self.members = 0
        """Members so far."""
        self.bytes = 0
        """Bytes of data so far, without headers and padding."""

    def add(self, header: bytes, body: bytes = b"") -> None:
        """Write a header, and all of the data of a small member."""
        self.members += 1
        self._put(header)
        if body:
            self.bytes += len(body)
            self._put(body)
            if fill := padding(len(body)):
                self._put(fill)

    def data(self, data: bytes) -> None:
        """Write a piece of a member's data."""
        self._data += len(data)
        self._put(data)

    def end_data(self) -> None:
        """Fill the data of a member up to a whole block."""
        self.bytes += self._data
        if fill := padding(self._data):
            self._put(fill)
        self._data = 0

    def finish(self) -> None:
        """Write the end of the archive, and finish the sink."""
        end = 2 * BLOCK
        self._put(bytes(end + -(self._written + self._gathered + end) % _RECORD))
        self._flush()
        self._sink.finish()

    def abort(self) -> None:
        """Give the archive up."""
        self._parts.clear()
        self._sink.abort()

    def _put(self, data: Buffer) -> None:
        if len(data) >= _LARGE:
            self._flush()
            self._written += len(data)
            self._hand_on(data)
            return
        self._parts.append(data)
        self._gathered += len(data)
        if self._gathered >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            joined = b"".join(self._parts)
            self._parts.clear()
            self._written += self._gathered
            self._gathered = 0
            self._hand_on(joined)

    def _hand_on(self, data: Buffer) -> None:
        try:
            self._sink.write(data)
        except OSError as error:  # must not pass for an error of the file that is being read
            raise StreamError(f"cannot write the archive: {error.strerror or error}") from error
