"""What must be true after a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.operations.hostile import leftovers
from tests.support import compare

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.compare import State
    from tests.support.installation import ThrowawayInstallation

LOCK = ".gitlab-backup.lock"


def entries(store: Path) -> list[str]:
    """Return all names in a backup path but that of the lock."""
    return sorted(path.name for path in store.iterdir() if path.name != LOCK) if store.exists() else []


def unchanged(target: ThrowawayInstallation, before: State) -> None:
    """Check that an installation is exactly as it was, and that no restore has left anything."""
    assert [] == compare.differences(before, compare.snapshot(target, excluded=True))
    assert [] == leftovers(target)
