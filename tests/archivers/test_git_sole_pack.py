"""Repositories whose objects are exactly one pack: it becomes their bundle as it is, or git makes another one."""

from __future__ import annotations

import hashlib
import os
import random
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.archivers.base import RepositoryOptions
from gitlab_backup.archivers.git import sole_pack as module
from gitlab_backup.archivers.git import walk
from gitlab_backup.archivers.git.sole_pack import SolePack, sole_pack
from gitlab_backup.errors import BackupFailedError, ComponentError
from tests.support.repositories import git

from .git_run import SCHEMA, clone, commit, init, refs_of, restored_refs
from .increments_run import IncrementBench, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gitlab_backup import Backup
    from gitlab_backup.streams.sink import Buffer
    from tests.support.postgres import Cluster

FULL = RepositoryOptions()


@pytest.fixture
def bench(cluster: Cluster, database: str, tmp_path: Path) -> IncrementBench:
    """A storage with nothing in it."""
    bench = IncrementBench(cluster, database, tmp_path)
    bench.sql(SCHEMA)
    bench.storage()
    return bench


def packed(bench: IncrementBench, *options: str, repack: tuple[str, ...] = ()) -> Path:
    """Make a repository with branches, hidden refs and an annotated tag, in one pack."""
    path = init(bench.project(1, path="one"), *options)
    first = commit(path, "refs/heads/main", "first")
    commit(path, "refs/heads/main", "second", parent=first)
    git(path, "update-ref", "refs/merge-requests/1/head", first)
    text = f"object {first}\ntype commit\ntag t\ntagger T <t@example.com> 0 +0000\n\nt\n".encode()
    git(path, "update-ref", "refs/tags/v1", git(path, "mktag", stdin=text).decode().strip())
    git(path, "pack-refs", "--all")
    git(path, "repack", "-a", "-d", "-q", *repack)
    return path


def pack_of(path: Path) -> Path:
    (pack,) = path.glob("objects/pack/*.pack")
    return pack


def bundle_of(backup: Backup) -> Path:
    return backup.path / f"repositories/default/one.git/{backup.id}/001.bundle"


def commands(bench: IncrementBench) -> list[str]:
    """Return the git commands that were run."""
    return [next(word for word in run if not word.startswith("-")) for run in bench.git_runs()]


def back_up(bench: IncrementBench) -> tuple[Backup, list[str]]:
    """Back up in full, verify that, and return what was run for it, too."""
    bench.git_runs()
    backup = bench.create(FULL)
    ran = commands(bench)
    assert () == backup.verify(jobs=1).damages
    return backup, ran


ORDINARY: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[Path], object]]] = {
    "plain": ((), ("--no-write-bitmap-index",), lambda _: None),
    "sha256": (("--object-format=sha256",), (), lambda _: None),
    "with a bitmap": ((), ("-b",), lambda _: None),
    "with a reverse index": ((), (), lambda path: git(path, "-c", "pack.writeReverseIndex=1", "repack", "-adfq")),
    "with a commit graph": ((), (), lambda path: git(path, "commit-graph", "write", "--reachable")),
    "with an index of packs": ((), (), lambda path: git(path, "multi-pack-index", "write")),
    "with info for servers": ((), (), lambda path: git(path, "update-server-info")),
    "refs in files": ((), (), lambda path: git(path, "update-ref", "refs/heads/new", "refs/heads/main")),
    "an unborn HEAD": ((), (), lambda path: git(path, "symbolic-ref", "HEAD", "refs/heads/unborn")),
    "empty directories": ((), (), lambda path: (path / "objects" / "4b").mkdir(exist_ok=True)),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_it_is_copied(bench: IncrementBench, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """git only counts, if there is much; the bundle is its own header and the pack, and git and our restore take it."""
    options, repack, change = ORDINARY[kind]
    path = packed(bench, *options, repack=repack)
    change(path)
    _, ran = back_up(bench)
    assert [] == ran
    monkeypatch.setattr(walk, "_MOST_OBJECTS", 0)
    backup, ran = back_up(bench)
    assert ["rev-list"] == ran
    header, _, pack = bundle_of(backup).read_bytes().partition(b"\n\n")
    assert pack_of(path).read_bytes() == pack
    git(path, "bundle", "create", "--quiet", str(tmp_path / "by-git"), "--all")
    assert (tmp_path / "by-git").read_bytes().partition(b"\n\n")[0] == header
    object_format = "sha256" if kind == "sha256" else "sha1"
    assert refs_of(path) == restored_refs(bundle_of(backup), tmp_path, object_format)
    clone(bundle_of(backup), tmp_path / "cloned")
    assert refs_of(path) == refs_of(tmp_path / "cloned")
    assert state(path) == state(bench.restored(backup) / "one.git", walked=True)


def _delete_branch(path: Path) -> None:
    commit(path, "refs/heads/secret", "secret")
    git(path, "repack", "-adq")
    git(path, "update-ref", "-d", "refs/heads/secret")


def _second_pack(path: Path) -> None:
    commit(path, "refs/heads/new", "new")
    git(path, "repack", "-dq")


def _share(path: Path) -> None:
    pool = init(path.parent / "pool.git")
    shared = commit(pool, "refs/heads/shared", "shared")
    (path / "objects" / "info").mkdir(exist_ok=True)
    (path / "objects" / "info" / "alternates").write_text("../../pool.git/objects\n")
    git(path, "update-ref", "refs/heads/shared", shared)


def _link_pack(path: Path) -> None:
    pack = pack_of(path)
    pack.symlink_to(pack.rename(path / "elsewhere"))


def _link_objects(path: Path) -> None:
    (path / "objects").rename(path.parent / "objects")
    (path / "objects").symlink_to("../objects")


def _stop_at(path: Path, name: str) -> None:
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(git(path, "rev-parse", "refs/merge-requests/1/head").decode())


OTHERS: dict[str, Callable[[Path], object]] = {
    "an object in a file": lambda path: commit(path, "refs/heads/new", "new"),
    "a second pack": _second_pack,
    "objects that nothing leads to": _delete_branch,
    "objects of a pool": _share,
    "objects of another server": lambda path: (path / "objects/info/http-alternates").write_text("/elsewhere\n"),
    "a pack that is kept": lambda path: pack_of(path).with_suffix(".keep").touch(),
    "a pack of a partial clone": lambda path: pack_of(path).with_suffix(".promisor").touch(),
    "a pack in the making": lambda path: (path / "objects/pack/tmp_pack_a1b2c3").touch(),
    "a push in the making": lambda path: (path / "objects/tmp_objdir-incoming-a1b2c3/pack").mkdir(parents=True),
    "a file that nobody knows": lambda path: (path / "objects/unknown").touch(),
    "a pack elsewhere": _link_pack,
    "objects elsewhere": _link_objects,
    "a symbolic ref": lambda path: git(path, "symbolic-ref", "refs/heads/symbolic", "refs/heads/main"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_all_else_is_left_to_git(bench: IncrementBench, tmp_path: Path, kind: str) -> None:
    """Where there is anything else, or too much, git makes the pack, with what the refs lead to and nothing more."""
    path = packed(bench)
    (path / "objects" / "info").mkdir(exist_ok=True)
    OTHERS[kind](path)
    expected = state(path)
    backup, ran = back_up(bench)
    assert "pack-objects" == ran[-1]
    git_dir = init(tmp_path / "fetched.git")
    git(git_dir, "fetch", "--quiet", str(bundle_of(backup)), "+refs/*:refs/*")
    assert refs_of(path) == refs_of(git_dir)
    listed = git(path, "rev-list", "--objects", "--all").decode().split("\n")[:-1]
    (unpacked,) = [line for line in git(git_dir, "count-objects", "-v").decode().split("\n") if "count: " in line]
    in_pack = [line for line in git(git_dir, "count-objects", "-v").decode().split("\n") if "in-pack: " in line]
    found = int(unpacked.split()[1]) + int(in_pack[0].split()[1])
    assert len({line.split()[0] for line in listed}) == found
    assert expected == state(bench.restored(backup) / "one.git", walked=True)


@pytest.mark.parametrize("name", ["shallow", "info/grafts"])
def test_histories_that_are_cut_are_left_to_git(bench: IncrementBench, name: str) -> None:
    """What makes git see less of a history than there is is git's own affair."""
    path = packed(bench)
    _stop_at(path, name)
    with sole_pack(str(path)) as pack:
        assert pack is None


def test_an_object_that_is_missing_is_found(bench: IncrementBench) -> None:
    """A pack without something that the refs lead to is never copied: the repository fails, and git says why."""
    path = packed(bench)
    blob = git(path, "rev-parse", "main~1:file").decode().strip()
    listed = git(path, "rev-list", "--objects", "--all").decode().split("\n")[:-1]
    others = "".join(f"{line.split()[0]}\n" for line in listed if not line.startswith(blob))
    old = pack_of(path)
    git(path, "pack-objects", "--quiet", str(path / "objects/pack/pack"), stdin=others.encode())
    for file in (path / "objects/pack").glob(f"{old.stem}.*"):
        file.unlink()
    with sole_pack(str(path)) as pack:
        assert pack is not None
    with pytest.raises(BackupFailedError, match=rf"(unable to read|missing blob object) .?{blob}"):
        bench.create(FULL)


def test_a_pack_that_is_damaged_is_not_copied(bench: IncrementBench) -> None:
    """Bytes that have changed are noticed while the pack is read, also where git has counted all objects."""
    path = packed(bench)
    blob = git(path, "rev-parse", "main:file").decode().strip()
    pack = pack_of(path)
    lines = git(path, "verify-pack", "-v", str(pack)).decode().split("\n")
    offset = next(int(line.split()[4]) for line in lines if line.startswith(blob))
    pack.chmod(0o600)
    content = bytearray(pack.read_bytes())
    content[offset + 6] ^= 0xFF
    pack.write_bytes(content)
    with pytest.raises(BackupFailedError, match=f"the checksum of objects/pack/{pack.name} is wrong"):
        bench.create(FULL)


def test_a_ref_to_nothing_is_an_error(bench: IncrementBench) -> None:
    """A ref whose object is not in the pack fails the repository, as it does where git packs."""
    path = packed(bench)
    (path / "refs/heads/broken").write_text("1" * 40 + "\n")
    with pytest.raises(BackupFailedError, match=f"bad object {'1' * 40}"):
        bench.create(FULL)


def test_housekeeping_may_replace_it_meanwhile(bench: IncrementBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that is gone before it is copied is copied all the same."""
    monkeypatch.setattr(walk, "_MOST_OBJECTS", 0)
    path = packed(bench)
    content = pack_of(path).read_bytes()
    expected = state(path)
    bench.git_runs()
    program = bench.directory / "bin" / "git"
    real = program.read_text().replace("exec ", "")
    program.write_text(f'{real}case "$*" in *rev-list*) rm -f {path}/objects/pack/*;; esac\n')
    backup = bench.create(FULL)
    assert content == bundle_of(backup).read_bytes().partition(b"\n\n")[2]
    program.unlink()
    (bench.directory / "bin").rmdir()
    assert expected == state(bench.restored(backup) / "one.git", walked=True)


def test_a_count_that_is_none_is_an_error(bench: IncrementBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that counts nothing and says that all is well is not believed."""
    monkeypatch.setattr(walk, "_MOST_OBJECTS", 0)
    packed(bench)
    bench.git_runs()
    program = bench.directory / "bin" / "git"
    text = program.read_text()
    program.write_text(text.replace("exec ", 'case "$*" in *rev-list*) exit 0;; esac\nexec ', 1))
    with pytest.raises(BackupFailedError, match="does not say how many"):
        bench.create(FULL)


def test_verify_reads_a_copied_pack(bench: IncrementBench) -> None:
    """Verify compares the checksum of the pack, wherever its bytes have changed."""
    packed(bench)
    backup, _ = back_up(bench)
    bundle = bundle_of(backup)
    content = bytearray(bundle.read_bytes())
    content[-30] ^= 1
    bundle.write_bytes(content)
    damages = [damage for damage in backup.verify(jobs=1).damages if "checksum is wrong" in damage.problem]
    assert [str(bundle.relative_to(backup.path))] == [damage.file for damage in damages]


class _Kept:
    """A sink that keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: Buffer, /) -> None:
        self.data += data

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


@pytest.mark.parametrize("beyond", [-21, -20, -19, -1, 0, 1, 19, 20, 21])
def test_the_checksum_may_lie_in_two_pieces(tmp_path: Path, beyond: int) -> None:
    """Wherever a piece ends, the checksum is that of all before it; one byte less, and the pack is unusable."""
    body = random.Random(beyond).randbytes(2 * module._PIECE + beyond - 20)
    content = body + hashlib.sha1(body, usedforsecurity=False).digest()
    file = tmp_path / "pack"
    file.write_bytes(content)
    fd = os.open(file, os.O_RDONLY)
    try:
        sink = _Kept()
        SolePack("here", "beside", 1, len(content), fd).copy(sink, "sha1")
        assert content == sink.data
        os.truncate(file, len(content) - 1)
        with pytest.raises(ComponentError, match="checksum of here"):
            SolePack("here", "beside", 1, len(content), fd).copy(_Kept(), "sha1")
    finally:
        os.close(fd)
