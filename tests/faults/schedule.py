"""Which of many injections are made: all, or a sample that is the same for the same seed."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL: Final = os.environ.get("FAULTS") == "full"
"""Whether everything is to be injected. Takes half an hour; a sample is part of every run of the tests."""
SEED: Final = os.environ.get("FAULTS_SEED", "1")
"""Chooses the sample, and what a full run leaves out where there is too much."""


def chosen(total: int, *, few: int, most: int, salt: str, kinds: Sequence[str] = ()) -> list[int]:
    """Return numbers from 1 to `total`: the first, the last, and others at random. `few` of them, or `most`.

    Where the kind of each is given, a full run has one of each kind among them.
    """
    wanted = most if FULL else few
    if wanted >= total:
        return list(range(1, total + 1))
    chance = random.Random(f"{SEED} {salt}")
    between = chance.sample(range(2, total), max(0, wanted - 2))
    of_kinds: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds[:total], 1):
        of_kinds.setdefault(kind, []).append(number)
    each = [chance.choice(numbers) for numbers in of_kinds.values()] if FULL else []
    return sorted({1, total, *between, *each})
