"""Installations and backups to break."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from attrs import frozen

from gitlab_backup import Backup
from tests.operations.changes import change
from tests.support import compare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.compare import State
    from tests.support.installation import ThrowawayInstallation


@pytest.fixture(scope="module")
def source(template_installation: ThrowawayInstallation) -> Iterator[ThrowawayInstallation]:
    """An installation to back up again and again. Only its backup path is to be changed, and left empty."""
    directory = template_installation.cluster.directory / f"source-{os.getpid()}-{uuid4().hex[:6]}"
    copy = template_installation.copy(directory)
    yield copy
    copy.remove()


@pytest.fixture(scope="module")
def target(template_installation: ThrowawayInstallation) -> Iterator[ThrowawayInstallation]:
    """An installation to restore into, that has changed since `made`; its role may create databases."""
    cluster = template_installation.cluster
    copy = template_installation.copy(cluster.directory / f"target-{os.getpid()}-{uuid4().hex[:6]}")
    cluster.psql("ALTER ROLE gitlab CREATEDB")
    yield copy
    cluster.psql("ALTER ROLE gitlab NOCREATEDB")
    copy.remove()


@pytest.fixture(scope="module")
def original(target: ThrowawayInstallation) -> State:
    """What `target` was before it changed."""
    return compare.snapshot(target)


@pytest.fixture(scope="module")
def made(target: ThrowawayInstallation, original: State, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A backup of `target` from before it changed. Not to be changed."""
    assert original.files
    path = shutil.move(Backup.create(target.instance()).path, tmp_path_factory.mktemp("made"))
    change(target, seed=5)
    return Backup(path)


@pytest.fixture(scope="module")
def before(target: ThrowawayInstallation, made: Backup) -> State:
    """What `target` was after it changed."""
    assert made.path.exists()
    return compare.snapshot(target, excluded=True)


@frozen
class World:
    """An installation, a backup of it, and its states then and now."""

    target: ThrowawayInstallation
    made: Backup
    original: State
    before: State


@pytest.fixture(scope="module")
def world(target: ThrowawayInstallation, made: Backup, original: State, before: State) -> World:
    """All of it."""
    return World(target, made, original, before)


@pytest.fixture
def backup(made: Backup, tmp_path: Path) -> Backup:
    """A copy of the backup, to be broken."""
    return Backup(shutil.copytree(made.path, tmp_path / made.id))
