r"""`SHA256SUMS`: a digest of every file of a backup, in the format of `sha256sum` of GNU coreutils.

The format is that of the coreutils manual, section "cksum output modes" (untagged): `<64 hexadecimal digits>`,
a space, a space (text) or `*` (binary), the name. Where a name has a backslash, a newline or a carriage return,
these are written `\\`, `\n` and `\r`, and a backslash begins the line. (Before 9.0, coreutils left a carriage
return as it was; that is read too.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from attrs import field, frozen

from .documents import bounded, read_bytes
from .errors import ChecksumsError

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "SHA256SUMS"

MAX_SIZE = 1 << 30
"""Bytes of a checksum file that are read at most: some million files."""

_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_DIGEST = re.compile("[0-9a-f]{64}")
_NOT_PLAIN = re.compile(r"/\.{0,2}/")
_SPECIAL = re.compile(rb"[\\\n\r]")
_ESCAPE = re.compile(rb"\\(.?)", re.DOTALL)
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_UNESCAPES = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


def _name_problem(name: str) -> str | None:
    if "\0" in name:
        return "has a NUL"
    if name.startswith("/"):
        return "is absolute"
    if _NOT_PLAIN.search(f"/{name}/"):
        return "is not the plain relative path of a file"
    return None


def _digests(digests: Mapping[str, str]) -> Mapping[str, str]:
    for name, digest in digests.items():
        if problem := _name_problem(name):
            raise ValueError(f"{name!r} {problem}")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{name!r}: {digest!r} is not a SHA-256 in lower case")
    return MappingProxyType({name: digests[name] for name in sorted(digests, key=os.fsencode)})


@frozen(eq=False)
class Checksums(Mapping[str, str]):
    """The SHA-256 of files, by their names relative to the backup, sorted by the bytes of the names.

    Names that are not UTF-8 have surrogate escapes, as `os.fsdecode` makes them; digests are in lower case.
    Raises `ValueError` for a name that leaves the backup, or a digest that is none.
    """

    FILE_NAME: ClassVar[str] = FILE_NAME

    digests: Mapping[str, str] = field(converter=_digests)

    def __getitem__(self, name: str) -> str:
        return self.digests[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)

    @classmethod
    def read(cls, directory: Path) -> Checksums | None:
        """Read the checksums of the backup in `directory`; None where it has none, as those of GitLab's own tools.

        Raises `ChecksumsError`.
        """
        path = directory / FILE_NAME
        if not os.path.lexists(path):
            return None
        return cls.from_bytes(read_bytes(path, limit=MAX_SIZE, error=ChecksumsError), source=path)

    @classmethod
    def from_bytes(cls, data: bytes, *, source: Path | str) -> Checksums:
        """Read a checksum file; `source` is the name that errors call it by.

        A leading `./` of a name is dropped. Raises `ChecksumsError` with everything that is wrong in it.
        """
        digests: dict[str, str] = {}
        problems: list[str] = []
        lines = data.split(b"\n")
        if lines.pop():
            problems.append(f"line {len(lines) + 1}: is cut short, it has no newline")
        for number, line in enumerate(lines, start=1):
            try:
                name, digest = _parse(line)
            except ValueError as error:
                problems.append(f"line {number}: {error}")
                continue
            if name in digests:
                problems.append(f"line {number}: {name!r} appears more than once")
            digests[name] = digest
        if problems:
            raise ChecksumsError(
                f"{source} cannot be understood",
                problems=bounded(problems),
                hint="The file is damaged: it cannot vouch for the others. Use another backup.",
            )
        return cls(digests)

    def to_bytes(self) -> bytes:
        """Return the file as `sha256sum` would write it in the directory of the backup."""
        return b"".join(_format(name, digest) for name, digest in self.digests.items())


def _parse(line: bytes) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("is not `<SHA-256>  <name>`")
    escaped, digest, raw = match.groups()
    if escaped:
        raw = _ESCAPE.sub(_unescape, raw)
    while raw.startswith(b"./"):
        raw = raw[2:]
    name = os.fsdecode(raw)
    if problem := _name_problem(name):
        raise ValueError(f"{name!r} {problem}")
    return name, digest.decode().lower()


def _unescape(match: re.Match[bytes]) -> bytes:
    try:
        return _UNESCAPES[match[1]]
    except KeyError:
        raise ValueError("has an escape in its name that does not exist") from None


def _format(name: str, digest: str) -> bytes:
    raw = os.fsencode(name)
    if raw == b"-":
        raw = b"./-"  # `sha256sum` takes a lone hyphen for its standard input
    escaped = _SPECIAL.sub(lambda match: _ESCAPES[match[0]], raw)
    mark = b"\\" if escaped != raw else b""
    return b"%s%s  %s\n" % (mark, digest.encode(), escaped)
