"""Whether something changed, by the times that file systems keep.

A file system notes the time of a change from a clock that moves in ticks of 1 to 10 ms, so two changes within one tick
look like one. What was changed in the present tick is therefore not trusted before that has passed.
"""

from __future__ import annotations

import os
import time

_COARSE = 5
"""CLOCK_REALTIME_COARSE of clock_gettime(2), which Python does not name: file systems take times from that clock."""
_LONGEST = 20_000_000
"""Nanoseconds that a tick is never longer than. A file that is further ahead has its times from another clock."""
_MOMENT = 0.001


def identity(status: os.stat_result) -> tuple[int, int]:
    """Return what makes a file the same file under another name."""
    return status.st_dev, status.st_ino


def version(status: os.stat_result) -> tuple[int, int, int]:
    """Return what is different after a file was changed. The status change time too: the other one can be set back."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def content_version(status: os.stat_result) -> tuple[int, int]:
    """Return what is different after the content of a file was changed by somebody who does not hide it."""
    return status.st_size, status.st_mtime_ns


def certain_status(fd: int) -> os.stat_result:
    """Return the status of an open file such that every later change gives it another `version`.

    Waits for the end of the tick where the file was changed just now. (Stores into a shared mapping are noted when a
    page is first written to, and may go unnoticed after that.)
    """
    now = time.clock_gettime_ns(_COARSE)
    status = os.fstat(fd)
    until = now + _LONGEST
    while now <= status.st_ctime_ns < until and now < until:
        time.sleep(_MOMENT)
        now = time.clock_gettime_ns(_COARSE)
        status = os.fstat(fd)
    return status


def beginning() -> int:
    """Return a time in nanoseconds: what was changed before this call is not later, what is changed after it is."""
    start = now = time.time_ns()
    while now <= start < now + _LONGEST:
        time.sleep(_MOMENT)
        now = time.clock_gettime_ns(_COARSE)
    return start
