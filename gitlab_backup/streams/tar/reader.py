"""A streaming reader of tar archives that trusts nothing."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from attrs import define, evolve, field, frozen

from ...errors import CorruptStreamError
from .header import (
    BLOCK,
    HeaderError,
    RawHeader,
    decimal,
    decode,
    nanoseconds,
    number,
    parse_records,
)
from .report import display

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_ZEROS = bytes(BLOCK)
_SPARSE_KEYWORD = b"GNU.sparse."


class Kind(Enum):
    """What a member is. The values are tar's type flags."""

    FILE = b"0"
    HARD_LINK = b"1"
    SYMBOLIC_LINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"


_KINDS = {kind.value: kind for kind in Kind} | dict.fromkeys((b"\0", b"7", b"S"), Kind.FILE)


_decode_extension = lru_cache(64)(decode)
"""For the header of pax records, which is the same before most members."""


@frozen(kw_only=True)
class Limits:
    """How much an archive may ask of its reader's memory. What asks for more is corrupt."""

    name: int = 1 << 16
    """Bytes of a name or of a link's target."""
    records: int = 4 << 20
    """Bytes of the pax headers of one member, and of one global pax header."""
    globals_: int = 1000
    """Global pax records."""
    extents: int = 200_000
    """Pieces of data of a sparse file."""


@frozen(kw_only=True)
class Member:
    """One entry of an archive: plain data, as found. `check_name` says whether it is fit to be extracted."""

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    uname: bytes
    gname: bytes
    size: int
    """The size of the file, with its holes, in bytes."""
    mtime_ns: int
    """Nanoseconds since 1970; can be negative."""
    link: bytes
    """Where a link leads: as it is for a symbolic link, a member's name for a hard link."""
    device: tuple[int, int]
    """The major and the minor number of a device node."""
    extents: tuple[tuple[int, int], ...] | None
    """Offset and length of each piece of data of a sparse file; None where the file has no holes."""
    offset: int
    """Where its first header begins in the archive."""

    @property
    def display_name(self) -> str:
        """Its name, for people."""
        return display(self.name)


@define
class _Pending:
    """What extended headers have said of the member to come."""

    offset: int
    records: dict[bytes, bytes] = field(factory=dict)
    sparse_pairs: list[int] = field(factory=list)
    long_name: bytes | None = None
    long_link: bytes | None = None
    size: int = 0


class TarReader:
    """Iterates over the members of an archive. `blocks` has the data of the member at hand; what is left is skipped.

    The iteration ends after the archive's end marker, when everything up to the end of `source` was read. It raises
    `CorruptStreamError` for whatever is not a whole and valid archive, and what `source` raises.
    """

    def __init__(self, source: BinaryIO, *, limits: Limits | None = None) -> None:
        self._source = source
        self._limits = limits or Limits()
        self._chunk = b""
        self._used = 0
        self._before = 0
        self._left = 0
        self._padding = 0
        self._extents: tuple[tuple[int, int], ...] = ()
        self._globals: dict[bytes, bytes] = {}
        self._member: Member | None = None

    @property
    def offset(self) -> int:
        """How many bytes of the archive have been consumed."""
        return self._before + self._used

    def __iter__(self) -> Iterator[Member]:
        while True:
            self._skip()
            try:
                member = self._next()
            except HeaderError as error:
                self._fail(str(error))
            if member is None:
                return
            self._member = member
            yield member

    def blocks(self) -> Iterator[tuple[int, memoryview]]:
        """Yield the data of the member at hand: its offset in the file, and at most 1 MiB. Holes are left out."""
        extents, self._extents = self._extents, ()
        for start, length in extents:
            position, end = start, start + length
            while position < end:
                if self._used == len(self._chunk) and not self._fill():
                    self._fail("it ends too early")
                data = memoryview(self._chunk)[self._used : self._used + end - position]
                self._used += len(data)
                self._left -= len(data)
                yield position, data
                position += len(data)

    def _fail(self, problem: str) -> NoReturn:
        after = f", after member {self._member.display_name[:200]!r}" if self._member else ""
        raise CorruptStreamError(
            f"damaged tar archive: {problem} (at byte {self.offset}{after})",
            hint="Use another backup, or restore what lies before this place with tar.",
        )

    # Bytes

    def _fill(self) -> bool:
        self._before += len(self._chunk)
        self._used = 0
        self._chunk = self._source.read(_CHUNK)
        return bool(self._chunk)

    def _some(self, most: int) -> bytes:
        if self._used == len(self._chunk) and not self._fill():
            self._fail("it ends too early")
        data = self._chunk[self._used : self._used + most]
        self._used += len(data)
        return data

    def _exactly(self, count: int) -> bytes:
        data = self._some(count)
        if len(data) == count:
            return data
        parts = [data]
        missing = count - len(data)
        while missing:
            parts.append(self._some(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _discard(self, count: int) -> None:
        while count:
            if self._used == len(self._chunk) and not self._fill():
                self._fail("it ends too early")
            step = min(count, len(self._chunk) - self._used)
            self._used += step
            count -= step

    def _skip(self) -> None:
        self._discard(self._left + self._padding)
        self._left = self._padding = 0

    def _drain(self) -> None:
        while True:
            rest = self._chunk[self._used :]
            if rest.count(0) != len(rest):
                self._fail("something follows its end")
            self._used = len(self._chunk)
            if not self._fill():
                return

    # Headers

    def _next(self) -> Member | None:
        pending = _Pending(self.offset)
        while True:
            if self._at_end(first=pending.offset == self.offset):
                return None
            block = self._exactly(BLOCK)
            raw = _decode_extension(block) if block[156:157] == b"x" else decode(block)
            if raw.typeflag in (b"x", b"g"):
                self._records(raw, pending)
            elif raw.typeflag in (b"L", b"K"):
                text = self._extended(raw, self._limits.name).removesuffix(b"\0")
                if raw.typeflag == b"L":
                    pending.long_name = text
                else:
                    pending.long_link = text
            else:
                return self._build(raw, block, pending)

    def _at_end(self, *, first: bool) -> bool:
        # Two blocks of zeros are the end; GNU tar and others also accept one at the end of the file.
        if self._used == len(self._chunk) and not self._fill():
            self._fail("it ends too early")
        if self._chunk[self._used] != 0:
            return False
        block = self._exactly(BLOCK)
        if block != _ZEROS:
            # A header with an empty name: put back what was taken.
            self._chunk = block + self._chunk[self._used :]
            self._before = self.offset - BLOCK
            self._used = 0
            return False
        if not first:
            self._fail("an extended header without a member")
        if self._used < len(self._chunk) or self._fill():
            self._drain()
        return True

    def _extended(self, raw: RawHeader, most: int) -> bytes:
        if raw.size > most:
            raise HeaderError(f"an extended header of {raw.size} bytes")
        body = self._exactly(raw.size)
        self._discard(-raw.size % BLOCK)
        return body

    def _records(self, raw: RawHeader, pending: _Pending) -> None:
        body = self._extended(raw, self._limits.records)
        if raw.typeflag == b"g":
            self._globals.update(parse_records(body))
            if len(self._globals) > self._limits.globals_:
                raise HeaderError("too many global pax records")
            return
        pending.size += raw.size
        if pending.size > self._limits.records:
            raise HeaderError("too many pax records")
        for keyword, value in parse_records(body):
            if keyword in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                # Version 0.0 repeats the two, in turns.
                if len(pending.sparse_pairs) % 2 != (keyword == b"GNU.sparse.numbytes"):
                    raise HeaderError("malformed map of a sparse file")
                self._room_for(len(pending.sparse_pairs) // 2)
                pending.sparse_pairs.append(decimal(value, "the map of a sparse file"))
            else:
                pending.records[keyword] = value

    def _room_for(self, extents: int) -> None:
        if extents > self._limits.extents:
            raise HeaderError("too many pieces in a sparse file")

    def _build(self, raw: RawHeader, block: bytes, pending: _Pending) -> Member:
        # An empty value takes a record back.
        records = {k: v for k, v in (self._globals | pending.records).items() if v}
        name = records.get(b"path", raw.name if pending.long_name is None else pending.long_name)
        link = records.get(b"linkpath", raw.link if pending.long_link is None else pending.long_link)
        if raw.typeflag == b"\0" and name.endswith(b"/"):
            raw = evolve(raw, typeflag=Kind.DIRECTORY.value)  # as v7 had it
        kind = _KINDS.get(raw.typeflag)
        if kind is None:
            raise HeaderError(f"unknown type {raw.typeflag!r} of a member")
        stored = decimal(records[b"size"], "size") if b"size" in records else raw.size
        if kind is Kind.FILE:
            self._left, self._padding = stored, -stored % BLOCK
        elif stored:
            raise HeaderError(f"data where a {kind.name.lower().replace('_', ' ')} can have none")
        size, extents = stored, None
        if raw.typeflag == b"S":
            size, extents = self._old_gnu_sparse(block)
        elif any(keyword.startswith(_SPARSE_KEYWORD) for keyword in records) or pending.sparse_pairs:
            name = records.get(b"GNU.sparse.name", name)
            size, extents = self._pax_sparse(kind, records, pending.sparse_pairs)
        for text in (name, link):
            if b"\0" in text or len(text) > self._limits.name:
                raise HeaderError("a name that is too long or has a zero byte in it")
        if extents is not None:
            self._check_extents(extents, size)
        self._extents = extents if extents is not None else ((0, self._left),) if self._left else ()
        return Member(
            name=name,
            kind=kind,
            mode=raw.mode,
            uid=decimal(records[b"uid"], "uid") if b"uid" in records else raw.uid,
            gid=decimal(records[b"gid"], "gid") if b"gid" in records else raw.gid,
            uname=records.get(b"uname", raw.uname),
            gname=records.get(b"gname", raw.gname),
            size=size,
            mtime_ns=nanoseconds(records[b"mtime"]) if b"mtime" in records else raw.mtime * 1_000_000_000,
            link=link if kind in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK) else b"",
            device=raw.device,
            extents=extents,
            offset=pending.offset,
        )

    # Sparse files (GNU tar manual, "Storing Sparse Files")

    def _check_extents(self, extents: tuple[tuple[int, int], ...], size: int) -> None:
        end = 0
        for start, length in extents:
            if start < end:
                raise HeaderError("the pieces of a sparse file overlap")
            end = start + length
        if end > size or sum(length for _, length in extents) != self._left:
            raise HeaderError("the map of a sparse file does not fit its data")

    def _pax_sparse(
        self, kind: Kind, records: dict[bytes, bytes], pairs: list[int]
    ) -> tuple[int, tuple[tuple[int, int], ...]]:
        if kind is not Kind.FILE:
            raise HeaderError("a map of a sparse file where there is no file")
        what = "the map of a sparse file"
        size = decimal(
            records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size", b""), "the size of a sparse file"
        )
        version = records.get(b"GNU.sparse.major", b"0"), records.get(b"GNU.sparse.minor", b"0")
        if version == (b"1", b"0"):
            numbers = self._sparse_map_in_data()
        elif version[0] != b"0":
            raise HeaderError("a sparse file of an unknown version")
        elif b"GNU.sparse.map" in records:
            text = records[b"GNU.sparse.map"]
            self._room_for(text.count(b",") // 2)
            numbers = [decimal(part, what) for part in text.split(b",")]
        else:
            numbers = pairs
        if len(numbers) % 2:
            raise HeaderError("malformed map of a sparse file")
        return size, tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def _sparse_map_in_data(self) -> list[int]:
        # Version 1.0: lines with the number of pieces, then offset and length of each, filled up to a whole block.
        lines: list[bytes] = []
        rest, wanted = b"", 1
        while len(lines) < wanted:
            if self._left < BLOCK:
                raise HeaderError("the map of a sparse file is longer than its data")
            self._left -= BLOCK
            *whole, rest = (rest + self._exactly(BLOCK)).split(b"\n")
            if len(rest) > BLOCK:
                raise HeaderError("malformed map of a sparse file")
            lines += whole
            if wanted == 1 and lines:
                count = decimal(lines[0], "the map of a sparse file")
                self._room_for(count)
                wanted = 1 + 2 * count
        return [decimal(line, "the map of a sparse file") for line in lines[1:wanted]]

    def _old_gnu_sparse(self, block: bytes) -> tuple[int, tuple[tuple[int, int], ...]]:
        # Four pieces in the header itself, 21 in each block that follows it.
        extents: list[tuple[int, int]] = []
        size = number(block[483:495], "the size of a sparse file")
        table, more = block[386:482], block[482]
        while True:
            for at in range(0, len(table), 24):
                if table[at] == 0:
                    break
                start, length = (number(table[i : i + 12], "the map of a sparse file") for i in (at, at + 12))
                if start < 0 or length < 0:
                    raise HeaderError("malformed map of a sparse file")
                extents.append((start, length))
            self._room_for(len(extents))
            if not more:
                return size, tuple(extents)
            block = self._exactly(BLOCK)
            table, more = block[:504], block[504]
