"""Compression in blocks: each in a thread of its own, written in order, never more than a few in memory."""

from __future__ import annotations

import io
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from ..errors import CorruptStreamError, StreamError
from .profile import COMPRESSING, DECOMPRESSING, Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor, Future

    from .sink import Buffer, Sink

BLOCK_SIZE: Final = 1 << 20
"""Bytes of a block before compression. Smaller ones compress worse: each begins without a history."""
_AHEAD: Final = 8
"""How many blocks of one stream may be on their way."""
_READ_SIZE: Final = 1 << 18


class BlockSink:
    """Cuts a stream into blocks, compresses them in the threads of a pool, and writes them down in order.

    `compress` gets the parts that a block lies in, as they came: to put them together is its matter, and its thread's.
    """

    def __init__(self, sink: Sink, compress: Callable[[Sequence[memoryview]], bytes], pool: Executor | None) -> None:
        self._sink = sink
        self._compress = compress
        self._pool = pool
        self._parts: list[memoryview] = []
        self._gathered = 0
        self._pending: deque[Future[bytes]] = deque()
        self._any = False
        self._ended = False

    def write(self, data: Buffer, /) -> None:
        """Take `data`; write down what is compressed meanwhile."""
        view = memoryview(data).cast("B")
        while view:
            part = view[: BLOCK_SIZE - self._gathered]
            view = view[len(part) :]
            self._parts.append(part)
            self._gathered += len(part)
            if self._gathered == BLOCK_SIZE:
                self._start_block()

    def finish(self) -> None:
        """Write down all that is left. A stream without data becomes one empty block: it has to be valid too."""
        if self._ended:
            return
        if self._parts or not self._any:
            self._start_block()
        while self._pending:
            self._write_next()
        self._ended = True
        self._sink.finish()

    def abort(self) -> None:
        """Give up what is not written."""
        self._ended = True
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        self._sink.abort()

    def _start_block(self) -> None:
        self._any = True
        parts, self._parts, self._gathered = self._parts, [], 0
        if self._pool is None:
            self._sink.write(_outcome(partial(self._compress_parts, parts)))
            return
        # What is ready goes down now; what is not may wait, until too much is on its way.
        while self._pending and (len(self._pending) >= _AHEAD or self._pending[0].done()):
            self._write_next()
        self._pending.append(self._pool.submit(self._compress_parts, parts))

    def _compress_parts(self, parts: list[memoryview]) -> bytes:
        with Clock(COMPRESSING) as clock:
            clock.bytes = sum(map(len, parts))
            return self._compress(parts)

    def _write_next(self) -> None:
        self._sink.write(_outcome(self._pending.popleft().result))


def _outcome(compressed: Callable[[], bytes]) -> bytes:
    try:
        return compressed()
    except StreamError:
        raise
    except Exception as error:
        # What the compressors raise has no common type.
        raise StreamError(f"a block could not be compressed: {error}") from error


class BoundedDecompressor(Protocol):
    """One member (gzip) or frame (zstd) of a compressed stream. As `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """Whether its end was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more going in."""

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return what `data` becomes, but no more than `max_length` bytes of it at a time, or little more."""


class MemberReader(io.RawIOBase):
    """Reads a stream of compressed members, one after the other, with bounded memory."""

    def __init__(
        self, source: BinaryIO, open_member: Callable[[], BoundedDecompressor], what: str, *, padding: bool
    ) -> None:
        self._source = source
        self._open_member = open_member
        self._what = what
        self._padding = padding
        self._member: BoundedDecompressor | None = None
        self._input = b""
        self._offset = 0
        self._output = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Buffer, /) -> int:  # type: ignore[override]
        """Fill `buffer` with what comes next; 0 at the end. Raises `CorruptStreamError`."""
        while not self._output and not self._ended:
            self._output = memoryview(self._decompress())
        size = min(len(buffer), len(self._output))
        memoryview(buffer)[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def close(self) -> None:
        """Close the source too."""
        if not self.closed:
            self._source.close()
        super().close()

    def _decompress(self) -> bytes:
        if self._member is None:
            if not self._fill():
                self._ended = True
                if self._offset == 0:
                    raise CorruptStreamError(f"the {self._what} stream is empty")
                return b""
            if self._padding and self._offset - len(self._input) > 0 and not self._input.strip(b"\0"):
                # gzip(1) passes over zeros after the end, which some tapes and file systems leave.
                self._input = b""
                return b""
            self._member = self._open_member()
        elif self._member.needs_input and not self._fill():
            raise CorruptStreamError(f"the {self._what} stream ends too early, at byte {self._offset}")
        return self._feed(self._member)

    def _feed(self, member: BoundedDecompressor) -> bytes:
        data, self._input = self._input if member.needs_input else b"", b"" if member.needs_input else self._input
        try:
            with Clock(DECOMPRESSING) as clock:
                output = member.decompress(data, BLOCK_SIZE)
                clock.bytes = len(output)
        except Exception as error:
            # What the decompressors raise has no common type; all of it says that the data are not what they should be.
            place = f"between bytes {self._offset - len(data)} and {self._offset}"
            raise CorruptStreamError(f"the {self._what} stream is damaged {place}: {error}") from error
        if member.eof:
            self._input = member.unused_data
            self._member = None
        return output

    def _fill(self) -> bool:
        """Have some input. Return whether there is any."""
        if not self._input:
            self._input = self._source.read(_READ_SIZE)
            self._offset += len(self._input)
        return bool(self._input)


def open_members(
    source: BinaryIO, open_member: Callable[[], BoundedDecompressor], what: str, *, padding: bool = False
) -> BinaryIO:
    """Return a readable stream of what the members in `source` hold. Closing it closes `source`.

    With `padding`, zeros after the end are passed over.
    """
    return cast("BinaryIO", io.BufferedReader(MemberReader(source, open_member, what, padding=padding), BLOCK_SIZE))
