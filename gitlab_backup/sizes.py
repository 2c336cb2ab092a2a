"""Numbers of bytes, as people write and read them."""

from __future__ import annotations

import re

from .errors import UsageError

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
"""Each is 1024 of the one before."""
_STEP = 1024
_SIZE = re.compile(r"([0-9]{1,15})([kmgtp]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Read a number of bytes, with a unit of 1024 or none: `500M`, `10G`, `10GiB`, `4096`. Raises `UsageError`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is not a size", hint="Give a number of bytes, or of units of 1024: 4096, 500M, 10G or 2T."
        )
    return int(match[1]) * int(_STEP ** " kmgtp".index(match[2].lower() or " "))


def readable_size(count: float) -> str:
    """Return a number of bytes with a unit of 1024: `0 B`, `1.5 KiB`."""
    unit = 0
    # Rounded to one digit below, 1023.96 would become 1024.0 of the smaller unit.
    while unit < len(UNITS) - 1 and round(count, 1) >= _STEP:
        count /= _STEP
        unit += 1
    return f"{count:.1f} {UNITS[unit]}" if unit else f"{count:.0f} B"
