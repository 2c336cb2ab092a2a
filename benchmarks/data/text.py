"""Text that compresses about as well as the logs of jobs do."""

from __future__ import annotations

import random
from functools import cache
from typing import Final

SEED: Final = 20240425
_WORDS: Final = 6_000
_POOL: Final = 24 << 20


def chance(name: str) -> random.Random:
    """Return a source of chance for one purpose."""
    return random.Random(f"{SEED} {name}")  # noqa: S311 - the same every time is the point


@cache
def words() -> tuple[str, ...]:
    """Return made-up words."""
    source = chance("words")
    syllables = [first + vowel + last for first in "bcdfglmnprst" for vowel in "aeiou" for last in ("", "n", "r", "s")]
    return tuple("".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(_WORDS))


@cache
def pool() -> bytes:
    """Return a lot of text, lines of a log, to cut pieces of."""
    source = chance("pool")
    frequent = [1 / (rank + 3) for rank in range(_WORDS)]
    lines, size = [], 0
    moment = 1_714_053_314_000
    while size < _POOL:
        moment += source.randrange(900)
        picked = source.choices(words(), frequent, k=64)
        # Several lines at a time: choices() is slow for a few.
        for start in range(0, len(picked), 8):
            level = source.choice(("INFO", "INFO", "INFO", "DEBUG", "WARN"))
            line = f"{moment} {level} [runner-{moment % 7}] {' '.join(picked[start : start + 8])} status={moment % 5}\n"
            lines.append(line)
            size += len(line)
    return "".join(lines).encode()


def piece(source: random.Random, size: int) -> bytes:
    """Return `size` bytes of text."""
    whole = pool()
    parts, left = [], size
    while left > 0:
        start = source.randrange(len(whole) - 1)
        part = whole[start : start + min(left, 1 << 20)]
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
