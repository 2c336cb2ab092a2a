"""Restoring repositories from directories built by hand, as gitaly-backup leaves them, and as an attacker would."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from attrs import define

from gitlab_backup.errors import ComponentError, RefusedError
from gitlab_backup.instance import Instance, Storage
from tests.support.repositories import git

from .git_restoring import Restoring
from .git_run import ID, commit, init, refs_of

if TYPE_CHECKING:
    from pathlib import Path

PATH = "@hashed/6b/86/6b86b273.git"
HEADER_ONLY = b"# v2 git bundle\n\n"


@define
class Layout:
    """A backup of one repository, written with plain git."""

    directory: Path
    storage: Path
    source: Path
    steps: list[str]

    @property
    def repositories(self) -> Path:
        return self.directory / "backup" / "repositories"

    @property
    def place(self) -> Path:
        return self.storage / PATH

    def write(self, name: str, content: bytes, *, sidecar: bool = False) -> None:
        path = self.repositories / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if sidecar:
            path.with_name(f"{path.name}.attrs").write_text('{"user.content_type":"application/octet-stream"}')

    def step(self, backup_id: str, *, bundle: bytes | None = None, sidecar: bool = False) -> str:
        """Write the next step, as gitaly-backup does: everything that the last list of refs does not lead to."""
        number = len(self.steps) + 1
        stem = f"default/{PATH}/{backup_id}/{number:03}"
        head = git(self.source, "rev-parse", "--verify", "--quiet", "HEAD").strip() if self.resolves() else b""
        lines = [b"%s %s\n" % (oid.encode(), name) for oid, name in refs_of(self.source)]
        self.write(f"{stem}.refs", (b"%s HEAD\n" % head if head else b"") + b"".join(lines), sidecar=sidecar)
        if bundle is None and lines:
            known = (self.repositories / f"{self.steps[-1]}.refs").read_bytes() if self.steps else b""
            negative = b"".join(b"^%s\n" % line.split()[0] for line in known.splitlines())
            bundle = git(self.source, "bundle", "create", "-", "--all", "--ignore-missing", "--stdin", stdin=negative)
        if bundle is not None:
            self.write(f"{stem}.bundle", bundle, sidecar=sidecar)
        self.steps.append(stem)
        return stem

    def resolves(self) -> bool:
        command = ["git", f"--git-dir={self.source}", "rev-parse", "--verify", "--quiet", "HEAD"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def manifest(
        self, *names: str, head: str | None = "refs/heads/main", first: str = "", object_format: str = "sha1"
    ) -> None:
        lines = [first, f"object_format = '{object_format}'", f"head_reference = '{head}'" if head else ""]
        for stem in self.steps:
            lines += ["[[steps]]", f"bundle_path = '{stem}.bundle'", f"ref_path = '{stem}.refs'"]
            lines += [f"custom_hooks_path = '{stem}.custom_hooks.tar'"]
        for name in names or (ID, "+latest"):
            self.write(f"manifests/default/{PATH}/{name}.toml", "\n".join(lines).encode())

    @property
    def restoring(self) -> Restoring:
        instance = Instance(
            gitlab_version="17.0.0",
            installation="source",
            root=self.directory,
            rails_env="production",
            backup_path=self.directory,
            system_user="git",
            databases=(),
            storages=(Storage(name="default", path=self.storage),),
            settings=(),
            search_path="/usr/bin:/bin:/usr/local/bin",
        )
        return Restoring(instance, self.directory / "backup")

    def assert_restored(self) -> None:
        """Restore, and compare with the source."""
        self.restoring.all()
        git(self.place, "fsck", "--full", "--strict")
        assert refs_of(self.source) == refs_of(self.place)
        assert (self.source / "HEAD").read_text() == (self.place / "HEAD").read_text()

    def assert_fails(self, match: str) -> None:
        """See that the restore fails before anything is replaced, and leaves nothing behind."""
        restoring = self.restoring
        facts = restoring.plan().facts
        with pytest.raises(ComponentError, match=match):
            restoring.archiver.stage(restoring.job, facts)
        restoring.undo(facts)
        assert [] == list(self.storage.iterdir())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty repository to fill, and an empty storage."""
    (tmp_path / "storage").mkdir()
    return Layout(tmp_path, tmp_path / "storage", init(tmp_path / "source.git"), [])


def test_increments(layout: Layout) -> None:
    """Deleted refs are gone, new refs to old commits are there, and a step without news does no harm."""
    first = commit(layout.source, "refs/heads/main", "first")
    commit(layout.source, "refs/heads/gone", "gone")
    layout.step("1700000000")
    second = commit(layout.source, "refs/heads/main", "second", parent=first)
    git(layout.source, "update-ref", "-d", "refs/heads/gone")
    git(layout.source, "update-ref", "refs/heads/old", first)
    layout.step("1700000001")
    git(layout.source, "update-ref", "refs/tags/later", second)
    layout.step("1700000002", bundle=HEADER_ONLY)
    layout.manifest()
    layout.assert_restored()


@pytest.mark.parametrize("first", ["", "empty = true\nnon_existent = false"])
def test_empty_then_filled(layout: Layout, first: str) -> None:
    """gitaly-backup leaves the mark `empty` on an increment that is not; nothing is lost by it here."""
    layout.step("1700000000")
    commit(layout.source, "refs/heads/main", "first")
    layout.step("1700000001")
    layout.manifest(first=first)
    layout.assert_restored()


def test_17_0_with_an_id_of_its_own(layout: Layout) -> None:
    """With sidecars beside all files, and repositories whose id is not the directory's, `+latest` counts."""
    commit(layout.source, "refs/heads/main", "first")
    layout.step("20240516120000", sidecar=True)
    layout.manifest("20240516120000", "+latest")
    layout.assert_restored()


def test_the_manifest_of_the_backup_counts(layout: Layout) -> None:
    """Where later increments moved `+latest` on, what is restored is the state of this backup."""
    commit(layout.source, "refs/heads/main", "first")
    layout.step(ID)
    layout.manifest(ID)
    expected = refs_of(layout.source)
    commit(layout.source, "refs/heads/later", "second")
    layout.step("1800000000")
    layout.manifest("1800000000", "+latest")
    layout.restoring.all()
    assert expected == refs_of(layout.place)


def test_sha256(layout: Layout) -> None:
    """The object format is that of the backup."""
    layout.source = init(layout.directory / "other.git", "--object-format=sha256")
    commit(layout.source, "refs/heads/main", "first")
    layout.step(ID)
    layout.manifest(object_format="sha256")
    layout.assert_restored()


def test_another_object_format(layout: Layout) -> None:
    """A manifest that says another than the bundle is not believed."""
    commit(layout.source, "refs/heads/main", "first")
    layout.step(ID)
    layout.manifest(object_format="sha256")
    layout.assert_fails("object format")


def test_unborn_and_detached(layout: Layout) -> None:
    """HEAD is as it was: a branch that does not exist, or a commit."""
    oid = commit(layout.source, "refs/heads/main", "first")
    git(layout.source, "symbolic-ref", "HEAD", "refs/heads/unborn")
    layout.step(ID)
    layout.manifest(head="refs/heads/unborn")
    layout.assert_restored()
    (layout.source / "HEAD").write_text(f"{oid}\n")
    layout.steps.clear()
    layout.step(ID)
    layout.manifest(head=None)
    layout.assert_restored()


def test_non_existent(layout: Layout) -> None:
    """What did not exist does not exist afterwards."""
    init(layout.place)
    layout.steps.append(f"default/{PATH}/{ID}/001")
    layout.manifest(first="empty = true\nnon_existent = true", head=None, object_format="")
    layout.restoring.all()
    assert not layout.place.exists()


@pytest.mark.parametrize(
    "line",
    [
        "refs/../x",
        "refs/heads/a\\b",
        "HEAD\n%s HEAD",
        "refs/heads/a\tb",
        "refs/heads/..",
        "config",
        "refs/heads/main/x",
    ],
)
def test_hostile_names_of_refs(layout: Layout, line: str) -> None:
    """No name that git would not give comes into a repository."""
    oid = commit(layout.source, "refs/heads/main", "first")
    stem = layout.step(ID)
    text = f"{oid} refs/heads/main\n{oid} {line.replace('%s', oid)}\n"
    layout.write(f"{stem}.refs", text.encode())
    layout.manifest()
    layout.assert_fails("line 2|line 3")


@pytest.mark.parametrize("head", ["HEAD", "../../etc/passwd", "refs/heads/a b", "refs/../config"])
def test_hostile_head(layout: Layout, head: str) -> None:
    """HEAD can only name a ref."""
    commit(layout.source, "refs/heads/main", "first")
    layout.step(ID)
    layout.manifest(head=head)
    layout.assert_fails("HEAD names no ref")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../secret", "default/../../x"])
def test_hostile_paths_in_a_manifest(layout: Layout, path: str) -> None:
    """Nothing outside of the backup is read."""
    layout.steps.append(path)
    layout.manifest()
    layout.assert_fails("not a path inside the backup")


@pytest.mark.parametrize("path", ["+gitaly/tmp/x.git", "@pools/aa/bb/x.git", "@cluster/repositories/aa/1"])
def test_places_that_are_not_for_repositories(layout: Layout, path: str) -> None:
    """Gitaly's own directories and object pools are never written."""
    layout.write(f"manifests/default/{path}/+latest.toml", b"")
    with pytest.raises(RefusedError, match="where none can be"):
        layout.restoring.plan()


def test_one_inside_another(layout: Layout) -> None:
    """A repository cannot lie in another."""
    layout.write("manifests/default/a.git/+latest.toml", b"")
    layout.write("manifests/default/a.git/b.git/+latest.toml", b"")
    with pytest.raises(RefusedError, match=r"inside a\.git"):
        layout.restoring.plan()


def test_no_manifests(layout: Layout) -> None:
    """Without manifests nothing is known to be in the backup; it is not taken for one that is empty."""
    layout.write(f"{PATH.removesuffix('.git')}.bundle", HEADER_ONLY)
    with pytest.raises(RefusedError, match="no manifests"):
        layout.restoring.plan()


def test_a_pack_without_what_it_needs(layout: Layout) -> None:
    """Refs that lead to objects that are not there are found before anything is replaced."""
    first = commit(layout.source, "refs/heads/main", "first")
    layout.step("1700000000")
    commit(layout.source, "refs/heads/main", "second", parent=first)
    layout.step("1700000001")
    del layout.steps[0]
    layout.manifest()
    layout.assert_fails("rev-list failed|git failed|bad object|missing")


def test_hooks_that_want_out(layout: Layout) -> None:
    """An archive of hooks puts nothing into the repository but hooks."""
    commit(layout.source, "refs/heads/main", "first")
    stem = layout.step(ID)
    layout.manifest()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("config"))
    layout.write(f"{stem}.custom_hooks.tar", buffer.getvalue())
    layout.assert_fails("has more than custom_hooks")


def test_a_repository_in_the_way(layout: Layout) -> None:
    """Where a place lies in a repository that is not in the backup, that goes, and comes back when undone."""
    commit(layout.source, "refs/heads/main", "first")
    layout.step(ID)
    layout.manifest()
    obstacle = init(layout.place.parent)
    oid = commit(obstacle, "refs/heads/main", "obstacle")
    restoring = layout.restoring
    facts = restoring.all(until="swap")
    assert refs_of(layout.source) == refs_of(layout.place)
    restoring.undo(facts)
    assert oid == git(obstacle, "rev-parse", "refs/heads/main").decode().strip()
    assert not layout.place.exists()
