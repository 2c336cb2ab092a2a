"""Files with holes: where their data lies, and how an archive says so (GNU tar manual, "PAX Format, Version 1.0")."""

from __future__ import annotations

import errno
import os

from .header import padding

_PIECES = 100_000
"""More pieces than this are not worth a map (and half of what the reader takes)."""
_WORTH = 65_536
"""Bytes of holes below which a file is written as if it had none."""


def data_pieces(fd: int, status: os.stat_result) -> list[tuple[int, int]] | None:
    """Return offset and length of each piece of data of a file, or None where it is not worth while.

    A hole at the end is an empty piece at the end, as GNU tar wants it. Fewer blocks than bytes can also mean
    compression by the file system, so the file itself is asked.
    """
    size = status.st_size
    if status.st_blocks * 512 + _WORTH > size:
        return None
    pieces: list[tuple[int, int]] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data up to the end
                break
            return None
        if start >= size:
            break
        pieces.append((start, position - start))
        if len(pieces) > _PIECES:
            return None
    if sum(length for _, length in pieces) + _WORTH > size:
        return None
    if not pieces or sum(pieces[-1]) < size:
        pieces.append((size, 0))
    return pieces


def map_of(pieces: list[tuple[int, int]], size: int) -> tuple[bytes, tuple[tuple[bytes, bytes], ...]]:
    """Return the map that precedes the data of a sparse file of `size` bytes, and its pax records.

    GNU tar also writes `GNU.sparse.name`, so that a program that does not know of maps extracts under another
    name. GNU tar, bsdtar and Python need it not, and without it a name is written one way only.
    """
    text = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % piece for piece in pieces)
    records = (
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"%d" % size),
    )
    return text + padding(len(text)), records
