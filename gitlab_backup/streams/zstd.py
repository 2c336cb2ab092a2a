"""Zstandard (RFC 8878), in blocks that become frames of one ordinary stream."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

from .blocks import BlockSink, open_members
from .codec import check_level

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from .sink import Buffer, Sink

_PIECE: Final = 1 << 11
"""Bytes that are decompressed at once. The library cannot bound what comes out (32 KiB of each of them, when a block of
128 KiB takes four), so what goes in is kept small."""
_MAX_WINDOW: Final = 1 << 27
"""Bytes of history that a frame may ask for: what `zstd -d` accepts (zstd manual, `--memory`)."""


class ZstdCodec:
    """What `zstd -d` reads: frames with a checksum each."""

    name = "zstd"
    suffix = ".zst"
    levels = range(1, 20)
    default_level = 3

    def writer(self, sink: Sink, *, level: int | None = None, pool: Executor | None = None) -> Sink:
        """Return a sink that compresses into `sink`, at level 1 (fastest) to 19."""
        return BlockSink(sink, partial(_compress, level=check_level(self, level)), pool)

    def reader(self, source: BinaryIO) -> BinaryIO:
        """Return what is compressed in `source`."""
        return open_members(source, _Frame, "zstd")


def _compress(parts: Iterable[Buffer], level: int) -> bytes:
    """Return one frame, of a block that lies in `parts`.

    A compressor of its own for each: they are not made for several threads.
    """
    import zstandard

    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(b"".join(parts))


class _Frame:
    """One frame while it is decompressed."""

    def __init__(self) -> None:
        import zstandard

        self._object = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._input = b""

    @property
    def eof(self) -> bool:
        return self._object.eof

    @property
    def needs_input(self) -> bool:
        return not self._input

    @property
    def unused_data(self) -> bytes:
        return self._object.unused_data + self._input

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Decompress until there is enough, or no input any more."""
        self._input += data
        pieces, size = [], 0
        while self._input and size < max_length and not self._object.eof:
            piece, self._input = self._input[:_PIECE], self._input[_PIECE:]
            pieces.append(self._object.decompress(piece))
            size += len(pieces[-1])
        return b"".join(pieces)
