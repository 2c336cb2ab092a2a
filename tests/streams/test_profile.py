"""The figures of a run's stages."""

from __future__ import annotations

import gzip
import io
import os
from typing import TYPE_CHECKING

from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.codec import codec_named
from gitlab_backup.streams.files import FileSink, sync_tree
from gitlab_backup.streams.process import Program, capture
from gitlab_backup.streams.profile import (
    COMPRESSING,
    DECOMPRESSING,
    DIGESTING,
    SYNCING,
    WRITING,
    Figures,
    Profile,
    output_of,
    profiling,
)

if TYPE_CHECKING:
    from pathlib import Path

DATA = os.urandom(3 << 20)


def work(directory: Path, name: str) -> int:
    """Compress, write, sync, read and run a program; return the size of the file."""
    sink = FileSink(directory / name)
    writer = codec_named("gzip").writer(sink)
    writer.write(DATA)
    writer.finish()
    sync_tree(directory)
    codec_named("gzip").reader(io.BytesIO(gzip.compress(DATA, 1))).read()
    capture(Program(("/usr/bin/env", "echo", "five"), {}), cancel=Cancellation())
    return sink.size


def test_every_stage_counts_its_bytes(tmp_path: Path) -> None:
    """What went through each stage within the block is counted there once, and what came before or after is not."""
    work(tmp_path, "before")
    with profiling() as profile:
        size = work(tmp_path, "within")
    work(tmp_path, "after")
    expected = {
        COMPRESSING: len(DATA),
        WRITING: size,
        DIGESTING: size,
        SYNCING: 0,
        DECOMPRESSING: len(DATA),
        output_of("env"): len(b"five\n"),
    }
    counted = dict(profile.stages())
    assert expected == {stage: counted[stage].bytes for stage in expected}
    assert all(0 < counted[stage].seconds < 60 for stage in expected)


def test_the_longest_stage_comes_first() -> None:
    """Figures of one stage are added up, and stages are in the order of their time."""
    profile = Profile()
    profile.add(DIGESTING, 1, 2.0, 1.0)
    profile.add(WRITING, 10, 1.0, 0.25)
    profile.add(WRITING, 10, 2.0, 0.25)
    assert [(WRITING, Figures(20, 3.0, 0.5)), (DIGESTING, Figures(1, 2.0, 1.0))] == profile.stages()
