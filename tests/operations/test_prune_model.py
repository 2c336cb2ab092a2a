"""Pruning a real backup path, held against a model of the rules that was written for this test alone."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gitlab_backup import BackupStore
from gitlab_backup.events import Status
from gitlab_backup.operations.prune import PruneOptions, prune
from gitlab_backup.retention import Rules

from .pruned_store import id_at, is_whole, lose, make_backup, make_legacy

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR, DAY = 3600, 86_400
START = 1_735_600_000  # 2024-12-30: days, weeks, months and years end close to it
SPARE = (
    lambda store, name: make_backup(store, name, left_out=frozenset({"registry"})),
    lambda store, name: make_backup(store, name, statuses={"uploads": Status.FAILED}),
    lambda store, name: lose(make_backup(store, name), "SHA256SUMS"),
    lambda store, name: lose(make_backup(store, name), "manifest.json"),
    lambda store, name: lose(make_backup(store, name), "db/database.sql.gz"),
    lambda store, name: (make_backup(store, name) / "backup_information.json").write_text("{"),
    lambda store, name: lose(make_backup(store, name), "manifest.json", "SHA256SUMS"),
    lambda store, name: make_backup(store, name).rename(store / f"{name}-copy"),
    lambda store, name: (store / name).symlink_to("/"),
)
"""What has the name of a backup, and is none that counts."""

counts = st.none() | st.integers(1, 5)


class Model:
    """The rules, from the description: a backup stays if one of them says so."""

    def __init__(self, epochs: dict[str, int], rules: dict[str, int | None], now: int, pinned: set[str]) -> None:
        self.epochs, self.rules, self.now, self.pinned = epochs, rules, now, pinned

    def kept(self) -> set[str]:
        """Return the names of those that stay."""
        chosen = {name for name in self.epochs if self._by_a_rule(name)}
        others = set(self.epochs) - chosen
        while others and len(chosen) < (self.rules["minimum"] or 0):
            newest = max(others, key=self._rank)
            chosen.add(newest)
            others.remove(newest)
        return chosen | (self.pinned & set(self.epochs))

    def _rank(self, name: str) -> tuple[int, str]:
        return self.epochs[name], name

    def _by_a_rule(self, name: str) -> bool:
        periods: dict[str, Callable[[date], tuple[int, ...]]] = {
            "keep_daily": lambda day: (day.toordinal(),),
            "keep_weekly": lambda day: ((day.toordinal() - 1) // 7,),  # 0001-01-01 was a Monday
            "keep_monthly": lambda day: (day.year, day.month),
            "keep_yearly": lambda day: (day.year,),
        }
        newer = [other for other in self.epochs if self._rank(other) > self._rank(name)]
        hours = self.rules["keep_within"]
        return (
            len(newer) < (self.rules["keep_last"] or 0)
            or (hours is not None and self.epochs[name] >= self.now - hours * HOUR)
            or any(
                self._period(name, of) not in {self._period(other, of) for other in newer}
                and len({self._period(other, of) for other in newer}) < (self.rules[key] or 0)
                for key, of in periods.items()
            )
        )

    def _period(self, name: str, of: Callable[[date], tuple[int, ...]]) -> tuple[int, ...]:
        return of(date(1970, 1, 1) + timedelta(days=self.epochs[name] // DAY))


class PrunedStore(RuleBasedStateMachine):
    """A backup path over years: backups come, are pinned, and are pruned by all kinds of rules."""

    @initialize()
    def begin(self) -> None:
        self.store = BackupStore(Path(tempfile.mkdtemp(prefix="pruned-")))
        self.now = START
        self.complete: dict[str, int] = {}
        self.legacy: dict[str, int] = {}
        self.others: set[str] = set()
        self.staging: set[str] = set()
        self.remains: set[str] = set()
        self.pinned: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.store.path)

    def _free(self) -> str:
        taken = {each.name for each in self.store.path.iterdir()}
        while any(id_at(self.now) in name for name in taken):
            self.now += 1
        return id_at(self.now)

    @rule(seconds=st.sampled_from([1, HOUR, 5 * HOUR, DAY, 3 * DAY, 8 * DAY, 40 * DAY, 300 * DAY, -DAY]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(number=st.integers(1, 4), step=st.sampled_from([HOUR, 11 * HOUR, DAY, 6 * DAY]), warned=st.booleans())
    def back_up(self, number: int, step: int, *, warned: bool) -> None:
        for _ in range(number):
            name = self._free()
            make_backup(self.store.path, name, statuses={"db": Status.WARNING} if warned else None)
            self.complete[name] = self.now
            self.now += step

    @rule(spoil=st.sampled_from(SPARE))
    def leave_something_else(self, spoil: Callable[[Path, str], object]) -> None:
        before = set(self.store.path.iterdir())
        spoil(self.store.path, self._free())
        self.others |= {each.name for each in set(self.store.path.iterdir()) - before}

    @rule(kind=st.sampled_from(["dated", "time", "whole", "cut", "named", "directory"]))
    def back_up_with_rake(self, kind: str) -> None:
        day = f"{datetime.fromtimestamp(self.now, UTC):%Y_%m_%d}"
        prefix = {"time": f"{self.now}", "dated": f"{self.now}_{day}", "named": f"{self.now}_before"}
        name = f"{prefix.get(kind, f'{self.now}_{day}_16.11.2-ee')}_gitlab_backup.tar"
        if (self.store.path / name).exists():
            return
        if kind == "directory":
            (self.store.path / name).mkdir()
        else:
            make_legacy(self.store.path, name, cut=kind == "cut")
        if kind in {"named", "cut", "directory"}:
            self.others.add(name)
        else:
            self.legacy[name] = self.now

    @rule(name=st.sampled_from(["lost+found", ".snapshot", ".important.partial", "notes.deleted", ".x.deleted"]))
    def leave_something_foreign(self, name: str) -> None:
        (self.store.path / name).mkdir(exist_ok=True)
        self.others.add(name)

    @rule()
    def kill_a_backup(self) -> None:
        name = f".{self._free()}.partial"
        (self.store.path / name / "db").mkdir(parents=True)
        self.staging.add(name)

    @precondition(lambda self: self.complete)
    @rule(data=st.data())
    def kill_a_deletion(self, data: st.DataObject) -> None:
        """It has been renamed, and taken apart in part."""
        name = data.draw(st.sampled_from(sorted(self.complete)))
        path = (self.store.path / name).rename(self.store.path / f".{name}.deleted")
        (path / "manifest.json").unlink()
        self.remains.add(path.name)
        del self.complete[name]

    @precondition(lambda self: self.complete or self.legacy)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted({*self.complete, *self.legacy})))
        self.store.pin(name)
        self.pinned.add(name)

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pinned)))
        self.store.unpin(name)
        self.pinned.remove(name)

    @rule(
        rules=st.fixed_dictionaries(
            {
                **dict.fromkeys(("keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"), counts),
                "keep_within": st.none() | st.integers(1, 24 * 60),
                "minimum": st.integers(0, 3),
            }
        ),
        legacy=st.booleans(),
        incomplete=st.booleans(),
        dry_run=st.booleans(),
    )
    def prune(self, rules: dict[str, int | None], *, legacy: bool, incomplete: bool, dry_run: bool) -> None:
        hours = rules["keep_within"]
        chosen = Rules(**{**rules, "keep_within": None if hours is None else timedelta(hours=hours)})  # type: ignore[arg-type]
        options = PruneOptions(rules=chosen, legacy=legacy, incomplete=incomplete, dry_run=dry_run)
        done = prune(self.store, options, now=datetime.fromtimestamp(self.now, UTC))

        # Each kind is counted by itself.
        kept = Model(self.complete, rules, self.now, self.pinned).kept()
        kept_legacy = Model(self.legacy, rules, self.now, self.pinned).kept() if legacy else set(self.legacy)
        assert {each.name for each in done.kept} == kept | (kept_legacy if legacy else set())
        gone = (set(self.complete) - kept) | (set(self.legacy) - kept_legacy)
        assert {each.name for each in done.deleted} == gone
        assert set(done.remains) == self.remains | (self.staging if incomplete else set())
        assert {each.name for each in done.left_alone} == self.others | (set() if incomplete else self.staging)
        assert len(self.legacy) == done.legacy_files
        assert len(kept) >= min(rules["minimum"] or 0, len(self.complete))
        # What a restore would take stays, whatever the rules and the clock.
        newest = max(self.complete, key=lambda name: self.complete[name], default=None)
        assert newest is None or not rules["minimum"] or newest in kept
        if not dry_run:
            self.complete = {name: at for name, at in self.complete.items() if name in kept}
            self.legacy = {name: at for name, at in self.legacy.items() if name in kept_legacy}
            self.remains = set()
            self.staging = set() if incomplete else self.staging

    @invariant()
    def everything_else_is_there(self) -> None:
        """The directory holds what the model holds, nothing less and nothing more, and every backup is whole."""
        pins = {f".{name}.pinned" for name in self.pinned}
        expected = {*self.complete, *self.legacy, *self.others, *self.staging, *self.remains, *pins}
        assert {each.name for each in self.store.path.iterdir()} - {".gitlab-backup.lock"} == expected
        assert [name for name in self.complete if not is_whole(self.store.path / name)] == []


PrunedStore.TestCase.settings = settings(max_examples=max(100, settings().max_examples), stateful_step_count=25)
TestPrunedStore = PrunedStore.TestCase
