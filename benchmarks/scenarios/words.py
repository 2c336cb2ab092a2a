"""What several scenarios say and ask."""

from __future__ import annotations

from typing import Final

from ..contest import Figure, Goal

OURS: Final = "gitlab-backup-cli"
GZIP: Final = "gzip -1"
MEMORY_GOAL: Final = "peak memory of our processes, whatever the size"
MEMORY: Final = 200
"""Megabytes that no process of ours may need more of."""


def megabytes(count: int) -> str:
    """Return bytes in words."""
    return f"{count / 1_000_000:,.0f} MB"


def memory(subject: str = OURS) -> Goal:
    """Return the goal for the memory of any run."""
    return Goal(text=MEMORY_GOAL, subject=subject, figure=Figure.PEAK, bound=MEMORY)
