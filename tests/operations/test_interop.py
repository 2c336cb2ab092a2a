"""Backups of GitLab's own tool are restored, and its commands restore ours."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, BackupState
from tests.cli.program import Program
from tests.operations import reference
from tests.operations.changes import change, wipe
from tests.operations.hostile import leftovers
from tests.support import compare

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation


@pytest.fixture
def program(installation: ThrowawayInstallation) -> Program:
    """The command on the machine of the installation."""
    return Program({**installation.environment(), "GITLAB_PATH": str(installation.root)})


def test_a_backup_of_the_reference_is_restored(installation: ThrowawayInstallation, program: Program) -> None:
    """What pg_dump, tar, gzip and git alone have made is listed, shown, verified, and restores everything there was."""
    reference.whole_seconds(installation)
    path = reference.back_up(installation)
    before = compare.snapshot(installation)

    (listed,) = program("list", "--json").document
    assert ("unverified", reference.ID) == (listed["status"], listed["backup_id"])
    shown = program("show", reference.ID, "--json")
    assert 0 == shown.status
    assert {"db", "repositories", "uploads"} <= {each["id"] for each in shown.document["components"]}
    verified = program("verify", reference.ID, "--json")
    assert 0 == verified.status, verified.out
    assert [] == sorted(path.rglob("manifest.json")) + sorted(path.rglob("SHA256SUMS"))

    wipe(installation)
    assert [] != compare.differences(before, compare.snapshot(installation))
    restored = program("restore", "all", reference.ID, "--yes", "--json")
    assert 0 == restored.status, restored.err
    assert "only its structure was checked" in restored.err + restored.out
    assert [] == compare.differences(before, compare.snapshot(installation))
    assert [] == leftovers(installation)


def test_a_backup_of_the_reference_replaces_what_changed(installation: ThrowawayInstallation) -> None:
    """On a living installation, too: what was made or changed since is gone, and in a part of it alone."""
    reference.whole_seconds(installation)
    backup = Backup(reference.back_up(installation))
    before = compare.snapshot(installation)
    change(installation, seed=3)
    changed = compare.snapshot(installation)
    assert (BackupState.UNVERIFIED, ()) == (backup.state, backup.verify().damages)
    backup.restore(installation.instance(), only=["uploads"])
    after = compare.snapshot(installation)
    assert [] == compare.tree_differences("uploads", before.files["uploads"], after.files["uploads"])
    assert {"uploads"} == {line.split(" ")[0] for line in compare.differences(changed, after)}
    backup.restore(installation.instance())
    assert [] == compare.differences(before, compare.snapshot(installation))


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_the_reference_restores_ours(installation: ThrowawayInstallation, compression: str) -> None:
    """gunzip, psql, tar and git alone bring everything back from what we write, to the nanosecond.

    What they do not know, such as the archive of the configuration, does not disturb them.
    """
    if compression == "zstd" and shutil.which("zstd") is None:
        pytest.skip("the program zstd is not installed")
    before = compare.snapshot(installation)
    backup = Backup.create(installation.instance(), include=["config"], compression=compression)
    wipe(installation)
    reference.restore(installation, backup.path)
    assert [] == compare.differences(before, compare.snapshot(installation))


def test_the_options_of_the_rake_task(installation: ThrowawayInstallation) -> None:
    """They work over a living directory. The time of that itself tar does not set then, whoever made the archive."""
    backup = Backup.create(installation.instance(), only=["uploads"])
    uploads = installation.directories["uploads"]
    before = compare.tree(uploads, leave_out="tmp")
    (uploads / "odd/run").unlink()
    (uploads / "odd/empty").write_bytes(b"other")
    shutil.rmtree(uploads / "tmp")
    reference.extract(installation, backup.path / "uploads.tar.gz", uploads, "--unlink-first", "--recursive-unlink")
    after = compare.tree(uploads)
    assert [] == compare.tree_differences("uploads", before | {".": after["."]}, after)
    assert (before["."].kind, before["."].owner) == (after["."].kind, after["."].owner)
