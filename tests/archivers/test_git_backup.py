"""The git archiver's backups of real repositories, read by an independent reader and by git itself."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup.archivers.git import GitArchiver
from gitlab_backup.errors import CancelledError, ComponentError, ProgramNotFoundError, StreamError
from gitlab_backup.instance import Storage
from tests.support import repositories
from tests.support.accounts import is_root
from tests.support.repositories import Shape, git, hashed

from .git_run import COMPONENT, SCHEMA, Bench, clone, commit, init, job_of, refs_of, restored_refs, stored, verify

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation
    from tests.support.postgres import Cluster


@pytest.fixture
def bench(cluster: Cluster, database: str, tmp_path: Path) -> Bench:
    """An empty database with GitLab's tables, and a place for storages."""
    bench = Bench(cluster, database, tmp_path)
    bench.sql(SCHEMA)
    bench.storage()
    return bench


def path_of(number: int) -> str:
    return f"{hashed('@hashed', number)}.git"


def shaped(bench: Bench, shape: Shape, number: int = 1) -> Path:
    pool = bench.storage() / f"{hashed('@pools', 1)}.git"
    if shape is Shape.POOLED:
        repositories.create_pool(pool)
    path = bench.project(number)
    repositories.create(path, shape, salt=str(number), pool=pool)
    return path


@pytest.mark.parametrize("shape", [Shape.ORDINARY, Shape.LOOSE, Shape.UNBORN, Shape.SHA256, Shape.POOLED])
def test_all_refs_come_back(bench: Bench, shape: Shape) -> None:
    """Whatever a repository is like, git gets from the bundle alone exactly its refs, which the list names, too."""
    source = shaped(bench, shape)
    details = bench.back_up()
    kept = stored(bench.root, path_of(1))
    object_format = "sha256" if shape is Shape.SHA256 else "sha1"
    head = "trunk" if shape is Shape.UNBORN else "main"
    assert kept.manifest == {
        "empty": False,
        "non_existent": False,
        "object_format": object_format,
        "head_reference": f"refs/heads/{head}",
    }
    expected = refs_of(source)
    assert git(source, "show-ref", "--head") == b"".join(oid.encode() + b" " + name + b"\n" for oid, name in kept.refs)
    assert kept.bundle is not None
    assert expected == restored_refs(kept.bundle, bench.directory, object_format)
    assert ([] if shape is Shape.UNBORN else [b"HEAD"]) == [name for _, name in kept.refs[:1] if name == b"HEAD"]
    assert {"default": 3} == details["storages"]
    assert [] == bench.verify(details)
    assert [] == bench.warnings


@pytest.mark.parametrize("shape", [Shape.ORDINARY, Shape.SHA256])
def test_the_header_is_that_of_git(bench: Bench, shape: Shape) -> None:
    """The header of our bundle is, byte for byte, the one that git bundle create --all writes."""
    source = shaped(bench, shape)
    bench.back_up()
    theirs = bench.directory / "theirs.bundle"
    git(source, "bundle", "create", "--quiet", str(theirs), "--all")
    assert theirs.read_bytes().partition(b"\n\n")[0] + b"\n" == stored(bench.root, path_of(1)).header


def test_a_bundle_can_be_cloned(bench: Bench) -> None:
    """git clone of the bundle alone gives the branches of the repository."""
    source = shaped(bench, Shape.ORDINARY)
    bench.back_up()
    bundle = stored(bench.root, path_of(1)).bundle
    assert bundle is not None
    clone(bundle, bench.directory / "clone.git")
    assert refs_of(source) == refs_of(bench.directory / "clone.git")


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_an_empty_repository_has_an_empty_list_of_refs(bench: Bench, object_format: str) -> None:
    """Without a commit: an empty list, no bundle, and a manifest that says so, and in which format."""
    init(bench.project(1), f"--object-format={object_format}")
    details = bench.back_up()
    kept = stored(bench.root, path_of(1))
    assert {
        "empty": True,
        "non_existent": False,
        "object_format": object_format,
        "head_reference": "refs/heads/main",
    } == kept.manifest
    refs = bench.root / "repositories" / "default" / path_of(1) / "1714053314_2024_04_25_17.0.0" / "001.refs"
    assert b"" == refs.read_bytes()
    assert kept.bundle is None
    assert (3, 1, 2) == (details["repositories"], details["empty"], details["missing"])
    assert [] == bench.verify(details)


def test_a_missing_repository_is_recorded_as_such(bench: Bench) -> None:
    """A row without a directory is normal: a manifest that every version of gitaly-backup can read, and no files."""
    bench.project(1)
    init(bench.project(2))
    details = bench.back_up()
    kept = stored(bench.root, path_of(1))
    assert {"empty": True, "non_existent": True, "object_format": "sha1"} == kept.manifest
    assert not (bench.root / "repositories" / "default" / path_of(1)).exists()
    assert [] == bench.verify(details)
    assert [] == bench.warnings


def test_not_one_project_on_a_storage_is_worth_a_warning(bench: Bench) -> None:
    """Where no listed project exists, the directory is probably not the storage: said, not passed over."""
    bench.project(1)
    bench.back_up()
    assert ["none of the 1 project repositories"] == [warning[:34] for warning in bench.warnings]


def test_a_detached_head_is_kept(bench: Bench) -> None:
    """A detached HEAD, on a commit that no branch has, is the first ref, in the bundle, and no head_reference."""
    source = init(bench.project(1))
    first = commit(source, "refs/heads/main", "one")
    lonely = commit(source, "refs/heads/gone", "two")
    git(source, "update-ref", "--no-deref", "HEAD", lonely)
    (source / "HEAD").write_text(f"{lonely}\n")
    git(source, "update-ref", "-d", "refs/heads/gone")
    details = bench.back_up()
    kept = stored(bench.root, path_of(1))
    assert [(lonely, b"HEAD"), (first, b"refs/heads/main")] == kept.refs
    assert "head_reference" not in kept.manifest
    assert kept.header.endswith(f"{first} refs/heads/main\n{lonely} HEAD\n".encode())
    assert kept.bundle is not None
    fresh = init(bench.directory / "fresh.git")
    git(fresh, "fetch", "--quiet", str(kept.bundle), "HEAD:refs/heads/lonely")
    assert lonely == git(fresh, "rev-parse", "refs/heads/lonely").decode().strip()
    assert [] == bench.verify(details)


def test_unusual_refs_are_kept(bench: Bench) -> None:
    """Hidden refs, tags of tags, refs to trees and blobs, symbolic refs, names of any bytes: all are there."""
    source = init(bench.project(1))
    oid = commit(source, "refs/heads/main", "one")
    tree = git(source, "rev-parse", "main^{tree}").decode().strip()
    blob = git(source, "rev-parse", "main:file").decode().strip()
    for name, target in {
        "refs/keep-around/x": oid,
        "refs/merge-requests/1/head": oid,
        "refs/tags/tree": tree,
        "refs/tags/blob": blob,
        "refs/replace/" + blob: tree,
        "refs/heads/@": oid,
        "refs/heads/-dash": oid,
        'refs/heads/it\'s"quoted"': oid,
        "refs/heads/" + "long/" * 40 + "x": oid,
    }.items():
        git(source, "update-ref", name, target)
    (source / "refs" / "heads" / "latin-\udce9").write_text(f"{oid}\n", errors="surrogateescape")
    git(source, "symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/main")
    tagger = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
    git(source, *tagger, "tag", "-a", "-m", "t", "v1", oid)
    git(source, *tagger, "tag", "-a", "-m", "tt", "v1-again", "v1")
    git(source, "config", "transfer.hideRefs", "refs/keep-around")
    details = bench.back_up()
    kept = stored(bench.root, path_of(1))
    assert refs_of(source) == kept.refs[1:]
    assert 14 == len(kept.refs[1:])
    assert kept.bundle is not None
    assert refs_of(source) == restored_refs(kept.bundle, bench.directory)
    assert [] == bench.verify(details)


def test_a_head_that_is_a_link_or_not_utf8(bench: Bench) -> None:
    """A HEAD of old, a symbolic link, is understood; a branch name that TOML cannot hold is left out, and said."""
    link, latin = init(bench.project(1)), init(bench.project(2))
    commit(link, "refs/heads/main", "one")
    (link / "HEAD").unlink()
    (link / "HEAD").symlink_to("refs/heads/main")
    (latin / "HEAD").write_bytes(b"ref: refs/heads/\xe9\n")
    bench.back_up()
    assert "refs/heads/main" == stored(bench.root, path_of(1)).manifest["head_reference"]
    assert "head_reference" not in stored(bench.root, path_of(2)).manifest
    assert [True] == ["not UTF-8" in warning for warning in bench.warnings]


def test_custom_hooks_are_a_plain_tar(bench: Bench) -> None:
    """Members custom_hooks/…, with modes, links as links, nothing but files, directories and links."""
    source = shaped(bench, Shape.LOOSE)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(source / "custom_hooks", os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    details = bench.back_up()
    hooks = stored(bench.root, path_of(1)).hooks
    assert hooks is not None
    with tarfile.open(hooks, "r:") as archive:
        found = {member.name: (member.type, member.mode, member.linkname) for member in archive}
    assert {
        "custom_hooks": (tarfile.DIRTYPE, (source / "custom_hooks").stat().st_mode & 0o7777, ""),
        "custom_hooks/notes.txt": (tarfile.REGTYPE, 0o640, ""),
        "custom_hooks/post-receive": (tarfile.SYMTYPE, 0o777, "pre-receive.d/10-check"),
        "custom_hooks/pre-receive.d": (tarfile.DIRTYPE, 0o755, ""),
        "custom_hooks/pre-receive.d/10-check": (tarfile.REGTYPE, 0o755, ""),
    } == found
    into = bench.directory / "into"
    into.mkdir()
    subprocess.run(["tar", "-xf", hooks, "-C", into, "custom_hooks"], check=True)
    assert "not a hook\n" == (into / "custom_hooks" / "notes.txt").read_text()
    assert [True] == ["custom_hooks/socket" in warning for warning in bench.warnings]
    assert [] == bench.verify(details)


def break_objects(path: Path) -> None:
    (path / "objects").rename(path / "objects.away")


def break_head(path: Path) -> None:
    (path / "HEAD").write_text("nonsense\n")


def miss_object(path: Path) -> None:
    oid = git(path, "rev-parse", "main:file").decode().strip()
    (path / "objects" / oid[:2] / oid[2:]).unlink()


def miss_tip(path: Path) -> None:
    (path / "refs" / "heads" / "gone").write_text("1" * 40 + "\n")


def corrupt_object(path: Path) -> None:
    oid = git(path, "rev-parse", "main:file").decode().strip()
    file = path / "objects" / oid[:2] / oid[2:]
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-4] + b"????")


def use_reftable(path: Path) -> None:
    (path / "reftable").mkdir()


def become_file(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.write_text("a file\n")


def pipe_head(path: Path) -> None:
    (path / "HEAD").unlink()
    os.mkfifo(path / "HEAD")


DAMAGES = [
    break_objects,
    break_head,
    miss_object,
    miss_tip,
    corrupt_object,
    use_reftable,
    become_file,
    pipe_head,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_repository_is_its_own_problem(bench: Bench, damage: object) -> None:
    """The component fails and names it; told to keep going, all others are in the backup, and nothing of this one."""
    bad, good = init(bench.project(1)), init(bench.project(2))
    (bad / "custom_hooks").mkdir()
    commit(bad, "refs/heads/main", "one")
    commit(good, "refs/heads/main", "one")
    damage(bad)  # type: ignore[operator]
    with pytest.raises(
        ComponentError, match=r"1 repositories could not be backed up:\n  - project 1 \(default/@hashed"
    ):
        bench.back_up()
    bench.root.rename(bench.directory / "first")
    bench.warnings.clear()
    details = bench.back_up(keep_going=True)
    assert details["failed"] == bench.warnings
    assert [True] == ["project 1 (default/@hashed/6b/86" in warning for warning in bench.warnings]
    assert [] == [path for path in (bench.root / "repositories").rglob("*") if path.name == path.parent.name]
    names = [str(path) for path in (bench.root / "repositories").rglob("*")]
    assert [] == [name for name in names if name.endswith(path_of(1)) or f"{path_of(1)}/" in name]
    assert refs_of(good) == stored(bench.root, path_of(2)).refs[1:]
    assert [] == bench.verify(details)


def test_broken_refs_are_said(bench: Bench) -> None:
    """A ref that names nothing is no reason to lose the others; git's words about it are a warning."""
    source = init(bench.project(1))
    commit(source, "refs/heads/main", "one")
    (source / "refs" / "heads" / "broken").write_text("garbage\n")
    details = bench.back_up()
    assert [b"HEAD", b"refs/heads/main"] == [name for _, name in stored(bench.root, path_of(1)).refs]
    assert [True] == ["ignoring broken ref refs/heads/broken" in warning for warning in bench.warnings]
    assert [] == bench.verify(details)


def test_stale_locks_do_not_matter(bench: Bench) -> None:
    """Locks that a crash has left do not keep a repository from being read."""
    source = init(bench.project(1))
    commit(source, "refs/heads/main", "one")
    for name in ("HEAD.lock", "packed-refs.lock", "config.lock", "refs/heads/main.lock"):
        (source / name).touch()
    bench.back_up()
    assert refs_of(source) == stored(bench.root, path_of(1)).refs[1:]


@pytest.mark.parametrize("path", ["/etc/x", "../../x", "@hashed/../../x", "a//b", "+gitaly/x", "a\\b", "x" * 250])
def test_a_hostile_path_is_refused(bench: Bench, path: str) -> None:
    """A path from the database that leads out of the storage is never followed: three failures, all else is there."""
    bench.project(1, path=path)
    outside = init(bench.directory / "x.git")
    commit(outside, "refs/heads/main", "one")
    init(bench.project(2))
    details = bench.back_up(keep_going=True)
    failed = details["failed"]
    assert isinstance(failed, list)
    assert 3 == len(failed) == len(bench.warnings)
    assert 3 == details["repositories"]
    assert [] == bench.verify(details)


def test_a_place_listed_twice_is_backed_up_once(bench: Bench) -> None:
    """Two rows of one place: the second one is named as a failure, the first one is whole."""
    source = init(bench.project(1, path="a/b.wiki"))
    commit(source, "refs/heads/main", "one")
    bench.project(2, path="a/b")
    details = bench.back_up(keep_going=True, jobs=1)
    assert [True] == ["a second time" in warning for warning in bench.warnings if "mounted" not in warning]
    assert [] == bench.verify(details)


def test_nothing_of_a_repository_is_run(bench: Bench) -> None:
    """Programs that a repository's own configuration names are not started, not even for an object that is missing."""
    trap = bench.directory / "trap"
    touched = bench.directory / "touched"
    trap.write_text(f"#!/bin/sh\ntouch {touched}\nexit 1\n")
    trap.chmod(0o755)
    whole, partial = init(bench.project(1)), init(bench.project(2))
    for path in (whole, partial):
        commit(path, "refs/heads/main", "one")
        (path / "hooks").mkdir()
        for hook in ("post-index-change", "reference-transaction", "pre-auto-gc"):
            (path / "hooks" / hook).symlink_to(trap)
        for key in (
            "core.fsmonitor",
            "core.sshCommand",
            "core.alternateRefsCommand",
            "core.pager",
            "core.askPass",
            "core.gitProxy",
            "uploadpack.packObjectsHook",
            "credential.helper",
            "alias.pack-objects",
            "remote.origin.uploadpack",
            "gpg.program",
        ):
            git(path, "config", key, f"!{trap}" if key.startswith("alias") else str(trap))
        git(path, "config", "core.hooksPath", str(path / "hooks"))
        git(path, "config", "core.repositoryFormatVersion", "1")
        git(path, "config", "extensions.partialClone", "origin")
        git(path, "config", "remote.origin.url", "ssh://nowhere.invalid/x.git" if path is whole else str(whole))
        git(path, "config", "remote.origin.promisor", "true")
    miss_object(partial)
    bench.back_up(keep_going=True)
    git(partial, "config", "remote.origin.url", "ssh://nowhere.invalid/x.git")
    bench.root.rename(bench.directory / "first")
    details = bench.back_up(keep_going=True)
    failed = details["failed"]
    assert isinstance(failed, list)
    assert 1 == len(failed)
    assert not touched.exists()


def test_refs_and_bundle_agree_while_others_push(bench: Bench) -> None:
    """With commits and branches made, moved and deleted all the time, list and bundle agree, and each ref was so."""
    source = init(bench.project(1))
    previous = commit(source, "refs/heads/main", "start")
    tips = [previous]
    for number in range(12):
        previous = commit(source, f"refs/heads/b{number}", str(number), parent=previous)
        tips.append(previous)
    done = threading.Event()
    pushes = []
    # All that each ref has been.
    had = {f"refs/heads/b{number}".encode(): {tip} for number, tip in enumerate(tips[1:])}
    had |= {b"refs/heads/main": {*tips}, b"refs/keep-around/new": set()}

    def push() -> None:
        number = 0
        while not done.is_set():
            number += 1
            had[f"refs/tags/t{number}".encode()] = {tips[-1]}
            if number % 4 == 0:
                # An object that was not there before, and a ref to it.
                new = commit(source, "refs/keep-around/new", f"new {number}", parent=tips[-1])
                had[f"refs/heads/new{number}".encode()] = {new}
                had[b"refs/keep-around/new"].add(new)
                git(source, "update-ref", f"refs/heads/new{number}", new)
            lines = [f"update refs/heads/main {tips[number % len(tips)]}", f"update refs/tags/t{number} {tips[-1]}"]
            if number > 3:
                lines.append(f"delete refs/tags/t{number - 3}")
            git(source, "update-ref", "--stdin", stdin="".join(f"{line}\n" for line in lines).encode())
            if number % 7 == 0:
                git(source, "repack", "-adq")
                git(source, "pack-refs", "--all")
            pushes.append(number)

    with_pushes = threading.Thread(target=push)
    with_pushes.start()
    try:
        rounds = 0
        seen: list[list[tuple[str, bytes]]] = []
        while rounds < 5 or len(pushes) < 15:
            rounds += 1
            if bench.root.exists():
                bench.root.rename(bench.directory / f"round-{rounds}")
            details = bench.back_up()
            kept = stored(bench.root, path_of(1))
            assert kept.bundle is not None
            listed = [b"%s %s\n" % (oid.encode(), name) for oid, name in [*kept.refs[1:], kept.refs[0]]]
            assert b"# v2 git bundle\n" + b"".join(listed) == kept.header
            assert kept.refs[1:] == restored_refs(kept.bundle, bench.directory, salt=rounds)
            seen.append(kept.refs[1:])
            assert [] == bench.verify(details)
    finally:
        done.set()
        with_pushes.join()
    assert [] == [(oid, ref) for refs in seen for oid, ref in refs if oid not in had[ref]]


def test_a_whole_installation(installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """All repositories of an installation that belongs to another user are kept, on both storages, as they are."""
    with job_of(tmp_path / "staging", installation.instance()) as job:
        details = GitArchiver().back_up(job)
    for repository in installation.repositories:
        if "design" in repository.relative_path.name and repository.shape is Shape.MISSING:
            continue
        kept = stored(tmp_path / "staging", str(repository.relative_path), storage=repository.storage)
        assert (repository.shape is Shape.MISSING) == kept.manifest["non_existent"]
        assert (repository.shape in {Shape.MISSING, Shape.EMPTY}) == kept.manifest["empty"]
        if kept.bundle is not None:
            source = installation.repository_path(repository)
            expected = refs_of(source)
            assert expected == [ref for ref in kept.refs if ref[1] != b"HEAD"]
            assert expected == restored_refs(kept.bundle, tmp_path, kept.manifest["object_format"])
    assert details["failed"] == []
    assert [] == verify(tmp_path / "staging", details)


@pytest.mark.skipif(not is_root(), reason="only root can become another user")
def test_git_runs_as_the_owner_of_the_storage(installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """Started by root, git has no more rights than the owner of the repositories."""
    record = installation.directory / "ids"
    record.mkdir()
    record.chmod(0o777)
    programs = installation.directory / "programs"
    programs.mkdir()
    wrapper = programs / "git"
    wrapper.write_text(f'#!/bin/sh\nid -u > {record}/$$\nexec /usr/bin/git "$@"\n')
    wrapper.chmod(0o755)
    instance = evolve(installation.instance(), search_path=f"{programs}:/usr/bin:/bin")
    with job_of(tmp_path / "staging", instance) as job:
        GitArchiver().back_up(job)
    ids = [path.read_text().strip() for path in record.iterdir()]
    assert 1 == ids.count("0")  # git --version
    assert {"0", str(installation.owner.uid)} == set(ids)


def counted(bench: Bench) -> Path:
    """Put a git first in the path that counts its runs."""
    programs = bench.directory / "programs"
    programs.mkdir()
    (programs / "git").write_text(f'#!/bin/sh\necho run >> {bench.directory}/runs\nexec /usr/bin/git "$@"\n')
    (programs / "git").chmod(0o755)
    bench.search_path = f"{programs}:{bench.search_path}"
    return bench.directory / "runs"


def test_how_many_processes_a_repository_costs(bench: Bench) -> None:
    """One run of git packs; where refs are not plain, another one lists them; what is not there costs none."""
    runs = counted(bench)
    for number in range(1, 4):
        commit(init(bench.project(number)), "refs/heads/main", str(number))
    git(bench.storages["default"] / path_of(3), "symbolic-ref", "refs/heads/symbolic", "refs/heads/main")
    bench.project(4)
    bench.back_up()
    assert 1 + 2 * 1 + 2 == len(runs.read_text().splitlines())


def test_objects_that_go_are_looked_for_again(bench: Bench) -> None:
    """Where packing fails because the refs have moved on meanwhile, the new refs are taken."""
    source = init(bench.project(1))
    commit(source, "refs/heads/main", "one")
    old = commit(source, "refs/heads/old", "two")
    programs = bench.directory / "programs"
    programs.mkdir()
    away = f"rm -f {source}/refs/heads/old {source}/objects/{old[:2]}/{old[2:]}"
    (programs / "git").write_text(f'#!/bin/sh\ncase "$*" in *pack-objects*) {away};; esac\nexec /usr/bin/git "$@"\n')
    (programs / "git").chmod(0o755)
    bench.search_path = f"{programs}:{bench.search_path}"
    details = bench.back_up()
    assert [b"HEAD", b"refs/heads/main"] == [name for _, name in stored(bench.root, path_of(1)).refs]
    assert [] == bench.verify(details)


def test_a_repository_that_goes_while_it_is_read_was_never_there(bench: Bench) -> None:
    """GitLab removed it after it was listed: recorded as missing, no failure."""
    source = init(bench.project(1))
    commit(source, "refs/heads/main", "one")
    commit(init(bench.project(2)), "refs/heads/main", "one")
    programs = bench.directory / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *{path_of(1)}*pack-objects*) rm -rf {source};; esac\nexec /usr/bin/git "$@"\n'
    )
    (programs / "git").chmod(0o755)
    bench.search_path = f"{programs}:{bench.search_path}"
    details = bench.back_up()
    assert [] == details["failed"]
    assert stored(bench.root, path_of(1)).manifest["non_existent"]
    assert [] == bench.verify(details)


def refused(bench: Bench, storages: tuple[Storage, ...]) -> ComponentError:
    with pytest.raises(ComponentError) as caught:
        bench.back_up(instance=evolve(bench.instance, storages=storages))
    return caught.value


def test_a_storage_that_is_not_here_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Not configured, without a path, missing, empty: each refused with the way to go on. Unused ones do not matter."""
    bench.project(1)
    here = Storage(name="default", path=bench.storage())
    assert "is not configured" in str(refused(bench, ()))
    error = refused(bench, (Storage(name="default"),))
    assert "has no path on this machine" in str(error)
    assert "archiver gitaly" in str(error.hint)
    assert "cannot be read" in str(refused(bench, (Storage(name="default", path=tmp_path / "nowhere"),)))
    (tmp_path / "unmounted").mkdir()
    assert "is an empty directory" in str(refused(bench, (Storage(name="default", path=tmp_path / "unmounted"),)))
    bench.back_up(instance=evolve(bench.instance, storages=(here, Storage(name="unused"))))


@pytest.mark.parametrize(
    ("there", "words"),
    [("@cluster/repositories", "Gitaly Cluster"), ("+gitaly/partitions/ab/cd/1/wal", "transactions")],
)
def test_a_storage_that_only_gitaly_understands_is_refused(bench: Bench, there: str, words: str) -> None:
    """Behind Praefect, and with a write-ahead log, the directories are not what the database says."""
    bench.project(1)
    (bench.storage() / there).mkdir(parents=True)
    assert words in str(refused(bench, bench.instance.storages))


def test_a_storage_whose_name_would_be_in_the_way_is_refused(bench: Bench) -> None:
    """A storage called manifests would mix its repositories with the manifests."""
    bench.storage("manifests")
    bench.sql("INSERT INTO projects VALUES (1, 'manifests', 2)")
    assert "no directory of a backup can have" in str(refused(bench, bench.instance.storages))


def test_no_storages_are_left_out(bench: Bench) -> None:
    """Without a storage there is nothing to back up, and the reason is given."""
    assert "no repository storage is configured" == GitArchiver().left_out(
        COMPONENT, evolve(bench.instance, storages=())
    )
    assert GitArchiver().left_out(COMPONENT, bench.instance) is None


def test_many_failures_are_counted(bench: Bench) -> None:
    """The error names the first twenty, and counts the rest."""
    for number in range(1, 24):
        (bench.project(number)).mkdir(parents=True)
    with pytest.raises(ComponentError) as caught:
        bench.back_up()
    assert 20 == str(caught.value).count("is not a repository")
    assert "and 3 more" in str(caught.value)


def test_cancelling_stops_at_once(bench: Bench) -> None:
    """A request ends the work with `CancelledError`."""
    init(bench.project(1))
    bench.cancel.request()
    with pytest.raises(CancelledError):
        bench.back_up()


def test_cancelling_while_git_runs(bench: Bench) -> None:
    """A request ends a git that would never end by itself."""
    commit(init(bench.project(1)), "refs/heads/main", "one")
    programs = bench.directory / "programs"
    programs.mkdir()
    os.mkfifo(bench.directory / "started")
    (programs / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *pack-objects*) echo > {bench.directory}/started; exec tail -f /dev/null;; esac\n'
        'exec /usr/bin/git "$@"\n'
    )
    (programs / "git").chmod(0o755)
    bench.search_path = f"{programs}:{bench.search_path}"

    def stop() -> None:
        (bench.directory / "started").read_bytes()
        bench.cancel.request()

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(CancelledError):
        bench.back_up()
    stopper.join()


def test_git_missing(bench: Bench) -> None:
    """Without git the component fails, and says what to install."""
    bench.search_path = str(bench.directory)
    with pytest.raises(ProgramNotFoundError):
        bench.back_up()


def test_a_backup_that_cannot_be_written_fails_as_a_whole(bench: Bench) -> None:
    """An error of the backup's own files is not blamed on a repository, even with keep-going."""
    commit(init(bench.project(1)), "refs/heads/main", "one")
    bench.root.mkdir()
    (bench.root / "repositories").write_text("in the way\n")
    with pytest.raises(StreamError):
        bench.back_up(keep_going=True)


def test_what_is_read_is_counted(bench: Bench) -> None:
    """Bytes read and written are told as they pass, and those written are the sizes of the files."""
    commit(init(bench.project(1)), "refs/heads/main", "one")
    bench.back_up()
    written = sum(path.stat().st_size for path in bench.root.rglob("*") if path.is_file())
    assert written == sum(number for _, number in bench.progress)
    assert sum(number for number, _ in bench.progress) > 0


def test_the_same_repository_gives_the_same_digest_of_refs(bench: Bench) -> None:
    """Two backups of an unchanged repository have the same refs and header, byte for byte."""
    shaped(bench, Shape.ORDINARY)
    bench.back_up()
    one = hashlib.sha256(stored(bench.root, path_of(1)).header).digest()
    bench.root.rename(bench.directory / "first")
    bench.back_up()
    assert one == hashlib.sha256(stored(bench.root, path_of(1)).header).digest()
