"""A codec: bzip2."""

from __future__ import annotations

import bz2
import io
from typing import TYPE_CHECKING, BinaryIO, cast

from gitlab_backup.errors import CorruptStreamError
from gitlab_backup.streams.codec import check_level

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from gitlab_backup.streams.sink import Buffer, Sink


class Bzip2Codec:
    """Compresses better than gzip, and slower, in the writing thread."""

    name = "bzip2"  # that of the entry point: manifests record it
    suffix = ".bz2"
    levels = range(1, 10)
    default_level = 9

    def writer(self, sink: Sink, *, level: int | None = None, pool: Executor | None = None) -> Sink:  # noqa: ARG002
        """Return a sink that compresses into `sink`."""
        return _Writer(sink, check_level(self, level))

    def reader(self, source: BinaryIO) -> BinaryIO:
        """Return a stream of what was compressed into `source`."""
        return cast("BinaryIO", io.BufferedReader(_Reader(source)))


class _Writer:
    def __init__(self, sink: Sink, level: int) -> None:
        self._sink = sink
        self._compressor = bz2.BZ2Compressor(level)

    def write(self, data: Buffer, /) -> None:
        if compressed := self._compressor.compress(data):
            self._sink.write(compressed)

    def finish(self) -> None:
        self._sink.write(self._compressor.flush())
        self._sink.finish()

    def abort(self) -> None:
        self._sink.abort()


class _Reader(io.RawIOBase):
    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._decompressor = bz2.BZ2Decompressor()
        self._taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:  # type: ignore[override]
        view = memoryview(buffer)
        data = b""
        while not data and not self._decompressor.eof:
            piece = self._source.read(1 << 16) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not piece:
                raise CorruptStreamError(f"ends too early, at byte {self._taken}")
            self._taken += len(piece)
            try:
                data = self._decompressor.decompress(piece, len(view))
            except (OSError, ValueError) as error:
                raise CorruptStreamError(f"is damaged before byte {self._taken}: {error}") from error
        if not data and (self._decompressor.unused_data or self._source.read(1)):
            raise CorruptStreamError(f"goes on after its end, before byte {self._taken + 1}")
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()
