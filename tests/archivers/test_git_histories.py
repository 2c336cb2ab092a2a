"""Random histories of repositories: backed up in full and as increments, each restored, and compared."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.repositories import git

from .git_run import SCHEMA, Bench, commit, init, refs_of
from .increments_run import IncrementBench, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.postgres import Cluster

NAMES = (
    "refs/heads/main",
    "refs/heads/a/b",
    "refs/heads/ünïcode",
    "refs/tags/v1",
    "refs/keep-around/0123",
    "refs/merge-requests/1/head",
)
"""Few, so that they are met again. The first three are branches."""


@define
class Living:
    """A repository that things happen to."""

    path: Path
    commits: list[str] = field(factory=list)
    """All that were ever made in it, and may have been pruned."""
    made: int = 0

    def act(self, action: str, name: str, number: int) -> None:
        """Let something happen, if it can."""
        if not self.path.exists() and action not in {"create", "create sha256"}:
            return
        actions: dict[str, Callable[[], object]] = {
            "commit": lambda: self._commit(name, self._some(number)),
            "orphan": lambda: self._commit(name, None),
            "point": lambda: self._point(name, self._some(number)),
            "tag": lambda: self._tag(f"refs/tags/t{number % 3}", self._some(number)),
            "delete": lambda: git(self.path, "update-ref", "--no-deref", "-d", name),
            "symbolic": lambda: git(self.path, "symbolic-ref", "refs/heads/symbolic", name),
            "head": lambda: git(self.path, "symbolic-ref", "HEAD", NAMES[number % 3]),
            "pack": lambda: git(self.path, "pack-refs", "--all"),
            "gc": lambda: git(self.path, "gc", "--quiet", "--prune=now"),
            "hooks": lambda: self._hooks(number),
            "empty": self._empty,
            "remove": lambda: shutil.rmtree(self.path, ignore_errors=True),
            "create": lambda: self._create("sha1"),
            "create sha256": lambda: self._create("sha256"),
        }
        actions[action]()

    def _some(self, number: int) -> str | None:
        there = [oid for oid in self.commits if _exists(self.path, oid)]
        return there[number % len(there)] if there else None

    def _commit(self, name: str, parent: str | None) -> None:
        self.made += 1
        self.commits.append(commit(self.path, name, f"{self.path.name} {self.made}", parent=parent))

    def _point(self, name: str, oid: str | None) -> None:
        if oid is not None:
            git(self.path, "update-ref", "--no-deref", name, oid)

    def _tag(self, name: str, oid: str | None) -> None:
        if oid is not None:
            text = f"object {oid}\ntype commit\ntag t\ntagger T <t@example.com> {self.made} +0000\n\nt\n".encode()
            git(self.path, "update-ref", name, git(self.path, "mktag", stdin=text).decode().strip())

    def _hooks(self, number: int) -> None:
        hooks = self.path / "custom_hooks"
        shutil.rmtree(hooks, ignore_errors=True)
        if number % 2:
            hooks.mkdir()
            (hooks / "update").write_text(f"#!/bin/sh\necho {number}\n")

    def _empty(self) -> None:
        names = [name for _, name in refs_of(self.path)]
        git(self.path, "update-ref", "--no-deref", "--stdin", stdin=b"".join(b"delete %s\n" % name for name in names))

    def _create(self, object_format: str) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.commits.clear()
        init(self.path, f"--object-format={object_format}")


def _exists(path: Path, oid: str) -> bool:
    return b" commit " in git(path, "cat-file", "--batch-check", stdin=f"{oid}\n".encode())


ACTIONS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(
        ["commit"] * 4
        + ["point", "delete", "tag", "pack", "head"] * 2
        + ["orphan", "symbolic", "gc", "hooks", "empty", "remove", "create", "create sha256"]
    ),
    st.sampled_from(NAMES),
    st.integers(0, 5),
)
HISTORIES = st.lists(st.lists(ACTIONS, max_size=4), min_size=1, max_size=4)


@pytest.fixture
def make_bench(cluster: Cluster, database: str) -> Callable[[Path], IncrementBench]:
    """Make a bench of two repositories in a directory. They begin with one commit each."""
    Bench(cluster, database, Path("/nonexistent")).sql(SCHEMA)

    def make(directory: Path) -> IncrementBench:
        bench = IncrementBench(cluster, database, directory)
        bench.sql("TRUNCATE projects, project_repositories")
        bench.storage()
        for number in (1, 2):
            commit(init(bench.project(number, path=f"r{number}")), "refs/heads/main", f"first of {number}")
        return bench

    return make


def test_every_backup_of_a_history_restores_its_moment(make_bench: Callable[[Path], IncrementBench]) -> None:
    """Whatever happened between them, a full backup and each increment bring back all as it was, by themselves."""

    @settings(max_examples=max(6, settings().max_examples // 4))
    @given(history=HISTORIES)
    def check(history: list[list[tuple[int, str, str, int]]]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            bench = make_bench(Path(temporary))
            living = [Living(bench.storages["default"] / f"r{number}.git") for number in (1, 2)]
            moments = []
            for happening in history:
                for which, action, name, number in happening:
                    living[which].act(action, name, number)
                moments.append((bench.create(), [state(each.path) for each in living]))
            for backup, expected in moments:
                assert () == backup.verify(jobs=1).damages
                storage = bench.restored(backup)
                assert expected == [state(storage / each.path.name, walked=True) for each in living]
                # Those after it have to do without it.
                shutil.rmtree(backup.path)
            assert [] == bench.warnings

    check()
