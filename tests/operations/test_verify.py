"""Verification finds every damage, and names it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitlab_backup import Backup, BackupState, Cancellation
from gitlab_backup.errors import CancelledError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation


@pytest.fixture(scope="module")
def pristine(template_installation: ThrowawayInstallation, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A whole backup, not to be changed."""
    copy = template_installation.copy(template_installation.cluster.directory / "verified")
    backup = Backup.create(copy.instance())
    kept = tmp_path_factory.mktemp("backups") / backup.id
    shutil.copytree(backup.path, kept)
    copy.remove()
    return Backup(kept)


@pytest.fixture
def backup(pristine: Backup, tmp_path: Path) -> Backup:
    """A whole backup of this test's own."""
    return Backup(shutil.copytree(pristine.path, tmp_path / pristine.id))


def _files(backup: Backup) -> list[Path]:
    return sorted(path for path in backup.path.rglob("*") if path.is_file())


def _damaged(backup: Backup) -> set[str]:
    return {damage.file for damage in backup.verify().damages}


def _without_checksums(backup: Backup) -> Backup:
    """Make it look like a backup of GitLab's own tool."""
    (backup.path / "manifest.json").unlink()
    (backup.path / "SHA256SUMS").unlink()
    return backup


def test_a_whole_backup_has_no_damage(backup: Backup) -> None:
    """Every file is read, once, and all of it is compared."""
    found = backup.verify()
    assert found.damages == ()
    assert found.has_checksums
    assert found.files == len(_files(backup))
    assert found.bytes == sum(file.stat().st_size for file in _files(backup))


def test_a_backup_of_another_tool_has_no_damage(backup: Backup) -> None:
    """Without manifest and digests the structure is checked, and the backup says that nothing vouches for it."""
    reference = _without_checksums(backup)
    found = reference.verify()
    assert found.damages == ()
    assert not found.has_checksums
    assert reference.state is BackupState.UNVERIFIED


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_flipped_bit_is_found(pristine: Backup, data: st.DataObject) -> None:
    """One changed bit anywhere in any file is damage of that file, or of what it vouches for."""
    files = [file for file in _files(pristine) if file.stat().st_size]
    file = data.draw(st.sampled_from(files))
    position = data.draw(st.integers(0, file.stat().st_size - 1))
    bit = data.draw(st.integers(0, 7))
    content = file.read_bytes()
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    file.write_bytes(bytes(changed))
    try:
        damaged = _damaged(pristine)
    finally:
        file.write_bytes(content)
    name = str(file.relative_to(pristine.path))
    assert name in damaged or (name == "SHA256SUMS" and damaged)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_cut_is_found(pristine: Backup, data: st.DataObject) -> None:
    """A file that ends early is damaged."""
    file = data.draw(st.sampled_from([file for file in _files(pristine) if file.stat().st_size]))
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        damaged = _damaged(pristine)
    finally:
        file.write_bytes(content)
    assert damaged


def test_every_missing_file_is_named(backup: Backup) -> None:
    """Whichever file is removed, the damage says that it is missing."""
    for file in _files(backup):
        aside = backup.path.parent / "aside"
        file.rename(aside)
        try:
            found = {(damage.file, "missing" in damage.problem) for damage in backup.verify().damages}
        finally:
            aside.rename(file)
        assert (str(file.relative_to(backup.path)), True) in found


def test_what_is_not_listed_is_named(backup: Backup) -> None:
    """A file that was added, a symbolic link and a pipe do not belong into a backup."""
    (backup.path / "db" / "extra.sql").write_text("SELECT 1;\n")
    (backup.path / "link").symlink_to("/etc/passwd")
    os.mkfifo(backup.path / "pipe")
    damages = {damage.file: damage.problem for damage in backup.verify().damages}
    assert set(damages) == {"db/extra.sql", "link", "pipe"}
    assert "neither a file nor a directory" in damages["pipe"]


def test_two_files_that_changed_places(backup: Backup) -> None:
    """Both are named: each is whole in itself, and is not the one that it should be."""
    one, two, other = backup.path / "lfs.tar.gz", backup.path / "pages.tar.gz", backup.path / "other"
    one.rename(other)
    two.rename(one)
    other.rename(two)
    assert {"lfs.tar.gz", "pages.tar.gz"} <= _damaged(backup)


def test_digests_that_fit_do_not_hide_a_broken_structure(backup: Backup) -> None:
    """An archive that was cut before its digest was taken is found by its structure."""
    archive = backup.path / "uploads.tar.gz"
    whole = subprocess.run(["gunzip", "-c", archive], capture_output=True, check=True).stdout
    cut = subprocess.run(["gzip", "-c"], input=whole[: len(whole) // 2], capture_output=True, check=True).stdout
    before = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.write_bytes(cut)
    sums = backup.path / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(cut).hexdigest()))
    assert _damaged(backup) == {"uploads.tar.gz"}


@pytest.mark.parametrize("name", ["db/database.sql.gz", "uploads.tar.gz"])
def test_without_digests_a_cut_stream_is_found(backup: Backup, name: str) -> None:
    """Also a backup of GitLab's own tool cannot end early unnoticed."""
    file = _without_checksums(backup).path / name
    file.write_bytes(file.read_bytes()[:-20])
    assert _damaged(backup) == {name}


def test_documents_that_contradict_each_other(backup: Backup) -> None:
    """Metadata of another backup is damage, and so is a directory that was renamed."""
    renamed = Backup(backup.path.rename(backup.path.with_name("1714053314_2024_04_25_17.0.0-pre")))
    assert "backup_information.json" in _damaged(renamed)


def test_metadata_is_what_makes_a_backup(backup: Backup) -> None:
    """Without it, or with one that cannot be read, the backup is damaged."""
    metadata = backup.path / "backup_information.json"
    metadata.write_text('{"metadata_version": 3}')
    assert "backup_information.json" in _damaged(backup)
    assert Backup(backup.path).state is BackupState.DAMAGED


def test_a_part_of_it(backup: Backup) -> None:
    """With `only`, damage elsewhere is not looked for."""
    (backup.path / "lfs.tar.gz").write_bytes(b"broken")
    assert backup.verify(only=["uploads"]).damages == ()
    assert {damage.file for damage in backup.verify(only=["lfs"]).damages} == {"lfs.tar.gz"}


def test_a_request_to_stop(backup: Backup) -> None:
    """Verification ends, and says nothing about the backup."""
    cancel = Cancellation()
    cancel.request()
    with pytest.raises(CancelledError):
        backup.verify(cancel=cancel)


def test_nothing_is_changed(backup: Backup) -> None:
    """Verification only reads: it works on a backup that cannot be written."""
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in _files(backup)}
    backup.verify()
    assert before == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in _files(backup)}
