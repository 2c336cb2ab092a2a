"""Lines, and what comes after them, from a stream that may be long and may be damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

from ...errors import CorruptStreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE: Final = 1 << 18

LONGEST: Final = 1 << 16
"""Bytes of the longest line: far above the longest name of a ref (PATH_MAX, 4096), and a bound on memory."""


class Lines:
    """Reads `source` line by line, in large pieces; `rest` gives what has not been read so."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._buffer = b""
        self._at = 0
        self.number = 0
        """The number of the line that was read last, counted from 1."""
        self.position = 0
        """Bytes that have been handed out."""

    def line(self) -> bytes | None:
        """Return the next line without its end, or None at the end of the stream.

        Raises `CorruptStreamError` where the stream ends within a line, or a line is too long to be one.
        """
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > LONGEST:
                raise CorruptStreamError(f"line {self.number + 1} does not end")
            piece = self._source.read(_PIECE)
            if not piece:
                if self._at == len(self._buffer):
                    return None
                raise CorruptStreamError(f"is cut short: line {self.number + 1} does not end")
            self._buffer = self._buffer[self._at :] + piece
            self._at = 0
        line = self._buffer[self._at : end]
        self.position += len(line) + 1
        self._at = end + 1
        self.number += 1
        return line

    def rest(self) -> Iterator[bytes]:
        """Yield everything that follows, in pieces."""
        piece = self._buffer[self._at :]
        self._buffer, self._at = b"", 0
        while piece or (piece := self._source.read(_PIECE)):
            self.position += len(piece)
            yield piece
            piece = b""
