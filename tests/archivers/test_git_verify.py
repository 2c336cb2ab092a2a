"""Verification of repositories: what is whole passes, every kind of damage is found and named."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import tarfile
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.support import repositories
from tests.support.repositories import Shape, git, hashed

from .git_run import ID, SCHEMA, Bench, commit, init, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gitlab_backup.archivers.base import JSON
    from tests.support.postgres import Cluster

PLACES = [f"{hashed('@hashed', number)}.git" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def whole_backup(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Mapping[str, JSON]]]:
    """A backup of three repositories (hooks and loose; SHA-256; empty), with the record of how it was made."""
    name = f"test_{uuid4().hex}"
    cluster.create_database(name)
    bench = Bench(cluster, name, tmp_path_factory.mktemp("made"))
    bench.sql(SCHEMA)
    for number, shape in enumerate((Shape.LOOSE, Shape.SHA256, Shape.EMPTY), start=1):
        repositories.create(bench.project(number), shape, salt=str(number))
    yield bench.root, bench.back_up()
    cluster.drop_database(name)


@pytest.fixture
def backup(whole_backup: tuple[Path, Mapping[str, JSON]], tmp_path: Path) -> tuple[Path, Mapping[str, JSON]]:
    """A copy of it, to be damaged."""
    root, details = whole_backup
    copy = shutil.copytree(root, tmp_path / "backup")
    assert [] == verify(copy, details)
    assert [] == verify(copy, None)
    return copy, details


def file(number: int, suffix: str) -> str:
    return f"repositories/default/{PLACES[number - 1]}/{ID}/001.{suffix}"


def manifest(number: int, name: str = ID) -> str:
    return f"repositories/manifests/default/{PLACES[number - 1]}/{name}.toml"


def damaged(damages: list[tuple[str, str]]) -> set[str]:
    return {path for path, _ in damages}


FILES = [
    file(1, "bundle"),
    file(1, "refs"),
    file(1, "custom_hooks.tar"),
    file(2, "bundle"),
    file(2, "refs"),
    file(3, "refs"),
    manifest(1),
    manifest(1, "+latest"),
]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(backup: tuple[Path, Mapping[str, JSON]], name: str) -> None:
    """Each file that must be there is missed, except hooks, which need not exist: SHA256SUMS knows them."""
    root, details = backup
    (root / name).unlink()
    found = damaged(verify(root, details))
    expected = {name} if name != file(1, "custom_hooks.tar") else set()
    assert expected <= found or (name == manifest(1) and found)
    assert bool(expected) == bool(found)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("ours", [True, False])
def test_a_file_that_is_cut_is_found(backup: tuple[Path, Mapping[str, JSON]], name: str, *, ours: bool) -> None:
    """Cut anywhere, at random, each file is found damaged, by its name; or what it belongs to is."""
    root, details = backup
    whole = (root / name).read_bytes()
    for length in random.Random(name).sample(range(len(whole)), min(12, len(whole))):
        (root / name).write_bytes(whole[:length])
        found = verify(root, details if ours else None)
        # A list that is cut between two lines is valid by itself: then it is the bundle that has more, in ours.
        if not ours and name.endswith(".refs") and whole[length - 1 : length] in {b"\n", b""}:
            continue
        assert found, f"cut at {length} of {len(whole)}"
        if "toml" not in name:
            assert damaged(found) & {name, name.replace(".refs", ".bundle")}


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found(backup: tuple[Path, Mapping[str, JSON]], name: str) -> None:
    """One byte changed at a random place of any file is found, where the format says anything about that byte."""
    root, details = backup
    whole = (root / name).read_bytes()
    chance = random.Random(f"flip {name}")
    for at in chance.sample(range(len(whole)), min(25, len(whole))):
        changed = bytearray(whole)
        changed[at] ^= chance.randrange(1, 256)
        (root / name).write_bytes(changed)
        if name.endswith("tar"):
            # Data of a member has no checksum in tar; SHA256SUMS has one. Headers have, so those must be found.
            with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
                headers = [range(member.offset, member.offset + 512) for member in archive]
            if not any(at in header for header in headers):
                continue
        assert verify(root, details), f"byte {at}"


def test_swapped_files_are_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """The bundle of another repository is whole, but not of this list of refs: in anybody's backup."""
    root, details = backup
    other = init(root.parent / "other.git")
    commit(other, "refs/heads/main", "another")
    git(other, "bundle", "create", "--quiet", str(root / file(1, "bundle")) + ".new", "--all")
    (root / (file(1, "bundle") + ".new")).replace(root / file(1, "bundle"))
    assert {file(1, "bundle")} == damaged(verify(root, details))
    assert {file(1, "bundle")} == damaged(verify(root, None))


def test_swapped_formats_are_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """Files of a SHA-256 repository do not pass for those of a SHA-1 one."""
    root, details = backup
    for suffix in ("bundle", "refs"):
        shutil.copyfile(root / file(2, suffix), root / file(1, suffix))
    assert {file(1, "bundle"), file(1, "refs")} == damaged(verify(root, details))


def test_a_swapped_manifest_is_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """The manifest of another repository names no file of this one, so those belong to none."""
    root, details = backup
    for name in (ID, "+latest"):
        shutil.copyfile(root / manifest(1, name), root / manifest(3, name))
    assert {file(3, "refs")} == damaged(verify(root, details))


def test_a_lost_repository_is_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """A repository that is missing with all of its files is missed, because their number was recorded."""
    root, details = backup
    shutil.rmtree((root / manifest(1)).parent)
    shutil.rmtree((root / file(1, "refs")).parent)
    assert {"repositories/manifests"} == damaged(verify(root, details))


def test_a_file_of_nobody_is_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """What no manifest names is damage in our backup; gitaly-backup leaves such files, and sidecars, in its own."""
    root, details = backup
    (root / file(1, "bundle").replace("001", "002")).write_bytes(b"")
    (root / (file(1, "refs") + ".attrs")).write_bytes(b"{}")
    assert {file(1, "bundle").replace("001", "002")} == damaged(verify(root, details))
    assert [] == verify(root, None)


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def test_refs_that_disagree_are_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """A ref that is only in the list, or names another object there, is found in ours, though both are whole."""
    root, details = backup
    whole = (root / file(1, "refs")).read_bytes()
    oid = whole[:40]
    (root / file(1, "refs")).write_bytes(whole + oid + b" refs/zzz\n")
    ((path, problem),) = verify(root, details)
    assert file(1, "bundle") == path
    assert "refs/zzz" in problem
    assert [] == verify(root, None)
    lines = whole.splitlines(keepends=True)
    other = next(line for line in lines if line[:40] != oid)[:40]
    (root / file(1, "refs")).write_bytes(b"".join([other + lines[0][40:], *lines[1:]]))
    assert "HEAD" in verify(root, details)[0][1]


def test_a_bundle_without_its_pack_is_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """A header alone is right only for a step without news; a pack without objects likewise."""
    root, details = backup
    header = (root / file(1, "bundle")).read_bytes().partition(b"\n\n")[0] + b"\n\n"
    (root / file(1, "bundle")).write_bytes(header)
    assert [(file(1, "bundle"), "ends after its header: the pack is missing")] == verify(root, details)
    empty = b"PACK" + (2).to_bytes(4, "big") + bytes(4)
    (root / file(1, "bundle")).write_bytes(header + empty + hashlib.sha1(empty, usedforsecurity=False).digest())
    assert [(file(1, "bundle"), "has a pack without objects")] == verify(root, details)
    (root / file(1, "bundle")).write_bytes(b"# v2 git bundle\n\n")
    assert {file(1, "bundle")} == damaged(verify(root, details))


def test_false_claims_of_a_manifest_are_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """A manifest that calls a repository empty or missing, of which there are files, does not pass."""
    root, details = backup
    for claim in (b"empty", b"non_existent"):
        for name in (ID, "+latest"):
            rewrite(root / manifest(1, name), lambda text: text.replace(claim + b" = false", claim + b" = true"))  # noqa: B023
        assert {manifest(1)} == damaged(verify(root, details))


def test_a_strange_member_of_hooks_is_found(backup: tuple[Path, Mapping[str, JSON]]) -> None:
    """Hooks lie below custom_hooks/ and nowhere else."""
    root, details = backup
    for name in ("other/x", "custom_hooks/../../x", "/custom_hooks/x"):
        with tarfile.open(root / file(1, "custom_hooks.tar"), "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
        assert {file(1, "custom_hooks.tar")} == damaged(verify(root, details))


def test_increments_are_read(tmp_path: Path) -> None:
    """Three steps, written by hand with git as gitaly-backup does: a full one, one with news, one without."""
    source = init(tmp_path / "a.git")
    base = tmp_path / "backup" / "repositories"
    first = commit(source, "refs/heads/main", "one")
    steps: list[str] = []
    text = "object_format = 'sha1'\nhead_reference = 'refs/heads/main'\n"
    for number, name in enumerate(("full", "more", "none"), start=1):
        directory = base / "default" / "a.git" / name
        directory.mkdir(parents=True)
        stem = f"default/a.git/{name}/00{number}"
        (base / f"{stem}.refs").write_bytes(git(source, "show-ref", "--head"))
        exclude = [] if number == 1 else [f"^{first}"]
        if number == 3:
            (base / f"{stem}.bundle").write_bytes(b"# v2 git bundle\n\n")
        else:
            git(source, "bundle", "create", "--quiet", str(base / f"{stem}.bundle"), "--all", *exclude)
        previous = f"previous_ref_path = '{steps[-1]}'\n" if steps else ""
        steps.append(f"{stem}.refs")
        text += f"\n[[steps]]\nbundle_path = '{stem}.bundle'\nref_path = '{stem}.refs'\n{previous}"
        text += f"custom_hooks_path = '{stem}.custom_hooks.tar'\n"
        manifests = base / "manifests" / "default" / "a.git"
        manifests.mkdir(parents=True, exist_ok=True)
        (manifests / f"{name}.toml").write_text(text)
        (manifests / "+latest.toml").write_text(text)
        if number == 1:
            commit(source, "refs/heads/main", "two", parent=first)
            git(source, "update-ref", "refs/heads/other", first)
    root = tmp_path / "backup"
    assert [] == verify(root, None)
    assert [] == verify(root, {"repositories": 1})
    bundle = base / "default" / "a.git" / "more" / "002.bundle"
    shutil.copyfile(bundle, base / "default" / "a.git" / "full" / "001.bundle")
    assert {"repositories/default/a.git/full/001.bundle"} == damaged(verify(root, None))


def test_older_layouts_are_not_damage(tmp_path: Path) -> None:
    """Files of a layout that has no manifests are not understood, and not called damaged."""
    place = tmp_path / "repositories" / "@hashed" / "6b" / "x"
    place.mkdir(parents=True)
    (place / "LATEST").write_text("1")
    assert [] == verify(tmp_path, None)
