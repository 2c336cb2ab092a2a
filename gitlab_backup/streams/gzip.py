"""gzip (RFC 1952), compressed with ISA-L, in blocks that become members of one ordinary stream."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

from .blocks import BlockSink, open_members
from .codec import check_level

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .sink import Sink

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


def _compress(block: bytes, level: int) -> bytes:
    """Return one member."""
    import zlib

    if level and not _worthwhile(block):
        return _stored(block)
    if level in _ISAL_LEVELS:
        from isal.igzip_lib import COMP_GZIP, compress

        return bytes(compress(block, level, COMP_GZIP))
    return zlib.compress(block, level, wbits=_GZIP)


def _stored(block: bytes) -> bytes:
    """Return a member with a block as it is. As zlib's level 0, but with the checksum of ISA-L, which is far faster."""
    from isal.isal_zlib import crc32

    view = memoryview(block)
    pieces: list[bytes | memoryview] = [_HEADER]
    for start in range(0, len(block), _STORED):
        piece = view[start : start + _STORED]
        last = start + len(piece) == len(block)
        pieces += (struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF), piece)
    pieces.append(struct.pack("<II", crc32(block), len(block)))
    return b"".join(pieces)


def _worthwhile(block: bytes) -> bool:
    """Return whether a block seems to compress, by samples that are spread over it."""
    from isal.igzip_lib import compress

    if len(block) <= _SAMPLES * _SAMPLE_SIZE:
        return True
    step = len(block) // _SAMPLES
    sample = b"".join(block[start : start + _SAMPLE_SIZE] for start in range(0, step * _SAMPLES, step))
    return len(compress(sample, 1)) < _INCOMPRESSIBLE * len(sample)
