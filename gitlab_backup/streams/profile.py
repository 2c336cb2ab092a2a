"""Where the time of a run goes: bytes, seconds and processor time of each stage, for those who ask.

Stages work side by side, each perhaps in several threads, so their seconds together are more than the run takes. A
thread that waits for Python's own lock waits in its stage.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from attrs import define, frozen

from .system import System, using

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Side(StrEnum):
    """What a stage waits for, where it waits."""

    PROCESSOR = "processor"
    SOURCE = "source"
    TARGET = "target"
    PROGRAM = "program"
    DATABASE = "database"


@frozen
class Stage:
    """One thing that is done to all bytes of a stream."""

    name: str
    side: Side


READING: Final = Stage("reading files", Side.SOURCE)
WRITING: Final = Stage("writing files", Side.TARGET)
SYNCING: Final = Stage("bringing files to disk", Side.TARGET)
COMPRESSING: Final = Stage("compressing", Side.PROCESSOR)
DECOMPRESSING: Final = Stage("decompressing", Side.PROCESSOR)
DIGESTING: Final = Stage("digesting", Side.PROCESSOR)
LOADING: Final = Stage("loading into PostgreSQL", Side.DATABASE)


def output_of(program: str) -> Stage:
    """Return the stage of waiting for what a program writes."""
    return Stage(f"waiting for {program}", Side.PROGRAM)


@define
class Figures:
    """What a stage has had so far."""

    bytes: int = 0
    seconds: float = 0.0
    """Of all threads, one after another."""
    processor_seconds: float = 0.0
    """In which they computed, and did not wait. Not those of programs, nor of a server."""


class Profile:
    """The figures of all stages. May be read at any time."""

    def __init__(self) -> None:
        self._figures: dict[Stage, Figures] = {}
        self._lock = threading.Lock()

    def add(self, stage: Stage, count: int, seconds: float, processor_seconds: float) -> None:
        """Count `count` bytes and the time that they took."""
        with self._lock:
            figures = self._figures.setdefault(stage, Figures())
            figures.bytes += count
            figures.seconds += seconds
            figures.processor_seconds += processor_seconds

    def stages(self) -> list[tuple[Stage, Figures]]:
        """Return all stages, that which took longest first."""
        with self._lock:
            return sorted(self._figures.items(), key=lambda item: -item[1].seconds)


class _Current:
    """Not a context variable: those do not reach into threads that exist."""

    profile: Profile | None = None


@contextmanager
def profiling() -> Iterator[Profile]:
    """Measure all runs of this process while the block runs. It costs some microseconds for each system call."""
    before, _Current.profile = _Current.profile, Profile()
    try:
        with using(_Measured()):
            yield _Current.profile
    finally:
        _Current.profile = before


class Clock:
    """Measures a block as a part of a stage, where somebody asks for it. Set `bytes` within."""

    __slots__ = ("_began", "_computed", "_profile", "_stage", "bytes")

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._profile = _Current.profile
        self.bytes = 0

    def __enter__(self) -> Self:
        if self._profile is not None:
            self._began, self._computed = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        if self._profile is not None:
            computed = time.thread_time() - self._computed
            self._profile.add(self._stage, self.bytes, time.perf_counter() - self._began, computed)


class _Measured(System):
    """The system calls that read, write and sync."""

    def open(self, path: str | bytes | Path, flags: int, mode: int = 0, *, dir_fd: int | None = None) -> int:
        with Clock(WRITING if flags & os.O_CREAT else READING):
            return super().open(path, flags, mode, dir_fd=dir_fd)

    def read(self, fd: int, size: int) -> bytes:
        with Clock(READING) as clock:
            data = super().read(fd, size)
            clock.bytes = len(data)
        return data

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        with Clock(READING) as clock:
            data = super().pread(fd, size, offset)
            clock.bytes = len(data)
        return data

    def write(self, fd: int, data: bytes | memoryview) -> int:
        with Clock(WRITING) as clock:
            clock.bytes = super().write(fd, data)
        return clock.bytes

    def fsync(self, fd: int) -> None:
        with Clock(SYNCING):
            super().fsync(fd)

    def syncfs(self, fd: int) -> None:
        with Clock(SYNCING):
            super().syncfs(fd)
