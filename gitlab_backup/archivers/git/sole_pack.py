"""A repository of which all objects are in one pack: that pack is what its bundle needs, and need not be made again.

What may lie in a directory of objects is said by gitrepository-layout(5), and the format of a pack by
gitformat-pack(5). Whatever else is found there, git is asked to make a pack.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from attrs import frozen

from ...errors import ComponentError
from ...streams.system import system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...streams.sink import Sink

_PIECE: Final = 1 << 20
_HEADER: Final = struct.Struct(">4sLL")
_VERSION: Final = 2
"""Of a pack: the only one that git writes."""
_BESIDE: Final = frozenset({".idx", ".rev", ".bitmap"})
"""What may lie beside a pack. Not a mark that says that objects are elsewhere (`.promisor`), or all out of reach
(`.mtimes`), or that others are at work (`.keep`)."""
_INFO: Final = frozenset({"packs", "commit-graph", "commit-graphs"})
"""What may lie in `objects/info`. Not `alternates`."""
_FAN_OUT: Final = frozenset(f"{number:02x}" for number in range(256))


@frozen
class SolePack:
    """The pack, open: it can be read to its end, also when housekeeping has replaced it."""

    name: str
    """Its place in the repository."""
    index: str
    """The path of its index."""
    objects: int
    """How many objects are in it, by its header."""
    size: int
    _fd: int

    def read(self, offset: int, size: int) -> bytes:
        """Return some of its bytes: fewer, where it ends before. Raises `OSError`."""
        return system().pread(self._fd, size, offset)

    def copy(self, sink: Sink, object_format: str) -> None:
        """Write all of it into `sink`, which is not finished.

        Raises `ComponentError` where the checksum at its end is not that of its bytes, which git does not compare as
        long as it reads single objects, and `OSError` where it cannot be read.
        """
        digest = hashlib.new(object_format, usedforsecurity=False)
        left = self.size - digest.digest_size
        end = b""
        os.lseek(self._fd, 0, os.SEEK_SET)
        while data := system().read(self._fd, _PIECE):
            view = memoryview(data)
            digest.update(view[:left])
            end += view[left:]
            left = max(0, left - len(data))
            sink.write(data)
        if end != digest.digest():
            raise ComponentError(
                f"has a damaged pack: the checksum of {self.name} is wrong", hint="See git fsck, and repair it."
            )


@contextmanager
def sole_pack(repository: str) -> Iterator[SolePack | None]:
    """Open the pack that has all objects of a repository; None where there are others, or might be.

    Where refs were read before, it has every object that they lead to and that there is: what is pushed later goes
    elsewhere, and objects move from single files into packs, which is the order in which they are looked for here.
    """
    fd = pack = None
    try:
        with suppress(OSError):
            name = _find(repository)
            if name is not None:
                # Not blocking, should it be a pipe.
                fd = system().open(f"{repository}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                pack = _described(repository, name, fd)
        yield pack
    finally:
        if fd is not None:
            system().close(fd)


def _find(repository: str) -> str | None:
    # Both make a history shorter than its commits say.
    if any(os.path.lexists(f"{repository}/{name}") for name in ("shallow", "info/grafts")):
        return None
    objects = f"{repository}/objects"
    if os.path.islink(objects):  # noqa: PTH114 - a Path for each of many is slow
        return None
    with os.scandir(objects) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False) or not _is_plain(entry):
                return None
    names = set(os.listdir(f"{objects}/pack"))  # noqa: PTH208 - names alone
    stems = [name.removesuffix(".pack") for name in names if name.endswith(".pack")]
    if len(stems) != 1 or f"{stems[0]}.idx" not in names:
        return None
    expected = {f"{stems[0]}{suffix}" for suffix in (".pack", *_BESIDE)}
    if not all(name in expected or name.startswith("multi-pack-index") for name in names):
        return None
    return f"objects/pack/{stems[0]}.pack"


def _is_plain(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry of the directory of objects can have no object besides the packs."""
    if entry.name == "pack":
        return True
    names = os.listdir(entry.path)  # noqa: PTH208 - names alone
    return _INFO.issuperset(names) if entry.name == "info" else entry.name in _FAN_OUT and not names


def _described(repository: str, name: str, fd: int) -> SolePack | None:
    status = os.fstat(fd)
    header = system().pread(fd, _HEADER.size, 0) if stat.S_ISREG(status.st_mode) else b""
    if len(header) != _HEADER.size:
        return None
    magic, version, objects = _HEADER.unpack(header)
    if magic != b"PACK" or version != _VERSION:
        return None
    return SolePack(name, f"{repository}/{name.removesuffix('.pack')}.idx", objects, status.st_size, fd)
