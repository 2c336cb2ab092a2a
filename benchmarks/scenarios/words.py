"""What several scenarios say and ask."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from ..contest import Figure, Goal

if TYPE_CHECKING:
    from pathlib import Path

OURS: Final = "gitlab-backup-cli"
GZIP: Final = "gzip -1"
MEMORY_GOAL: Final = "peak memory of our processes, whatever the size"
MEMORY: Final = 200
"""Megabytes that no process of ours may need more of."""


def megabytes(count: int) -> str:
    """Return bytes in words."""
    return f"{count / 1_000_000:,.0f} MB"


def warm(path: Path) -> str:
    """Return a script that fills the page cache with all that is below a directory."""
    return f"tar --directory={shlex.quote(str(path))} --create --file=- . | cat >/dev/null"


def memory(subject: str = OURS) -> Goal:
    """Return the goal for the memory of any run."""
    return Goal(text=MEMORY_GOAL, subject=subject, figure=Figure.PEAK, bound=MEMORY)
