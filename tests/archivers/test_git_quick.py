"""Refs that are read without git: what git would say, or nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitlab_backup.archivers.git.quick import quick_refs
from tests.support.repositories import Shape, create, git

from .git_run import commit, init

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = (
    "refs/heads/main",
    "refs/heads/a",
    "refs/heads/a/b",
    "refs/heads/a-b",
    "refs/heads/a.b",
    "refs/heads/Ünïcode",
    "refs/tags/v1",
    "refs/keep-around/0",
    "refs/bisect/good",
    "refs/worktree/one",
    "refs/rewritten/one",
    "refs/stash",
)


def shown_by_git(path: Path) -> bytes:
    """Return what git says of all refs."""
    head = git(path, "symbolic-ref", "HEAD").strip()
    listed = git(path, "for-each-ref", "--sort=refname", "--format=%(objectname) %(refname)")
    first = [line[: -len(head)] + b"HEAD\n" for line in listed.splitlines() if line.endswith(b" " + head)]
    return b"".join(first) + listed


def check(path: Path) -> None:
    """Compare, where anything was read."""
    quick = quick_refs(str(path))
    assert quick is not None
    assert (git(path, "symbolic-ref", "HEAD").strip(), shown_by_git(path)) == (quick.head, quick.text)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two commits and an annotated tag, and no refs."""
    path = init(tmp_path_factory.mktemp("quick") / "template.git")
    first = commit(path, "refs/heads/main", "first")
    commit(path, "refs/heads/main", "second", parent=first)
    git(path, "update-ref", "-d", "refs/heads/main")
    return path


def objects_of(path: Path) -> list[str]:
    """Return the ids of all objects that a ref can lead to."""
    listed = git(path, "cat-file", "--batch-check", "--batch-all-objects").decode().split("\n")[:-1]
    return [line.split()[0] for line in listed if line.split()[1] in {"commit", "tag", "blob"}]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["update"] * 6 + ["delete"] * 2 + ["pack", "pack all", "gc", "head"]),
        st.sampled_from(NAMES),
        st.integers(0, 9),
    ),
    max_size=12,
)


def test_it_is_what_git_says(template: Path) -> None:
    """Whatever was written, deleted and packed, in whatever order, refs and HEAD are those that git finds."""
    oids = objects_of(template)

    @settings(max_examples=max(20, settings().max_examples))
    @given(actions=ACTIONS)
    def holds(actions: list[tuple[str, str, int]]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = init(Path(directory) / "r.git")
            (path / "objects" / "info").mkdir(exist_ok=True)
            (path / "objects" / "info" / "alternates").write_text(f"{template}/objects\n")
            refs: set[str] = set()
            for action, name, number in actions:
                # A name cannot be below another one, and git refuses even to delete one there.
                taken = any(other.startswith(f"{name}/") or name.startswith(f"{other}/") for other in refs)
                if action in {"update", "delete"} and taken:
                    continue
                if action == "update":
                    oid = oids[number % len(oids)]
                    if name.startswith("refs/heads/") and git(path, "cat-file", "-t", oid) != b"commit\n":
                        continue
                    git(path, "update-ref", name, oid)
                    refs.add(name)
                elif action == "delete":
                    git(path, "update-ref", "-d", name)
                    refs.discard(name)
                elif action == "head":
                    git(path, "symbolic-ref", "HEAD", name)
                else:
                    command = {"pack": ["pack-refs"], "pack all": ["pack-refs", "--all"], "gc": ["gc", "--quiet"]}
                    git(path, *command[action])
            check(path)

    holds()


@pytest.mark.parametrize("shape", [Shape.ORDINARY, Shape.LOOSE, Shape.UNBORN, Shape.SHA256, Shape.EMPTY])
def test_every_shape(tmp_path: Path, shape: Shape) -> None:
    """All that GitLab has on its disks is read without git."""
    path = tmp_path / "r.git"
    create(path, shape, salt="quick")
    check(path)
    git(path, "pack-refs", "--all")
    check(path)


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _move(path: Path) -> None:
    (path / "refs").rename(path / "elsewhere")
    (path / "refs").symlink_to("elsewhere")


def _link_head(path: Path) -> None:
    (path / "HEAD").unlink()
    (path / "HEAD").symlink_to("refs/heads/main")


STRANGE: dict[str, Callable[[Path, str], object]] = {
    "a symbolic ref": lambda path, _: git(path, "symbolic-ref", "refs/heads/symbolic", "refs/heads/main"),
    "a symbolic link": lambda path, _: (path / "refs/heads/link").symlink_to("main"),
    "refs elsewhere": lambda path, _: _move(path),
    "a lock": lambda path, _: (path / "refs/heads/main.lock").touch(),
    "an empty file": lambda path, _: (path / "refs/heads/crashed").touch(),
    "zeros": lambda path, _: (path / "refs/heads/zeros").write_text("0" * 40 + "\n"),
    "no end of line": lambda path, oid: (path / "refs/heads/short").write_text(oid),
    "another length": lambda path, oid: (path / "refs/heads/long").write_text(oid + "0" * 24 + "\n"),
    "a pipe": lambda path, _: os.mkfifo(path / "refs/heads/pipe"),
    "a name that is none": lambda path, oid: (path / "refs/heads/a..b").write_text(f"{oid}\n"),
    "a worktree": lambda path, _: (path / "worktrees").mkdir(),
    "another directory": lambda path, _: (path / "commondir").write_text("../other.git\n"),
    "a detached HEAD": lambda path, oid: (path / "HEAD").write_text(f"{oid}\n"),
    "a HEAD that is a link": lambda path, _: _link_head(path),
    "no HEAD": lambda path, _: (path / "HEAD").unlink(),
    "no configuration": lambda path, _: (path / "config").unlink(),
    "an included configuration": lambda path, _: _append(path / "config", "[include]\n\tpath = other\n"),
    "an extension": lambda path, _: _append(path / "config", "[extensions]\n\trefstorage = reftable\n"),
    "a version to come": lambda path, _: _append(path / "config", "[core]\n\trepositoryformatversion = 2\n"),
    "a format without its version": lambda path, _: _append(path / "config", "[extensions]\n\tobjectformat = sha1\n"),
    "a setting over two lines": lambda path, _: _append(path / "config", "[core]\n\tx = a\\\nb\n"),
    "a packed line that is none": lambda path, _: _append(path / "packed-refs", "nonsense\n"),
    "packed refs cut short": lambda path, oid: _append(path / "packed-refs", f"{oid} refs/heads/cu"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_not_plain_is_left_to_git(tmp_path: Path, kind: str) -> None:
    """Where anything else than git could say what a repository has, or nobody could, nothing is said."""
    path = init(tmp_path / "r.git")
    oid = commit(path, "refs/heads/main", "first")
    git(path, "update-ref", "refs/tags/packed", oid)
    git(path, "pack-refs", "--all")
    git(path, "update-ref", "refs/heads/loose", oid)
    commit(path, "refs/heads/main", "second")
    check(path)
    STRANGE[kind](path, oid)
    assert quick_refs(str(path)) is None
