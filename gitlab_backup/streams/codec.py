"""What every codec is, the one that does nothing, and where codecs are found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from importlib.metadata import EntryPoints

    from .sink import Sink

ENTRY_POINTS = "gitlab_backup.codecs"
"""The group of entry points in which other distributions register theirs."""


class Codec(Protocol):
    """Turns a byte stream into a compressed one, and back. Without state: one object serves many streams at once."""

    name: str
    """What `--compression` calls it."""
    suffix: str
    """What the name of a compressed file ends with: `.gz`, `.zst`, or nothing."""
    levels: range
    """The levels that `writer` takes; empty where there are none."""
    default_level: int

    def writer(self, sink: Sink, *, level: int | None = None, pool: Executor | None = None) -> Sink:
        """Return a sink that compresses into `sink`.

        The heavy work goes to the threads of `pool`, a bounded number of blocks ahead (memory stays flat); without
        a pool it is done by the writing thread. `finish` finishes `sink` too, `abort` aborts it.
        Raises `UsageError` for a level that is not one of `levels`.
        """

    def reader(self, source: BinaryIO) -> BinaryIO:
        """Return a readable stream of what was compressed into `source`.

        Its `read` and `readinto` raise `CorruptStreamError` where `source` is damaged, ends too early, or goes on after
        its end with something else. It reads `source` to its end. Closing it closes `source`.
        """


class NoneCodec:
    """Leaves everything as it is."""

    name = "none"
    suffix = ""
    levels = range(0)
    default_level = 0

    def writer(self, sink: Sink, *, level: int | None = None, pool: Executor | None = None) -> Sink:  # noqa: ARG002
        """Return `sink` itself."""
        check_level(self, level)
        return sink

    def reader(self, source: BinaryIO) -> BinaryIO:
        """Return `source` itself."""
        return source


def check_level(codec: Codec, level: int | None) -> int:
    """Return `level`, or the default for None. Raises `UsageError` for one that `codec` does not have."""
    if level is None:
        return codec.default_level
    if level not in codec.levels:
        hint = (
            f"Its levels are {codec.levels.start} to {codec.levels.stop - 1}." if codec.levels else "It has no levels."
        )
        raise UsageError(f"{codec.name} has no compression level {level}", hint=hint)
    return level


def _gzip() -> Codec:
    from .gzip import GzipCodec

    return GzipCodec()


def _zstd() -> Codec:
    from .zstd import ZstdCodec

    return ZstdCodec()


# The built-in ones are found without the metadata of an installed distribution: a plain directory works too.
_BUILT_IN: dict[str, Callable[[], Codec]] = {"gzip": _gzip, "zstd": _zstd, "none": NoneCodec}


def codec_names() -> tuple[str, ...]:
    """Return the names of all codecs: the built-in ones, then those that installed distributions register."""
    return (*_BUILT_IN, *sorted(entry.name for entry in _entry_points() if entry.name not in _BUILT_IN))


def codec_named(name: str) -> Codec:
    """Return the codec of that name. Raises `UsageError` where there is none."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    for entry in _entry_points():
        if entry.name == name:
            return cast("Codec", entry.load()())
    raise UsageError(f"unknown compression: {name}", hint=f"Known ones are {', '.join(codec_names())}.")


def codec_for(file_name: str) -> Codec:
    """Return the codec that the suffix of a file's name says; the one that does nothing for an unknown suffix."""
    if file_name.endswith(".gz"):
        return _gzip()
    if file_name.endswith(".zst"):
        return _zstd()
    for entry in _entry_points():
        codec = None if entry.name in _BUILT_IN else cast("Codec", entry.load()())
        if codec is not None and codec.suffix and file_name.endswith(codec.suffix):
            return codec
    return NoneCodec()


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points

    return entry_points(group=ENTRY_POINTS)
