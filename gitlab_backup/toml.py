"""Reading TOML that somebody else may have written."""

from __future__ import annotations

import tomllib
from typing import Any, Final

_MOST_DOTS: Final = 1000
"""In one line. The parser needs room for the square of the parts of a key, and a key ends with its line."""


def parse(data: bytes) -> dict[str, Any]:
    """Return the document, in time and memory in proportion to its size.

    Raises `ValueError` where it is none, or none that anybody would write.
    """
    text = data.decode()
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(f"Too many dots (at line {number}, column 1)")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("Nested too deeply") from None
