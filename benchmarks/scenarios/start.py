"""How long the command takes to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contest import Contest, Figure, Goal, Role, Variant
from .words import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..place import Place


def contests(_place: Place) -> Iterator[Contest]:
    """Yield the contest."""
    yield Contest(
        id="start",
        title="Start of the command",
        data="`gitlab-backup-cli version`",
        variants=(
            Variant(name=OURS, role=Role.OURS, script="gitlab-backup-cli version"),
            Variant(name="python -c pass", role=Role.FLOOR, script="python3 -c pass"),
        ),
        goals=(Goal(text="start of the command", subject=OURS, figure=Figure.WALL, bound=0.25),),
        warm_up="gitlab-backup-cli version",
    )
