"""gzip (RFC 1952), compressed with ISA-L, in blocks that become members of one ordinary stream."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

from .blocks import BlockSink, open_members
from .codec import check_level

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from .sink import Buffer, Sink

_ISAL_LEVELS: Final = range(4)
"""The levels of ISA-L: 1 compresses as `gzip -1`, at an eighth of the time. Higher ones are zlib's."""
_SAMPLES: Final = 16
_SAMPLE_SIZE: Final = 1 << 10
_INCOMPRESSIBLE: Final = 0.97
"""What the samples of a block must shrink to, at the least, to make it worth compressing."""
_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Of a member without name and time, from no known system (RFC 1952, 2.3)."""
_STORED: Final = 0xFFFF
"""Bytes that one stored block of a member can have (RFC 1951, 3.2.4)."""
_LAST: Final = b"\x01\x00\x00\xff\xff"
"""An empty stored block, the last of a member."""
_GZIP: Final = 31
"""zlib's window bits for a gzip header and the largest window (zlib manual, deflateInit2)."""


class GzipCodec:
    """What `gunzip`, `zcat`, `pigz -d` and every other reader of gzip reads.

    A stream is a sequence of members, which the format allows (RFC 1952, 2.2) and all of them read as one. A block
    that does not compress (most artifacts, images and LFS objects) is stored as it is. No name and no time is kept, so
    that the same data give the same bytes.
    """

    name = "gzip"
    suffix = ".gz"
    levels = range(10)
    default_level = 1

    def writer(self, sink: Sink, *, level: int | None = None, pool: Executor | None = None) -> Sink:
        """Return a sink that compresses into `sink`: levels 0 (fastest) to 3 by ISA-L, 4 to 9 by zlib."""
        return BlockSink(sink, partial(_compress, level=check_level(self, level)), pool)

    def reader(self, source: BinaryIO) -> BinaryIO:
        """Return what is compressed in `source`. Zeros after its end are passed over, as gzip(1) does.

        A stream that was cut exactly between two members cannot be told from a whole one: only what is inside (the end
        of an archive, the closing line of a dump), or a digest, shows it.
        """
        from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor

        return open_members(source, partial(IgzipDecompressor, flag=DECOMP_GZIP), "gzip", padding=True)


def _compress(parts: Sequence[memoryview], level: int) -> bytes:
    """Return one member, of a block that lies in `parts`."""
    import zlib

    if level and not _worthwhile(parts):
        return _stored(parts)
    block = b"".join(parts)
    if level in _ISAL_LEVELS:
        from isal.igzip_lib import COMP_GZIP, compress

        return compress(block, level, COMP_GZIP)
    return zlib.compress(block, level, wbits=_GZIP)


def _stored(parts: Sequence[memoryview]) -> bytes:
    """Return a member with a block as it is. As zlib's level 0, but with the checksum of ISA-L, which is far faster."""
    from isal.isal_zlib import crc32

    pieces: list[Buffer] = [_HEADER]
    checksum = size = 0
    for part in parts:
        checksum = crc32(part, checksum)
        size += len(part)
        for start in range(0, len(part), _STORED):
            piece = part[start : start + _STORED]
            pieces += (struct.pack("<BHH", 0, len(piece), len(piece) ^ 0xFFFF), piece)
    pieces += (_LAST, struct.pack("<II", checksum, size))
    return b"".join(pieces)


def _worthwhile(parts: Sequence[memoryview]) -> bool:
    """Return whether a block seems to compress, by samples that are spread over it."""
    from isal.igzip_lib import compress

    size = sum(map(len, parts))
    if size <= _SAMPLES * _SAMPLE_SIZE:
        return True
    step = size // _SAMPLES
    samples = []
    start = 0
    for part in parts:
        samples += [part[at : at + _SAMPLE_SIZE] for at in range(start, len(part), step)]
        start = (start - len(part)) % step
    sample = b"".join(samples)
    return len(compress(sample, 1)) < _INCOMPRESSIBLE * len(sample)
