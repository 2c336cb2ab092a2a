"""How long a run should take with other cores and other disks, computed from what was measured."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - cattrs looks at it, to read results
from typing import Final

from attrs import frozen

COMPUTED: Final = (4, 8, 16, 32)
"""Numbers of cores that are computed, as far as they are more than were measured."""


@frozen(kw_only=True)
class Limits:
    """What the variants of a contest were limited to. The others were not."""

    kind: str
    """What was done to which data, in few words."""
    read: int
    """Bytes that a run reads, as a limit on the rate counts them."""
    cores: Mapping[str, int]
    """By variant: of the command, and of PostgreSQL."""
    rates: Mapping[str, int]
    """By variant: bytes a second."""
    most: int | None = None
    """So many cores are used at most; None for any number."""


def serial_share(times: Mapping[int, float]) -> float:
    """Return the part of the time on one core that more cores do not make shorter, from 0 to 1.

    `times` are seconds by number of cores, one of them 1. It is the share for which Amdahl's law,
    `time(n) = time(1) * (share + (1 - share) / n)`, is nearest to them by least squares. Raises `ValueError` where
    there is only one time.
    """
    alone = times[1]
    known = [(1 - 1 / cores, time / alone - 1 / cores) for cores, time in times.items() if cores > 1]
    if not known:
        raise ValueError("the time on more than one core is needed")
    share = sum(rest * excess for rest, excess in known) / sum(rest * rest for rest, _ in known)
    return min(1.0, max(0.0, share))


def speedup(share: float, cores: int, most: int | None = None) -> float:
    """Return how many times as fast as on one core it is by Amdahl's law; more cores than `most` are as that many."""
    used = cores if most is None else min(cores, most)
    return 1 / (share + (1 - share) / used)


def limited(count: int, rate: float, unlimited: float) -> float:
    """Return the seconds for `count` bytes at a rate in bytes a second, where they are `unlimited` without it."""
    return max(count / rate, unlimited)


def enough(count: int, unlimited: float) -> float:
    """Return the rate in bytes a second from which on a faster disk is of no use."""
    return count / unlimited
