"""Bundles: a header that lists refs, and a pack with the objects.

The format is that of gitformat-bundle(5), and for the pack gitformat-pack(5). `git bundle create` is not used to write
them, because it reads the refs by itself, at another moment than the list of refs that is kept beside.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import CorruptStreamError
from .layout import OBJECT_FORMATS, parse_ref, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .lines import Lines

_WITHOUT_CAPABILITIES: Final = b"# v2 git bundle"
_WITH_CAPABILITIES: Final = b"# v3 git bundle"
_OBJECT_FORMAT: Final = b"@object-format="
_PACK_HEADER: Final = struct.Struct(">4sLL")
_PACK_VERSIONS: Final = (2, 3)


def opening(object_format: str) -> bytes:
    """Return what a bundle begins with. Followed by the refs, a line each, an empty line, and a pack.

    Before the refs come the commits that must be there already, if any: a line each, which begins with a hyphen.
    Followed by an empty line only, it is the bundle of a step in which nothing is new: git fetches from it without
    complaint, where it would refuse an empty file.
    """
    if object_format == "sha1":
        return b"# v2 git bundle\n"
    return b"# v3 git bundle\n" + _OBJECT_FORMAT + object_format.encode() + b"\n"


def is_empty_pack(beginning: bytes) -> bool:
    """Tell by its beginning whether a pack has no objects. What is too short to tell is none."""
    return len(beginning) >= _PACK_HEADER.size and beginning[:4] == b"PACK" and not any(beginning[8:12])


@frozen(kw_only=True)
class Pack:
    """What the pack of a bundle is, read to its end."""

    objects: int
    size: int
    """Bytes, with header and checksum; 0 where the bundle has no pack."""


class BundleReader:
    """Reads a bundle from its beginning to its end, in this order: `start`, `refs`, `pack`. Memory stays flat.

    Each raises `CorruptStreamError`, with the line or the byte, where the bundle is damaged.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._line: bytes | None = None
        self.object_format = "sha1"
        self.prerequisites = 0

    def start(self) -> None:
        """Read the header up to its refs: `object_format` and the number of `prerequisites` are known then."""
        signature = self._lines.line()
        if signature not in {_WITHOUT_CAPABILITIES, _WITH_CAPABILITIES}:
            raise CorruptStreamError(f"does not begin like a bundle: {shown(signature or b'')}")
        self._next()
        while self._line is not None and self._line.startswith(b"@"):
            if signature == _WITHOUT_CAPABILITIES:
                raise CorruptStreamError(f"has a capability, which version 2 has not: {shown(self._line)}")
            self._capability(self._line)
            self._next()
        while self._line is not None and self._line.startswith(b"-"):
            oid = self._line[1:].partition(b" ")[0]
            parse_ref(oid + b" HEAD")
            self._check_length(oid)
            self.prerequisites += 1
            self._next()

    def refs(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield object id and name of every ref."""
        while self._line is not None and self._line:
            try:
                oid, name = parse_ref(self._line)
            except CorruptStreamError as error:
                raise CorruptStreamError(f"line {self._lines.number} of the header {error.message}") from None
            self._check_length(oid)
            yield oid, name
            self._next()
        if self._line is None:
            raise CorruptStreamError(f"is cut short in its header, at byte {self._lines.position}")

    def pack(self, check: Callable[[], None]) -> Pack:
        """Read the pack to its end and compare its checksum; `check` is called between pieces, and may raise."""
        digest = hashlib.new(self.object_format, usedforsecurity=False)
        held, size, offset = b"", 0, self._lines.position
        objects = None
        for piece in self._lines.rest():
            check()
            size += len(piece)
            held += piece
            if objects is None and len(held) >= _PACK_HEADER.size:
                objects = self._pack_header(held, offset)
            # The last bytes are the checksum of all before, so they wait until it is known that they are not the last.
            digest.update(memoryview(held)[: -digest.digest_size])
            held = held[-digest.digest_size :]
        if size == 0:
            return Pack(objects=0, size=0)
        if objects is None or size < _PACK_HEADER.size + digest.digest_size:
            raise CorruptStreamError(f"is cut short in its pack, at byte {offset + size}")
        if held != digest.digest():
            raise CorruptStreamError(
                f"has a pack, from byte {offset} to {offset + size}, whose checksum is wrong: damaged or cut short"
            )
        return Pack(objects=objects, size=size)

    def _pack_header(self, data: bytes, offset: int) -> int:
        magic, version, objects = _PACK_HEADER.unpack_from(data)
        if magic != b"PACK" or version not in _PACK_VERSIONS:
            raise CorruptStreamError(f"has no pack after its header, at byte {offset}: {shown(data[:8])}")
        return int(objects)

    def _capability(self, line: bytes) -> None:
        if not line.startswith(_OBJECT_FORMAT):
            raise CorruptStreamError(f"has an unknown capability: {shown(line)}")
        self.object_format = line.removeprefix(_OBJECT_FORMAT).decode("ascii", "replace")
        if self.object_format not in OBJECT_FORMATS:
            raise CorruptStreamError(f"has an unknown object format: {shown(line)}")

    def _check_length(self, oid: bytes) -> None:
        if len(oid) != OBJECT_FORMATS[self.object_format]:
            raise CorruptStreamError(f"line {self._lines.number} of the header has an object id of another format")

    def _next(self) -> None:
        self._line = self._lines.line()
