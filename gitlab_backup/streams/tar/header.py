"""One header of a tar archive, to bytes and back. Pure functions.

Written is POSIX `ustar` with pax records (POSIX.1-2017, `pax`, "pax Interchange Format") where a field is too small.
One thing is different: a name or link target that does not fit and is not ASCII goes into a GNU `L` or `K` header. pax
wants UTF-8, file names are bytes. Of the ways to say that, `hdrcharset=BINARY` makes GNU tar complain of every
member, plain bytes make bsdtar fail, and `L` and `K` were exact with GNU tar 1.34, bsdtar 3.6.2 and Python's
tarfile, in the locales C and C.UTF-8.

Read is what GNU tar, bsdtar and Python write: v7, ustar, pax, GNU (manual, "Basic Tar Format").
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BLOCK = 512
"""Everything in a tar archive is a multiple of this many bytes."""

_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
_NAME = 100
_PREFIX = 155
_USER_NAME = 31
_NANOSECONDS = 1_000_000_000
_LARGEST = 2**63 - 1
_SIGN_BIT = 0x80

REGULAR, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (bytes([n]) for n in b"0123456")


class HeaderError(ValueError):
    """A header is not what it must be. Whoever reads the archive knows where, and says so."""


def padding(size: int) -> bytes:
    """Return the zeros that follow `size` bytes of data."""
    return bytes(-size % BLOCK)


@lru_cache(256)
def _owner(mode: int, uid: int, gid: int) -> tuple[bytes, int]:
    field = b"%07o\0%07o\0%07o\0" % (mode, uid if uid <= _OCTAL_7 else 0, gid if gid <= _OCTAL_7 else 0)
    return field, sum(field)


@lru_cache(1024)
def _tail(  # noqa: PLR0917 - the cache wants them so
    typeflag: bytes, link: bytes, uname: bytes, gname: bytes, device: tuple[int, int], prefix: bytes
) -> tuple[bytes, int]:
    # All that follows the checksum, and its sum with that of a blank checksum field.
    fields = struct.pack("c100s8s32s32s", typeflag, link, b"ustar\x0000", uname, gname)
    fields += b"%07o\0%07o\0" % device + prefix.ljust(_PREFIX + 12, b"\0")
    return fields, sum(fields) + 8 * 32


def _block(
    name: bytes,
    size: int,
    seconds: int,
    owner: tuple[bytes, int],
    tail: tuple[bytes, int],
) -> bytes:
    numbers = b"%011o\0%011o\0" % (size, seconds)
    checksum = sum(name) + sum(numbers) + owner[1] + tail[1]
    return b"%b%b%b%06o\0 %b" % (name.ljust(_NAME, b"\0"), owner[0], numbers, checksum, tail[0])


@lru_cache(64)
def _extension(typeflag: bytes, name: bytes, size: int) -> bytes:
    # The header of pax records or of a long name. It has no owner and no time, so that it says nothing twice.
    return _block(name, size, 0, _owner(0o644, 0, 0), _tail(typeflag, b"", b"", b"", (0, 0), b""))


def _extended(typeflag: bytes, name: bytes, body: bytes) -> bytes:
    return _extension(typeflag, name, len(body)) + body + padding(len(body))


def _record(keyword: bytes, value: bytes) -> bytes:
    # The length of a record counts its own digits.
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, keyword, value)


def _time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), _NANOSECONDS)
    text = b"%d.%09d" % (seconds, fraction)
    return (b"-" if nanoseconds < 0 else b"") + text.rstrip(b"0").rstrip(b".")


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    # ustar keeps 155 bytes before a slash and 100 behind it; neither part may be empty.
    cut = name.rfind(b"/", 0, min(_PREFIX + 1, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > _NAME:
        return None
    return name[:cut], name[cut + 1 :]


def _name(name: bytes, extra: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes]:
    # The name field, the prefix field, and a header before; or a record in `extra`.
    if len(name) <= _NAME:
        return name, b"", b""
    if parts := _split(name):
        return parts[1], parts[0], b""
    if name.isascii():
        extra.append((b"path", name))
        return name[:_NAME], b"", b""
    return name[:_NAME], b"", _extended(b"L", b"././@LongLink", name + b"\0")


def _link(link: bytes, extra: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    if len(link) <= _NAME:
        return link, b""
    if link.isascii():
        extra.append((b"linkpath", link))
        return link[:_NAME], b""
    return link[:_NAME], _extended(b"K", b"././@LongLink", link + b"\0")


def encode(
    name: bytes,
    typeflag: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    mtime_ns: int,
    size: int = 0,
    link: bytes = b"",
    uname: bytes = b"",
    gname: bytes = b"",
    device: tuple[int, int] = (0, 0),
    records: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """Return the header of a member, with all extended headers that it needs before it.

    `size` is that of the data that follows; `mtime_ns` is in nanoseconds since 1970; `records` are further pax
    records. User and group names that are not ASCII or longer than 31 bytes are left out: the numbers stand.
    """
    extra = list(records)
    name, prefix, long_name = _name(name, extra)
    link, long_link = _link(link, extra)
    seconds, fraction = divmod(mtime_ns, _NANOSECONDS)
    if fraction or not 0 <= seconds <= _OCTAL_11:
        extra.append((b"mtime", _time(mtime_ns)))
        seconds = min(max(seconds, 0), _OCTAL_11)
    for keyword, value, largest in ((b"size", size, _OCTAL_11), (b"uid", uid, _OCTAL_7), (b"gid", gid, _OCTAL_7)):
        if value > largest:
            extra.append((keyword, b"%d" % value))
    uname, gname = (n if len(n) <= _USER_NAME and n.isascii() else b"" for n in (uname, gname))
    long = long_name + long_link
    tail = _tail(typeflag, link, uname, gname, device, prefix)
    header = _block(name, size if size <= _OCTAL_11 else 0, seconds, _owner(mode, uid, gid), tail)
    if extra:
        pax = _extended(b"x", b"./PaxHeaders/member", b"".join(_record(k, v) for k, v in extra))
        return pax + long + header
    return long + header


@frozen
class RawHeader:
    """One block of 512 bytes, decoded; what extended headers say of it is not applied yet."""

    name: bytes
    typeflag: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    uname: bytes
    gname: bytes
    device: tuple[int, int]


def decode(block: bytes) -> RawHeader:
    """Return what a header block says. Raises `HeaderError`."""
    stored = number(block[148:156], "checksum")
    if stored != sum(block) - sum(block[148:156]) + 8 * 32:
        # Some old programs added signed bytes.
        signed = sum(struct.unpack("512b", block)) - sum(struct.unpack("8b", block[148:156])) + 8 * 32
        if stored != signed:
            raise HeaderError("wrong checksum of a header")
    name = _text(block[:100])
    posix = block[257:263] == b"ustar\0"
    gnu = block[257:265] == b"ustar  \0"
    if posix and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    typeflag = block[156:157]
    is_device = typeflag in (CHARACTER, BLOCK_DEVICE) and (posix or gnu)
    size = number(block[124:136], "size")
    if size < 0:
        raise HeaderError("negative size")
    return RawHeader(
        name=name,
        typeflag=typeflag,
        mode=number(block[100:108], "mode") & 0o7777,
        uid=number(block[108:116], "uid"),
        gid=number(block[116:124], "gid"),
        size=size,
        mtime=number(block[136:148], "mtime"),
        link=_text(block[157:257]),
        uname=_text(block[265:297]) if posix or gnu else b"",
        gname=_text(block[297:329]) if posix or gnu else b"",
        device=(number(block[329:337], "devmajor"), number(block[337:345], "devminor")) if is_device else (0, 0),
    )


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def number(field: bytes, what: str) -> int:
    """Return a number of a header: octal digits, or GNU's base 256 for what is too large or negative.

    Raises `HeaderError`.
    """
    if field[0] & _SIGN_BIT:
        value = int.from_bytes(field, "big", signed=True)
        # The first bit marks the form and the second is the sign.
        if field[0] == _SIGN_BIT:
            value = int.from_bytes(field[1:], "big")
        elif field[0] != 0xFF:  # noqa: PLR2004
            raise HeaderError(f"{what} is out of range")
        if not -_LARGEST <= value <= _LARGEST:
            raise HeaderError(f"{what} is out of range")
        return value
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not re.fullmatch(rb"[0-7]+", digits):
        raise HeaderError(f"{what} is not a number")
    return int(digits, 8)


def parse_records(body: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Yield the records of a pax header: keyword and value. Raises `HeaderError`."""
    position = 0
    while position < len(body):
        if body[position] == 0 and not body[position:].strip(b"\0"):
            return  # some programs pad with zeros and count them
        found = re.compile(rb"([1-9][0-9]{0,9}) ").match(body, position)
        end = position + int(found[1]) if found else 0
        if not found or not found.end() < end <= len(body) or body[end - 1] != ord("\n"):
            raise HeaderError("malformed pax record")
        keyword, equals, value = body[found.end() : end - 1].partition(b"=")
        if not equals or not keyword:
            raise HeaderError("malformed pax record")
        yield keyword, value
        position = end


def decimal(value: bytes, what: str) -> int:
    """Return a whole number of a pax record, of at most 19 digits. Raises `HeaderError`."""
    if not re.fullmatch(rb"[0-9]{1,19}", value) or int(value) > _LARGEST:
        raise HeaderError(f"{what} is not a number")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """Return a time of a pax record (seconds, with a fraction) in nanoseconds. Raises `HeaderError`."""
    found = re.fullmatch(rb"(-?)([0-9]{1,19})(?:\.([0-9]{0,64}))?", value)
    if not found:
        raise HeaderError("mtime is not a number")
    total = int(found[2]) * _NANOSECONDS + int((found[3] or b"")[:9].ljust(9, b"0"))
    return -total if found[1] else total
