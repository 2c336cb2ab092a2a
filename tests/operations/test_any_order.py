"""Back up, change, lose, restore, crash, in any order: an installation is never in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from uuid import uuid4

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gitlab_backup import Backup, BackupStore
from tests.operations.changes import change, wipe
from tests.operations.killing import restore_killed
from tests.support import compare

if TYPE_CHECKING:
    from tests.support.compare import State
    from tests.support.installation import ThrowawayInstallation

PARTS = ("db", "repositories", "uploads", "artifacts")


class AnyOrder(RuleBasedStateMachine):
    """An installation, and what it can be: its own last state, or what a restore was to make of it."""

    template: ClassVar[ThrowawayInstallation]

    def __init__(self) -> None:
        super().__init__()
        directory = self.template.cluster.directory / f"installation-{uuid4().hex[:8]}"
        self.installation = self.template.copy(directory)
        self.backups: dict[str, State] = {}
        self.possible = [compare.snapshot(self.installation)]
        """One state; two after a restore that was killed, until the next run has put that right."""

    def teardown(self) -> None:
        """Remove it."""
        self.installation.cluster.psql("ALTER ROLE gitlab NOCREATEDB")
        self.installation.remove()

    @initialize(swap=st.booleans())
    def begin(self, *, swap: bool) -> None:
        """Have one backup; and a role that may create databases, or may not."""
        self.installation.cluster.psql(f"ALTER ROLE gitlab {'' if swap else 'NO'}CREATEDB")
        self.back_up()

    # Without the tables that list them, nobody knows what repositories there are: there is no backup then.
    @precondition(lambda self: all(state.databases["main"].tables for state in self.possible))
    @rule()
    def back_up(self) -> None:
        """It holds what there is now, after what a killed restore has left was put right."""
        backup = Backup.create(self.installation.instance())
        assert backup.id not in self.backups
        self.backups[backup.id] = self.settle(self.possible)

    @precondition(lambda self: len(self.possible) == 1 and whole(self.possible[0]))
    @rule(seed=st.integers(0, 1000))
    def change(self, seed: int) -> None:
        """Life goes on."""
        change(self.installation, seed=seed)
        self.possible = [compare.snapshot(self.installation)]

    @precondition(lambda self: len(self.possible) == 1)
    @rule()
    def lose(self) -> None:
        """The content of everything."""
        wipe(self.installation)
        self.possible = [compare.snapshot(self.installation)]

    @rule(data=st.data(), only=st.sets(st.sampled_from(PARTS), max_size=2))
    def restore(self, data: st.DataObject, only: set[str]) -> None:
        """What was asked for is as in the backup, all else as before."""
        backup = self.draw(data)
        done = backup.restore(self.installation.instance(), only=only)
        assert not done.with_warnings
        self.settle([mixture(state, self.backups[backup.id], only) for state in self.possible])

    @precondition(lambda self: len(self.possible) == 1)
    @rule(data=st.data(), only=st.sets(st.sampled_from(PARTS), max_size=2), step=st.integers(1, 300))
    def crash(self, data: st.DataObject, only: set[str], step: int) -> None:
        """A restore dies. Whoever comes next undoes or finishes it."""
        backup = self.draw(data)
        restored = mixture(self.possible[0], self.backups[backup.id], only)
        if restore_killed(self.installation, backup, step, only=tuple(sorted(only))) is None:
            self.possible.append(restored)
        else:
            self.settle([restored])

    def draw(self, data: st.DataObject) -> Backup:
        """Choose a backup."""
        return Backup.open(self.installation.backup_path, data.draw(st.sampled_from(sorted(self.backups))))

    def settle(self, possible: list[State]) -> State:
        """Check that the installation is in one of these states, and that no run has left anything."""
        found = compare.snapshot(self.installation)
        differing = [compare.differences(state, found) for state in possible]
        assert [] in differing, differing
        self.possible = [possible[differing.index([])]]
        store = BackupStore(self.installation.backup_path)
        assert [] == [path for path in store.path.iterdir() if path.name.startswith(".gitlab-restore")]
        assert set(self.backups) <= set(store.ids())
        return self.possible[0]


def whole(state: State) -> bool:
    """Tell whether there is something of everything, so that it can change."""
    return all((*(each.tables for each in state.databases.values()), state.repositories, *state.files.values()))


def mixture(state: State, backup: State, only: set[str]) -> State:
    """Return a state with some parts, or all, of a backup in it."""
    if not only:
        return backup
    return compare.State(
        databases=(backup if "db" in only else state).databases,
        repositories=(backup if "repositories" in only else state).repositories,
        files={name: (backup if name in only else state).files[name] for name in state.files},
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_installation_is_a_backup_or_its_own_last_state(template_installation: ThrowawayInstallation) -> None:
    """Whatever is done to it, and whenever a restore dies."""

    class Here(AnyOrder):
        template = template_installation

    # A failing example is short enough, and each try takes seconds: it is not shrunk.
    examples = max(3, settings().max_examples // 10)
    run_state_machine_as_test(
        Here, settings=settings(max_examples=examples, stateful_step_count=7, phases=[Phase.generate])
    )
