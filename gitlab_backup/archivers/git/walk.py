"""What refs lead to in one small pack, counted without git: to save a process for each of many repositories.

It proves what `git rev-list --objects --count` does, and a little more: every tag, commit and tree that refs lead to is
read, and has the id that it is called by; every blob is in the index. Whatever is large, damaged, missing or unusual is
left to git. The formats are those of gitformat-pack(5), and of git's `Documentation/user-manual.txt` for the objects.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from attrs import define, field

from ...streams.system import system
from .layout import OBJECT_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .sole_pack import SolePack

_MOST_OBJECTS: Final = 500
"""Of a pack. Reading so many takes Python as long as starting git does."""
_LARGEST: Final = 1 << 20
"""Bytes of an object that is read."""
_MOST_BYTES: Final = 8 << 20
"""Of all objects that are read. They are kept in memory."""
_DEEPEST: Final = 60
"""How many deltas may build upon each other; git makes 50."""
_INDEX: Final = b"\xfftOc\0\0\0\2"
_FAN_OUT: Final = 256 * 4
_KINDS: Final = {1: b"commit", 2: b"tree", 3: b"blob", 4: b"tag"}
_OFFSET_DELTA, _ID_DELTA = 6, 7
_ENTRY: Final = {size: re.compile(rb"([0-7]+) ([^\0]+)\0(.{%d})" % size, re.DOTALL) for size in (20, 32)}
_COMMIT: Final = re.compile(rb"tree ([0-9a-f]+)\n((?:parent [0-9a-f]+\n)*+)author ")
_TAG: Final = re.compile(rb"object ([0-9a-f]+)\ntype (commit|tree|blob|tag)\ntag ")
_FORMAT_BITS, _DIRECTORY, _SUBMODULE = 0o170000, 0o040000, 0o160000


class _AskGitError(Exception):
    """There is something that is not plain."""


def count_reachable(pack: SolePack, object_format: str, oids: Iterable[bytes]) -> int | None:
    """Return how many objects of `pack` are led to by those of `oids` (pieces of lines), which count as well.

    None where git has to be asked.
    """
    if pack.objects > _MOST_OBJECTS:
        return None
    with suppress(_AskGitError, OSError, IndexError, ValueError, zlib.error, struct.error):
        walk = _Walk.of(pack, object_format)
        return walk.count([bytes.fromhex(line.decode()) for piece in oids for line in piece.split()])
    return None


@define
class _Walk:
    """A walk from object to object."""

    pack: SolePack
    object_format: str
    offsets: dict[bytes, int]
    """Where each object begins, by its id."""
    ends: dict[int, int]
    """Where each ends, by where it begins."""
    read: dict[int, tuple[bytes, bytes]] = field(factory=dict)
    """Kind and content of objects, by where they begin: others may be deltas upon them."""
    room: int = field(factory=lambda: _MOST_BYTES)
    """How many more bytes may be read."""

    @classmethod
    def of(cls, pack: SolePack, object_format: str) -> _Walk:
        size, count = OBJECT_FORMATS[object_format] // 2, pack.objects
        ids = len(_INDEX) + _FAN_OUT
        begins = ids + count * (size + 4)  # a checksum of 4 bytes for each comes between
        content = _content(pack.index, begins + count * 4 + 2 * size)
        if not content.startswith(_INDEX) or content[-2 * size : -size] != pack.read(pack.size - size, size):
            raise _AskGitError
        offsets = struct.unpack_from(f">{count}L", content, begins)
        order = [*sorted(offsets), pack.size - size]
        names = (content[at : at + size] for at in range(ids, ids + count * size, size))
        return cls(pack, object_format, dict(zip(names, offsets, strict=True)), dict(pairwise(order)))

    def count(self, start: list[bytes]) -> int:
        seen: dict[bytes, bytes] = {}
        ahead: list[tuple[bytes, bytes | None]] = [(oid, None) for oid in start]
        while ahead:
            oid, expected = ahead.pop()
            if oid in seen:
                if expected not in {None, seen[oid]}:
                    raise _AskGitError
                continue
            if oid not in self.offsets:
                raise _AskGitError
            if expected == b"blob":
                seen[oid] = expected
                continue
            kind, content = self._object(self.offsets[oid])
            named = hashlib.new(self.object_format, b"%s %d\0" % (kind, len(content)), usedforsecurity=False)
            named.update(content)
            if expected not in {None, kind} or named.digest() != oid:
                raise _AskGitError
            seen[oid] = kind
            ahead += _links(kind, content, len(oid))
        return len(seen)

    def _object(self, begin: int, deltas: int = 0) -> tuple[bytes, bytes]:
        """Return kind and content of the object that begins there."""
        if begin in self.read:
            return self.read[begin]
        length = self.ends[begin] - begin
        if length > _LARGEST or deltas > _DEEPEST:
            raise _AskGitError
        data = self.pack.read(begin, length)
        number, size, at = _header(data)
        base = None
        if number == _OFFSET_DELTA:
            back, at = _distance(data, at)
            base = begin - back
        elif number == _ID_DELTA:
            end = at + OBJECT_FORMATS[self.object_format] // 2
            base = self.offsets.get(data[at:end], -1)
            at = end
        content = _inflated(data[at:], size)
        if base is None:
            if number not in _KINDS:
                raise _AskGitError
            found = _KINDS[number], content
        elif base in self.ends:
            kind, before = self._object(base, deltas + 1)
            found = kind, _applied(content, before)
        else:
            raise _AskGitError
        self.room -= len(found[1])
        if self.room < 0:
            raise _AskGitError
        self.read[begin] = found
        return found


def _header(data: bytes) -> tuple[int, int, int]:
    """Return the kind of an object in a pack, its size, and where its header ends."""
    number, size, at, shift = data[0] >> 4 & 7, data[0] & 15, 1, 4
    while data[at - 1] & 0x80:
        size |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
    return number, size, at


def _distance(data: bytes, at: int) -> tuple[int, int]:
    """Return how far before a delta its base begins, and where that number ends."""
    back = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        back = back + 1 << 7 | data[at] & 0x7F
    return back, at + 1


def _links(kind: bytes, content: bytes, size: int) -> list[tuple[bytes, bytes | None]]:
    """Return the objects that one leads to, and what they must be."""
    if kind == b"tree":
        entries = _ENTRY[size].findall(content)
        if sum(len(mode) + len(name) + size + 2 for mode, name, _ in entries) != len(content):
            raise _AskGitError
        kinds = [(int(mode, 8) & _FORMAT_BITS, oid) for mode, _, oid in entries]
        return [(oid, b"tree" if mode == _DIRECTORY else b"blob") for mode, oid in kinds if mode != _SUBMODULE]
    if kind == b"commit":
        if (commit := _COMMIT.match(content)) is None:
            raise _AskGitError
        parents = commit[2].split()[1::2]
        return [(_id(commit[1], size), b"tree"), *((_id(parent, size), b"commit") for parent in parents)]
    if kind == b"tag":
        if (tag := _TAG.match(content)) is None:
            raise _AskGitError
        return [(_id(tag[1], size), tag[2])]
    return []


def _id(digits: bytes, size: int) -> bytes:
    oid = bytes.fromhex(digits.decode())
    if len(oid) != size:
        raise _AskGitError
    return oid


def _inflated(data: bytes, size: int) -> bytes:
    if size > _LARGEST:
        raise _AskGitError
    stream = zlib.decompressobj()
    content = stream.decompress(data, size + 1)
    if len(content) != size or not stream.eof:
        raise _AskGitError
    return content


def _applied(delta: bytes, base: bytes) -> bytes:
    """Return what a delta makes of its base."""
    source, at = _number(delta, 0)
    size, at = _number(delta, at)
    if source != len(base) or size > _LARGEST:
        raise _AskGitError
    parts: list[bytes] = []
    made = 0
    while at < len(delta):
        code = delta[at]
        at += 1
        if code & 0x80:
            offset, at = _sparse(delta, at, code & 0x0F)
            wanted, at = _sparse(delta, at, code >> 4 & 0x07)
            wanted = wanted or 0x10000
            part = base[offset : offset + wanted]
        else:
            part, wanted = delta[at : at + code], code
            at += code
        made += wanted
        if not wanted or len(part) != wanted or made > size:
            raise _AskGitError
        parts.append(part)
    if made != size:
        raise _AskGitError
    return b"".join(parts)


def _number(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return number, at


def _sparse(data: bytes, at: int, present: int) -> tuple[int, int]:
    """Read a number of which only the bytes are there whose bits are set in `present`."""
    number = shift = 0
    while present:
        if present & 1:
            number |= data[at] << shift
            at += 1
        present >>= 1
        shift += 8
    return number, at


def _content(path: str, size: int) -> bytes:
    """Return a file that has so many bytes."""
    fd = system().open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = system().read(fd, size + 1)
    finally:
        system().close(fd)
    if len(content) != size:
        raise _AskGitError
    return content
