"""What every codec is, the one that does nothing, and where codecs are found by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from ..errors import PluginError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from .sink import Sink

ENTRY_POINTS = "gitlab_backup.codecs"
"""The group of entry points in which other distributions register theirs."""


LARGEST_RATIO: Final = 200
"""How many times larger than a compressed file its content may be where nothing says how large it is. Dumps and
directories come to a tenth of that; gzip could make it five times as much, zstd a hundred times."""
_ALWAYS_ALLOWED: Final = 1 << 30
"""Bytes that are allowed whatever the ratio."""


def plausible_size(compressed: int) -> int:
    """Return how many bytes a file of so many bytes may become, where nothing says how many. More is a bomb."""
    return max(_ALWAYS_ALLOWED, LARGEST_RATIO * compressed)


class Codec(Protocol):
    """Turns a byte stream into a compressed one, and back. Without state: one object serves many streams at once."""

    name: str
    """What `--compression` calls it."""
    suffix: str
    """What the name of a compressed file ends with: `.gz`, `.zst`, … (one dot, and a name), or nothing."""
    levels: range
    """The levels that `writer` takes, without a gap; empty where there are none."""
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
    from ..plugins import names

    return (*_BUILT_IN, *(name for name in names(ENTRY_POINTS) if name not in _BUILT_IN))


def codec_named(name: str) -> Codec:
    """Return the codec of that name. Raises `UsageError` where there is none, `PluginError` for one that is no good."""
    from ..plugins import known

    codec = _find(name)
    if codec is None:
        raise UsageError(f"unknown compression: {name}", hint=f"Known ones are {known(ENTRY_POINTS, _BUILT_IN)}.")
    return codec


def codec_that_made(name: str) -> Codec:
    """Return the codec that a backup says it was compressed with. Raises `PluginError` where it is not installed."""
    codec = _find(name)
    if codec is None:
        raise PluginError(
            f"the backup was compressed with {name}, which is not installed here",
            hint=f"Install the distribution that registers it as an entry point {ENTRY_POINTS}.",
        )
    return codec


def codec_for(file_name: str) -> Codec:
    """Return the codec that the suffix of a file's name says; the one that does nothing for an unknown suffix.

    One of others that is no good is passed over: most files are not its own.
    """
    if file_name.endswith(".gz"):
        return _gzip()
    if file_name.endswith(".zst"):
        return _zstd()
    for name in codec_names()[len(_BUILT_IN) :]:
        try:
            codec = _find(name)
        except PluginError:
            continue
        if codec is not None and codec.suffix and file_name.endswith(codec.suffix):
            return codec
    return NoneCodec()


_SUFFIX: Final = re.compile(r"(\.[^./\s]+)?")
"""What archivers take off a name to find its file again."""


def _find(name: str) -> Codec | None:
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    from ..plugins import load, registered, unusable

    codec = cast("Codec | None", load(ENTRY_POINTS, name, Codec))
    if codec is not None and not _SUFFIX.fullmatch(codec.suffix):
        problem = f"has the suffix {codec.suffix!r}: it must be a dot and a name without one, or nothing"
        raise unusable(registered(ENTRY_POINTS, name), problem)
    return codec
