"""The restore of directories: it comes out as the backup, or as it was before, whatever happens on the way."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import CancelledError, ComponentError, CorruptStreamError, GitLabBackupError, RefusedError
from gitlab_backup.streams.system import using
from gitlab_backup.streams.tar.header import encode
from tests.archivers.files_run import BACKUP_ID, STEPS, Restore, back_up
from tests.faults.broken import Watched
from tests.support import trees
from tests.support.accounts import Account, is_root, unprivileged
from tests.support.compare import tree, tree_differences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gitlab_backup.archivers.base import JSON

_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach, with `data/uploads` and an empty `backup` in it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "backup").mkdir()
        (place / "data").mkdir()
        trees.create(place / "data/uploads", files=12, seed="one", owner=Account.current(), excluded="tmp")
        yield place


@pytest.fixture
def backup(place: Path) -> Path:
    return place / "backup"


@pytest.fixture
def uploads(place: Path) -> Path:
    return place / "data/uploads"


def _reference(uploads: Path, backup: Path) -> None:
    """Archive as GitLab's own tools do."""
    command = (
        f"tar --exclude=lost+found --exclude=./tmp --directory={uploads} --create --file=- . |"
        f" gzip -c -1 > {backup}/uploads.tar.gz"
    )
    subprocess.run(["sh", "-c", command], check=True)


def _change(uploads: Path) -> None:
    """Make another tree of it, with some names that are the same."""
    shutil.rmtree(uploads)
    trees.create(uploads, files=5, seed="two", owner=Account.current(), excluded="tmp")


def _run(command: str, arguments: dict[str, JSON], account: Account | None = None) -> dict[str, JSON]:
    program = [sys.executable, "-m", "tests.archivers.files_run", command, json.dumps(arguments)]
    if account is not None:
        program.append(json.dumps([account.uid, account.gid]))
    done = subprocess.run(program, cwd=_REPOSITORY, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    answer: dict[str, JSON] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(("jobs", "threads"), [(1, 1), (2, 2), (8, 3)])
def test_large_files_are_written_by_threads_within_the_jobs(
    uploads: Path, backup: Path, jobs: int, threads: int
) -> None:
    """With one job, all is written by one thread; with more, small files still are, and large ones by one or two."""
    for number in range(3):
        (uploads / f"large-{number}").write_bytes(os.urandom(300_000))
    details = back_up(uploads, backup)
    before = tree(uploads, leave_out="tmp")
    wrote: dict[int, set[int]] = {}

    def watch(call: str, what: object) -> None:
        if call == "write" and isinstance(what, int):
            wrote.setdefault(threading.get_ident(), set()).add(os.fstat(what).st_ino)

    restore = Restore(uploads, backup, details)
    restore.job.jobs = jobs
    with using(Watched(watch)):
        restore.do(*STEPS)
    assert [] == tree_differences("uploads", before, tree(uploads, leave_out="tmp"))
    large = {(uploads / f"large-{number}").stat().st_ino for number in range(3)}
    assert threads == len(wrote)
    assert (jobs == 1) == bool(large & wrote[threading.get_ident()])
    assert wrote[threading.get_ident()] - large


@pytest.mark.parametrize("codec", ["gzip", "zstd", "none"])
def test_a_round_trip_is_exact(uploads: Path, backup: Path, codec: str) -> None:
    """What was changed since is as in the backup again, to the nanosecond; nothing is left beside it."""
    expected = tree(uploads, leave_out="tmp")
    details = back_up(uploads, backup, codec)
    _change(uploads)
    restore = Restore(uploads, backup, details)
    restore.do(*STEPS)
    assert [] == tree_differences("uploads", expected, tree(uploads, leave_out="tmp"))
    assert ["uploads"] == [path.name for path in uploads.parent.iterdir()]
    assert [] == restore.warnings
    assert restore.told[0] > restore.told[1] > 0


def test_an_archive_of_the_reference_comes_back(uploads: Path, backup: Path) -> None:
    """An archive made by tar and gzip, without a manifest, restores everything that tar keeps: whole seconds."""
    for name, each in tree(uploads).items():
        moment = each.mtime_ns // 10**9 * 10**9
        os.utime(uploads / name, ns=(moment, moment), follow_symlinks=False)
    expected = tree(uploads, leave_out="tmp")
    _reference(uploads, backup)
    _change(uploads)
    restore = Restore(uploads, backup)
    assert any("guess" in note for note in restore.plan.notes)
    restore.do(*STEPS)
    assert [] == tree_differences("uploads", expected, tree(uploads, leave_out="tmp"))


def test_what_a_backup_leaves_out_is_empty_then(uploads: Path, backup: Path) -> None:
    """GitLab finds its `tmp` with owner and mode of before, and nothing in it."""
    details = back_up(uploads, backup)
    (uploads / "tmp").chmod(0o2770)
    before = tree(uploads)["tmp"]
    Restore(uploads, backup, details).do(*STEPS)
    assert before == tree(uploads)["tmp"]
    assert [] == list((uploads / "tmp").iterdir())


def test_undo_after_each_step(uploads: Path, backup: Path) -> None:
    """Whatever steps were done, and however often it is undone, all is as before, the parent directory too."""
    details = back_up(uploads, backup)
    _change(uploads)
    expected = tree(uploads.parent)
    for steps in ((), ("stage",), ("stage", "swap")):
        restore = Restore(uploads, backup, details)
        restore.do(*steps)
        restore.do("undo", "undo")
        assert [] == tree_differences("data", expected, tree(uploads.parent))


@pytest.mark.parametrize("how", ["beside", "missing", "inside"])
@pytest.mark.slow
def test_killed_anywhere_and_undone(uploads: Path, backup: Path, how: str) -> None:
    """After SIGKILL before any change that a restore makes, and of its undoing, another process puts all back."""
    details = back_up(uploads, backup)
    account = None
    target = uploads
    if how == "missing":
        target = uploads.parent / "not/there/uploads"
    elif how == "inside":
        if not is_root():
            pytest.skip("only root can make a directory that its owner may not rename")
        account = unprivileged()
        trees.own(uploads, account)
        trees.own(backup, account)
    arguments: dict[str, JSON] = {"target": str(target), "backup": str(backup), "details": details}
    answer = _run("kill", arguments | {"watched": str(uploads.parent), "stride": 7}, account)
    assert [] == answer["problems"]
    assert (how == "inside") == answer["inside"]
    total = answer["total"]
    assert isinstance(total, int)
    assert total > 100


def test_an_unprivileged_user_restores_what_it_may(uploads: Path, backup: Path) -> None:
    """Without rights in the parent directory the contents are exchanged; owners that it cannot give are told."""
    if not is_root():
        pytest.skip("only root can run something as another user")
    account = unprivileged()
    details = back_up(uploads, backup)
    trees.own(uploads, account)
    trees.own(backup, account)
    expected = tree(uploads, leave_out="tmp")
    (uploads / "odd/run").unlink()
    (uploads / "another").touch()
    answer = _run("whole", {"target": str(uploads), "backup": str(backup), "details": details}, account)
    assert answer["inside"]
    assert "only root may give them" in str(answer["warnings"])
    assert [] == tree_differences("uploads", expected, tree(uploads, leave_out="tmp"))


def test_a_mount_point_keeps_its_place(uploads: Path, backup: Path, place: Path) -> None:
    """A mounted directory is exchanged inside, and back; its `lost+found` is not touched."""
    mount = place / "mount"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"]
    if not is_root() or subprocess.run(["mount", *options, mount], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (mount / "lost+found").mkdir(mode=0o700)
        (mount / "lost+found/x").touch()
        (mount / "old").mkdir()
        (mount / "old/file").write_bytes(b"old")
        (mount / "tmp").mkdir()
        wanted = tree(uploads, leave_out="tmp")
        details = back_up(uploads, backup)
        before = tree(mount)
        restore = Restore(mount, backup, details)
        assert restore.plan.facts["inside"]
        restore.do("stage", "swap", "undo")
        assert [] == tree_differences("mount", before, tree(mount))
        Restore(mount, backup, details).do(*STEPS)
        found = tree(mount, leave_out="tmp")
        assert before["lost+found/x"] == found.pop("lost+found/x")
        del found["lost+found"]
        assert [] == tree_differences("mount", wanted, found)
        assert (mount / "tmp").is_dir()
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_mount_inside_is_refused(uploads: Path, backup: Path) -> None:
    """What is mounted below the directory would be emptied with the old tree: it is named, nothing is done."""
    back_up(uploads, backup)
    mount = uploads / "odd/empty-directory"
    if (
        not is_root()
        or subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(RefusedError, match="empty-directory is mounted inside"):
            _ = Restore(uploads, backup).plan
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_link_to_the_directory_stays(uploads: Path, backup: Path, place: Path) -> None:
    """A configured path that is a symbolic link still is one afterwards; the directory behind it is restored."""
    details = back_up(uploads, backup)
    link = place / "link"
    link.symlink_to("data/uploads")
    (uploads / "odd/run").unlink()
    Restore(link, backup, details).do(*STEPS)
    assert Path("data/uploads") == link.readlink()
    assert (uploads / "odd/run").exists()


def test_a_missing_directory_is_made_and_unmade(uploads: Path, backup: Path, place: Path) -> None:
    """Directories on the way are made with it, also where two restores need the same; undoing removes all of them."""
    expected = tree(uploads, leave_out="tmp")
    details = back_up(uploads, backup)
    before = tree(place)
    one, two = (Restore(place / "shared/deep" / name, backup, details) for name in ("a", "b"))
    assert one.plan.replaces == (f"directory {place}/shared/deep/a: does not exist yet",)
    assert len(two.plan.facts) > 0
    for restore in (one, two):
        restore.do("stage", "swap")
    assert [] == tree_differences("a", expected, tree(place / "shared/deep/a"))
    for restore in (two, one):
        restore.do("undo")
    assert [] == tree_differences("place", before, tree(place))
    one = Restore(place / "shared/deep/a", backup, details)
    one.do(*STEPS)
    assert ["a"] == [path.name for path in (place / "shared/deep").iterdir()]


def test_the_old_tree_can_be_kept(uploads: Path, backup: Path) -> None:
    """With `keep_old` it stays under its name of before; a second restore finds another name."""
    details = back_up(uploads, backup)
    old = tree(uploads)
    for suffix in ("", "-2"):
        Restore(uploads, backup, details, keep_old=True).do(*STEPS)
        assert (uploads.parent / f"uploads.before-{BACKUP_ID}{suffix}").is_dir()
    assert [] == tree_differences("old", old, tree(uploads.parent / f"uploads.before-{BACKUP_ID}"))


def test_an_old_tree_that_was_kept_is_in_no_backup(uploads: Path, backup: Path) -> None:
    """Inside a mount point it lies in the directory itself; what only looks like it does not count."""
    details = back_up(uploads, backup)
    (uploads / f".before-{BACKUP_ID}").mkdir()
    (uploads / f".before-{BACKUP_ID}-2").mkdir()
    (uploads / f".before-{BACKUP_ID}/old").touch()
    assert details["members"] == back_up(uploads, backup, "zstd")["members"]
    (uploads / ".before-noon").touch()
    assert int(str(details["members"])) + 1 == back_up(uploads, backup, "none")["members"]


def test_a_plan_changes_nothing_and_says_what_is_replaced(uploads: Path, backup: Path) -> None:
    """The person who has to say yes reads path, number and size; the space is that of the new tree."""
    details = back_up(uploads, backup)
    before = tree(uploads.parent)
    plan = Restore(uploads, backup, details).plan
    count = len(tree(uploads)) - 1
    (line,) = plan.replaces
    assert line.startswith(f"directory {uploads}: {count} entries, ")
    ((directory, size),) = plan.space
    assert uploads.parent == directory
    assert size >= int(str(details["data_bytes"]))
    assert [] == tree_differences("data", before, tree(uploads.parent))


@pytest.mark.parametrize("reason", ["is kept in object storage (bucket x)", "is not enabled"])
def test_what_gitlab_would_not_see_is_refused(uploads: Path, backup: Path, reason: str) -> None:
    """A component that is kept elsewhere here, or not at all, is refused with the option that leaves it out."""
    back_up(uploads, backup)
    with pytest.raises(RefusedError, match="would not see") as caught:
        _ = Restore(uploads, backup, reason=reason).plan
    assert "--skip uploads" in str(caught.value.hint)


def test_what_cannot_be_restored_is_refused(uploads: Path, backup: Path, place: Path) -> None:
    """No archive, two archives, a file in the place of the directory, and a backup inside it end the plan."""
    with pytest.raises(ComponentError, match="has no archive"):
        _ = Restore(uploads, backup).plan
    back_up(uploads, backup)
    (place / "file").touch()
    with pytest.raises(GitLabBackupError, match="is not a directory"):
        _ = Restore(place / "file", backup).plan
    with pytest.raises(RefusedError, match="the backup lies in"):
        _ = Restore(place, backup).plan
    back_up(uploads, backup, "none")
    with pytest.raises(RefusedError, match="more than one"):
        _ = Restore(uploads, backup).plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": -1}, "one more than"),
        ({"members": 1}, "members, not"),
        ({"data_bytes": -2_500_000}, "more than the"),
    ],
)
def test_an_archive_that_is_not_as_recorded_replaces_nothing(
    uploads: Path, backup: Path, change: dict[str, int], message: str
) -> None:
    """More members or bytes than the manifest says, or fewer members, fail while staging; all is undone."""
    (uploads / "large").write_bytes(os.urandom(3 << 20))
    details = back_up(uploads, backup)
    for key, by in change.items():
        details[key] = int(str(details[key])) + by
    before = tree(uploads.parent)
    restore = Restore(uploads, backup, details)
    with pytest.raises(GitLabBackupError, match=message):
        restore.do("stage")
    assert [] == tree_differences("uploads", {"uploads": tree(uploads)["."]}, {"uploads": before["uploads"]})
    restore.do("undo")
    assert [] == tree_differences("data", before, tree(uploads.parent))


def test_a_bomb_without_a_manifest_is_refused(uploads: Path, backup: Path) -> None:
    """Where nothing says how large a directory was, a small archive cannot make gigabytes of it."""
    head = encode(b"./zeros", b"0", mode=0o640, uid=os.geteuid(), gid=os.getegid(), mtime_ns=0, size=3 << 30)
    (backup / "uploads.tar.gz").write_bytes(gzip.compress(head + bytes(1 << 20)))
    before = tree(uploads.parent)
    restore = Restore(uploads, backup)
    with pytest.raises(CorruptStreamError, match=r"'./zeros'.*, at byte 0, makes more than \d+ bytes, ") as caught:
        restore.do("stage")
    assert caught.value.hint
    restore.do("undo")
    assert [] == tree_differences("data", before, tree(uploads.parent))


def test_a_full_disk_leaves_all_as_it_was(uploads: Path, backup: Path, place: Path) -> None:
    """Where the new tree does not fit, it says so with a hint, and undoing brings back the old."""
    mount = place / "small"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"]
    if not is_root() or subprocess.run(["mount", *options, mount], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (uploads / "large").write_bytes(os.urandom(3 << 20))
        details = back_up(uploads, backup)
        (mount / "data").mkdir()
        (mount / "data/old").write_bytes(b"old")
        before = tree(mount)
        restore = Restore(mount / "data", backup, details)
        with pytest.raises(GitLabBackupError, match="No space left") as caught:
            restore.do("stage")
        assert caught.value.hint
        restore.do("undo")
        assert [] == tree_differences("small", before, tree(mount))
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_cancelled_restore_is_undone(uploads: Path, backup: Path) -> None:
    """A request to stop ends the staging; undoing is not stopped by it."""
    details = back_up(uploads, backup)
    before = tree(uploads.parent)
    restore = Restore(uploads, backup, details)
    _ = restore.plan
    restore.job.cancel.request()
    with pytest.raises(CancelledError):
        restore.do("stage")
    restore.do("undo")
    assert [] == tree_differences("data", before, tree(uploads.parent))


def test_what_somebody_made_meanwhile_is_not_replaced(uploads: Path, backup: Path, place: Path) -> None:
    """A directory that appears while the new one is staged stops the swap, and undoing leaves it alone."""
    details = back_up(uploads, backup)
    restore = Restore(place / "data/new", backup, details)
    restore.do("stage")
    (place / "data/new").mkdir()
    (place / "data/new/precious").touch()
    with pytest.raises(ComponentError, match="something is there"):
        restore.do("swap")
    assert (place / "data/new/precious").exists()
