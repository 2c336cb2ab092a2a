"""A backup of a living installation fits together: what a row of it points to is in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup
from tests.support.life import Life

if TYPE_CHECKING:
    from gitlab_backup.events import Event
    from tests.support.installation import ThrowawayInstallation

FULL = os.environ.get("FAULTS") == "full"


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_rows_and_what_they_point_to(installation: ThrowawayInstallation) -> None:
    """No row dangles, unless it was deleted since; each file without a row came later, or was about to go."""
    life = Life(installation, seed=3)
    life.prepare(300)
    with life:
        life.await_more(50)

        def live(_event: Event) -> None:
            life.await_more(100 if FULL else 10)

        backup = Backup.create(installation.instance(), jobs=2, observer=live)
        life.await_more(50)
    # Thousands, in a full run.
    assert life.operations > (5000 if FULL else 300)
    backup.restore(installation.instance())
    found = life.examine()
    assert frozenset() == found.lost_commits
    assert frozenset() == found.dangling - life.deleted
    assert found.rows > 100
    assert found.commits > 2
    # What has no row came after the snapshot, or had lost its row before, and was about to go.
    assert found.orphans <= life.deleted | {number for number in life.created if number > found.newest}
