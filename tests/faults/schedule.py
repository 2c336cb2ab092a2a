"""Which of many injections are made: all, or a sample that is the same for the same seed."""

from __future__ import annotations

import os
import random
from typing import Final

FULL: Final = os.environ.get("FAULTS") == "full"
"""Whether everything is to be injected. Takes half an hour; a sample is part of every run of the tests."""
SEED: Final = os.environ.get("FAULTS_SEED", "1")
"""Chooses the sample, and what a full run leaves out where there is too much."""


def chosen(total: int, *, few: int, most: int, salt: str) -> list[int]:
    """Return numbers from 1 to `total`: the first, the last, and others at random. `few` of them, or `most`."""
    wanted = most if FULL else few
    if wanted >= total:
        return list(range(1, total + 1))
    between = random.Random(f"{SEED} {salt}").sample(range(2, total), max(0, wanted - 2))
    return sorted({1, total, *between})
