"""The example of the documentation passes the suites that built-in archivers and codecs pass."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from tests.archivers.conformance import Bench, WarningConformance, component
from tests.archivers.files_run import instance
from tests.streams.codec_conformance import CompressingConformance
from tests.support import trees
from tests.support.accounts import unprivileged
from tests.support.compare import tree

from .example.gitlab_backup_bzip2 import Bzip2Codec
from .example.gitlab_backup_gnutar import GnuTarArchiver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Directory(Bench):
    """A directory with one of everything."""

    archiver = GnuTarArchiver

    def __init__(self, path: Path) -> None:
        self.path = path
        self.component = component("uploads")
        trees.create(path, files=5, seed="uploads", owner=unprivileged(), excluded="tmp")
        self.instance = evolve(instance(path), search_path=os.environ["PATH"])

    def state(self) -> Mapping[str, object]:
        return tree(self.path, leave_out="tmp") if self.path.exists() else {}

    def beside(self) -> Sequence[str]:
        return sorted({entry.name for entry in self.path.parent.iterdir()} - {self.path.name})

    def change(self) -> None:
        (self.path / "odd" / "run").unlink()
        (self.path / "odd" / "empty").write_bytes(b"not empty")
        (self.path / "later").write_bytes(b"not in the backup")

    def empty(self) -> None:
        self.path.rename(self.path.parent.parent / "lost")


class TestGnuTar(WarningConformance):
    """The archiver."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        above = tmp_path / "shared"
        above.mkdir()
        return Directory(above / "uploads")

    def spoil(self, bench: Bench) -> None:
        assert isinstance(bench, Directory)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(bench.path / "socket"))


class TestBzip2(CompressingConformance):
    """The codec."""

    large = 500_000

    @pytest.fixture
    def codec(self) -> Bzip2Codec:
        return Bzip2Codec()
