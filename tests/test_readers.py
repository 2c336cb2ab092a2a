"""Whatever bytes there are where something is expected, a reader takes them or raises an error of ours, and soon."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import frozen
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gitlab_backup.archivers.git.bundle import BundleReader
from gitlab_backup.archivers.git.layout import RepositoryManifest, Step, read_refs
from gitlab_backup.archivers.git.lines import Lines
from gitlab_backup.archivers.gitaly.log import Log
from gitlab_backup.checksums import Checksums
from gitlab_backup.errors import GitLabBackupError
from gitlab_backup.instance import Instance
from gitlab_backup.instance.gitaly_toml import storage_paths
from gitlab_backup.manifest import Manifest
from gitlab_backup.metadata import Metadata
from gitlab_backup.operations.journal import Journal
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.codec import codec_for
from gitlab_backup.streams.tar import extract
from tests.documents.mutation import mutated_bytes
from tests.documents.test_manifest import SAMPLE as MANIFEST
from tests.instance.sample import DATABASE_YML, GITLAB_YML, install
from tests.streams.tar_support import archive

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn

_MOST_SECONDS = 5
"""Far more than any of these documents needs on a busy machine, and far less than a reader that is led astray."""
_MOST_BYTES = 64 << 20
_OID = "0123456789abcdef0123456789abcdef01234567"
_PACK = b"PACK\0\0\0\2\0\0\0\0"


@frozen
class _Reader:
    name: str
    valid: bytes
    read: Callable[[bytes, Path], object]
    """Takes the bytes, and an empty directory to lay them in."""


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def laid(data: bytes, directory: Path) -> object:
        (directory / name).write_bytes(data)
        return read(directory / name)

    return laid


def _installed(name: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, directory: Path) -> object:
        installation = install(directory)
        (installation.root / "config" / name).write_bytes(data)
        return Instance.load(gitlab_path=installation.root, environ={})

    return read


def _context(data: bytes, directory: Path) -> object:
    installation = install(directory)
    places = {b"@gitlab": installation.gitlab_yml, b"@database": installation.database_yml}
    for name, place in places.items():
        data = data.replace(name, os.fsencode(place))
    (directory / "context.yml").write_bytes(data)
    return Instance.load(context=directory / "context.yml", gitlab_path=installation.root, environ={})


def _bundle(data: bytes, _: Path) -> object:
    reader = BundleReader(Lines(io.BytesIO(data)))
    reader.start()
    return list(reader.refs()), reader.pack(lambda: None)


def _log(data: bytes, _: Path) -> object:
    log = Log("create", lambda _: None, lambda text: text)
    log.write(data)
    log.finish()
    return log.last_words


def _stream(name: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, _: Path) -> object:
        reader = codec_for(name).reader(io.BytesIO(data))
        size = 0
        while piece := reader.read(1 << 16):
            size += len(piece)
        return size

    return read


def _compressed(name: str) -> bytes:
    class Sink:
        data = b""

        def write(self, data: bytes | bytearray | memoryview, /) -> None:
            self.data += data

        def finish(self) -> None:
            pass

        def abort(self) -> None:
            pass

    from concurrent.futures import ThreadPoolExecutor

    sink = Sink()
    with ThreadPoolExecutor(1) as pool:
        writer = codec_for(name).writer(sink, level=None, pool=pool)
        writer.write(b"some text, again and again, " * 300)
        writer.finish()
    return sink.data


def _extracted(data: bytes, directory: Path) -> object:
    target = directory / "target"
    target.mkdir()
    fd = os.open(target, os.O_RDONLY)
    try:
        return extract(io.BytesIO(data), fd, cancel=Cancellation())
    finally:
        os.close(fd)
        # All there is lies in the directory that was handed in.
        assert [target] == list(directory.iterdir())


def _archive() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        (tree / "d/e").mkdir(parents=True)
        (tree / "d/file").write_bytes(b"content" * 100)
        (tree / "d/link").symlink_to("../../elsewhere")
        (tree / "hard").hardlink_to(tree / "d/file")
        (tree / ("n" * 200)).touch()
        return archive(tree)[0]


_STEP = Step.of("default", "@hashed/a.git", "1", 1)
_SUMS = b"".join(b"%s  db/%d.sql.gz\n" % (hashlib.sha256(b"%d" % n).hexdigest().encode(), n) for n in range(4))
_JOURNAL = {
    "journal_version": 1,
    "backup": "/backups/1714053314_2024_04_25_17.0.0-pre",
    "keep_old": False,
    "phase": "staging",
    "entries": [{"component": "uploads", "archiver": "files", "facts": {"staging": "/x", "names": [["a", "b"]]}}],
}
_METADATA = {
    "metadata_version": 2,
    "backup_id": "1714053314_2024_04_25_17.0.0-pre",
    "created_at": "2024-04-25T13:55:14Z",
    "gitlab_version": "17.0.0-pre",
}
_LINE = {
    "msg": "completed create",
    "command": "create",
    "storage_name": "default",
    "relative_path": "a.git",
    "error": "x",
    "time": "2024-04-25T13:55:14Z",
}

READERS = [
    _Reader("metadata", json.dumps(_METADATA).encode(), lambda data, _: Metadata.from_json(data, source="x")),
    _Reader("manifest", MANIFEST.to_json(), lambda data, _: Manifest.from_json(data, source="x")),
    _Reader("SHA256SUMS", _SUMS, lambda data, _: Checksums.from_bytes(data, source="x")),
    _Reader("gitlab.yml", GITLAB_YML.encode(), _installed("gitlab.yml")),
    _Reader("database.yml", DATABASE_YML.encode(), _installed("database.yml")),
    _Reader(
        "context",
        b"version: 1\ninstallation_type: omnibus\n"
        b"gitlab:\n  config_path: @gitlab\ndatabase:\n  config_path: @database\n",
        _context,
    ),
    _Reader(
        "config.toml",
        b'socket_path = "/s"\n[[storage]]\nname = "default"\npath = "/srv/repositories"\n[auth]\ntoken = "x"\n',
        _file("config.toml", storage_paths),
    ),
    _Reader("journal", json.dumps(_JOURNAL, indent=1).encode(), _file("journal", Journal.read)),
    _Reader(
        "repository manifest",
        RepositoryManifest(object_format="sha1", steps=(_STEP,), head_reference="refs/heads/main").to_toml(),
        lambda data, _: RepositoryManifest.from_toml(data),
    ),
    _Reader(
        "refs",
        "".join(f"{_OID} {name}\n" for name in ("HEAD", "refs/heads/main", "refs/tags/v1")).encode(),
        lambda data, _: list(read_refs(Lines(io.BytesIO(data)))),
    ),
    _Reader(
        "bundle",
        f"# v2 git bundle\n-{_OID} one\n{_OID} refs/heads/main\n\n".encode() + _PACK + hashlib.sha1(_PACK).digest(),  # noqa: S324
        _bundle,
    ),
    _Reader("gitaly-backup log", json.dumps(_LINE).encode() + b"\nplain words\n", _log),
    _Reader("gzip", _compressed("x.gz"), _stream("x.gz")),
    _Reader("zstd", _compressed("x.zst"), _stream("x.zst")),
    _Reader("tar", _archive(), _extracted),
]


@st.composite
def _hostile(draw: DrawFn, valid: bytes) -> bytes:
    """Damaged documents, and what some parsers fall over: depth, length, numbers, encodings."""
    kind = draw(st.sampled_from(["damaged"] * 6 + ["inserted", "inserted", "encoded", "other"]))
    if kind == "damaged":
        return draw(mutated_bytes(valid))
    if kind == "inserted":
        at = draw(st.integers(0, len(valid)))
        return valid[:at] + draw(st.sampled_from(_BOMBS)) + valid[at:]
    if kind == "encoded":
        encoding = draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "cp037"]))
        return valid.decode("latin-1").encode(encoding, "replace")
    return draw(st.sampled_from(_BOMBS) | st.binary(max_size=200))


_BOMBS = (
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"{a: " * 20_000,
    b"- " * 20_000,
    b"a." * 20_000 + b"b = 1\n",
    b"9" * 20_000,
    b"1e999999999",
    b"x" * 200_000,
    b"\n" * 100_000,
    b"\0" * 100_000,
    b"\xff\xfe\xfd",
    b"&a [*a, *a]",
    b"a: &a [x,x,x,x,x,x,x,x]\n" + b"".join(b"b%d: &b%d [%s]\n" % (n, n, b",".join([b"*a"] * 8)) for n in range(9)),
    b"<<: *a\n",
    b"!!python/object/apply:os.system [touch sprung]",
    b'"\\ud800"',
    b"0001-01-01",
    b"2024-13-45T99:99:99",
)


def _within_bounds(reader: _Reader, data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="readers-") as directory:
        started = time.thread_time()
        with suppress(GitLabBackupError):
            reader.read(data, Path(directory))
        assert time.thread_time() - started < _MOST_SECONDS
        _reachable(Path(directory))


def _reachable(directory: Path) -> None:
    """Make all below a directory removable, whatever modes an archive has given it."""
    for parent, directories, _ in os.walk(directory):
        for name in directories:
            with suppress(OSError):
                (Path(parent) / name).chmod(0o700)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_the_documents_are_valid(reader: _Reader, tmp_path: Path) -> None:
    """What is about to be damaged is what the reader takes; else the other tests would show nothing."""
    reader.read(reader.valid, tmp_path)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_any_bytes_end_in_success_or_an_error_of_ours(reader: _Reader) -> None:
    """Damaged, deep, long, odd or of another kind: no other exception, and never for long."""

    @settings(max_examples=settings().max_examples * 2)
    @given(data=_hostile(reader.valid))
    @example(data=b"")
    def any_bytes(data: bytes) -> None:
        _within_bounds(reader, data)

    any_bytes()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_memory_is_bounded(reader: _Reader, tmp_path: Path) -> None:
    """The documents that parsers fall over do not take more memory than a small multiple of their size."""
    tracemalloc.start()
    try:
        for number, bomb in enumerate(_BOMBS):
            for data in (bomb, reader.valid + bomb):
                place = tmp_path / f"{number}-{len(data)}"
                place.mkdir()
                with suppress(GitLabBackupError):
                    reader.read(data, place)
                _reachable(place)
                shutil.rmtree(place)
        assert tracemalloc.get_traced_memory()[1] < _MOST_BYTES
    finally:
        tracemalloc.stop()
    assert not Path("sprung").exists()
