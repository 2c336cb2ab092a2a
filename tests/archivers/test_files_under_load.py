"""Trees that change all the time: what held still is exact in the archive, all else is as it once was, or named."""

from __future__ import annotations

import io
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.tar import TarReader, extract, write_tree
from tests.streams.tar_support import ListSink, no_pause
from tests.support.load import History, Load, running

from .files_run import Restore, back_up

if TYPE_CHECKING:
    from pathlib import Path


class _Stepping(Cancellation):
    """Has the tree changed wherever the archiver looks whether it is to stop: at each entry and each piece of data."""

    def __init__(self, load: Load, most: int) -> None:
        super().__init__()
        self._load = load
        self._most = most

    def check(self) -> None:
        super().check()
        if self._load.operations < self._most:
            self._load.step()


def _by_gnu_tar(data: bytes, target: Path) -> Path:
    target.mkdir()
    done = subprocess.run(["tar", "-xpf", "-", "-C", str(target)], input=data, capture_output=True, check=False)
    assert (0, b"") == (done.returncode, done.stderr)
    return target


def _by_us(data: bytes, target: Path) -> Path:
    target.mkdir()
    root = os.open(target, os.O_RDONLY)
    try:
        extracted = extract(io.BytesIO(data), root, cancel=Cancellation())
    finally:
        os.close(root)
    assert len(list(TarReader(io.BytesIO(data)))) == extracted.members
    return target


@pytest.mark.parametrize("seed", range(12))
def test_a_change_at_every_step(tmp_path: Path, seed: int) -> None:
    """Whatever changes between any two steps of the walk, the archive is sound and holds nothing that never was."""
    tree = tmp_path / "tree"
    tree.mkdir()
    load = Load(tree, seed)
    sink = ListSink()
    root = os.open(tree, os.O_RDONLY)
    try:
        # A burst that ends during the walk, and one that outlasts it.
        report = write_tree(root, sink, cancel=_Stepping(load, (100, 1000)[seed % 2]), pause=no_pause)
    finally:
        os.close(root)
    history = load.history()
    named = {item.name.removeprefix("./") for item in report.changed}
    named |= {item.name.removeprefix("./") for item in report.unreadable}
    assert len(history.stable) > 10
    assert load.operations >= 100
    assert [] == history.differences(_by_gnu_tar(bytes(sink.content), tmp_path / "gnu"), named)
    assert [] == history.differences(_by_us(bytes(sink.content), tmp_path / "own"), named)


def test_a_busy_directory(tmp_path: Path) -> None:
    """While another process does what it can to a directory, it is backed up, and restored as it was or as is named."""
    tree, kept = tmp_path / "tree", []
    tree.mkdir()
    with running(tree, 1) as end:
        for number in range(3):
            backup = tmp_path / f"backup-{number}"
            backup.mkdir()
            kept.append((backup, back_up(tree, backup, codec="none")))
        history: History = end()
    assert len(history.stable) > 20
    assert len(history.states) > len(history.stable) + 100
    for number, (backup, details) in enumerate(kept):
        named = {item["name"].removeprefix("./") for key in ("changed", "unreadable") for item in details[key]}  # type: ignore[union-attr, index, call-overload]
        target = tmp_path / f"restored-{number}"
        target.mkdir()
        Restore(target, backup, details).do("stage", "swap", "finish")
        assert [] == history.differences(target, named)
