"""A backup from beginning to end, and what happens to one that does not get there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import COMPONENTS, Backup, BackupState, BackupStore, Cancellation
from gitlab_backup.errors import (
    BackupFailedError,
    CancelledError,
    ExitStatus,
    LockedError,
    RefusedError,
    StoreError,
    UsageError,
)
from gitlab_backup.events import ComponentFinished, ComponentStarted, Event, Noticed, Status
from tests.operations.programs import with_program

if TYPE_CHECKING:
    from pathlib import Path

    from gitlab_backup import Instance
    from tests.support.installation import ThrowawayInstallation

SMALL = ("uploads", "lfs")


def _left_in(instance: Instance) -> list[str]:
    """Return what is in the backup path, but for the lock."""
    if not instance.backup_path.exists():
        return []
    return sorted(entry.name for entry in instance.backup_path.iterdir() if entry.name != ".gitlab-backup.lock")


def test_everything_is_backed_up(installation: ThrowawayInstallation) -> None:
    """All components are complete; names and layout are those of GitLab's own tool, with the two documents of ours."""
    backup = Backup.create(installation.instance())
    manifest = backup.manifest
    assert manifest is not None
    statuses = {record.id: record.status for record in manifest.components}
    expected = {c.id: Status.COMPLETE for c in COMPONENTS if not c.optional}
    expected["ci_catalog_bundles"] = expected["agent_plan_content"] = Status.SKIPPED
    assert expected == statuses
    assert backup.state is BackupState.COMPLETE
    files = [c.id for c in COMPONENTS if c.archiver == "files"]
    archives = {f"{each}.tar.gz" for each in files if expected[each] is Status.COMPLETE}
    names = {entry.name for entry in backup.path.iterdir()}
    documents = {"backup_information.json", "manifest.json", "SHA256SUMS"}
    assert archives | documents | {"db", "repositories"} == names
    assert {"ci_database.sql.gz", "database.sql.gz"} == {entry.name for entry in (backup.path / "db").iterdir()}
    assert {"default", "second", "manifests"} == {entry.name for entry in (backup.path / "repositories").iterdir()}
    assert (backup.path.parent / backup.id) == backup.path
    assert _left_in(installation.instance()) == [backup.id]


def test_a_directory_that_has_gone(installation: ThrowawayInstallation) -> None:
    """Where a backup has what was in a directory that is no longer there, later ones warn, until it is skipped."""
    uploads = installation.directories["uploads"]
    before = Backup.create(installation.instance(), only=SMALL)
    uploads.rename(uploads.with_name("elsewhere"))
    expected = (
        f"{uploads} does not exist, but the backup {before.id} has what was in it: "
        "mount it, or leave it out with --skip uploads"
    )
    for _ in range(2):
        later = Backup.create(installation.instance(), only=SMALL)
        assert later.manifest is not None
        (record,) = (each for each in later.manifest.components if each.id == "uploads")
        assert (Status.SKIPPED, (expected,)) == (record.status, record.warnings)
        assert later.state is BackupState.COMPLETE_WITH_WARNINGS
        assert not later.verify().damages
    assert Backup.create(installation.instance(), only=SMALL, skip=["uploads"]).state is BackupState.COMPLETE


def test_sha256sum_checks_it(installation: ThrowawayInstallation) -> None:
    """The program of coreutils agrees with every digest, and every file but the list itself is listed."""
    backup = Backup.create(installation.instance(), skip=["db"])
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=backup.path, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    files = sum(len(names) for _, _, names in os.walk(backup.path))
    assert files - 1 == len(checked.stdout.splitlines())


def test_the_manifest_counts_what_is_there(installation: ThrowawayInstallation) -> None:
    """The bytes written of all components are the sizes of their files."""
    backup = Backup.create(installation.instance())
    assert backup.manifest is not None
    for record in backup.manifest.components:
        if record.status is Status.SKIPPED:
            continue
        component = next(c for c in COMPONENTS if c.id == record.id)
        place = backup.path / component.destination
        files = (
            [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [place.with_name(place.name + ".gz")]
        )
        assert sum(file.stat().st_size for file in files) == record.bytes_written, record.id


def test_nobody_else_can_read_it(installation: ThrowawayInstallation) -> None:
    """Files are 0600 and directories 0700, whatever the umask."""
    before = os.umask(0)
    try:
        backup = Backup.create(installation.instance())
    finally:
        os.umask(before)
    modes = {oct(path.stat().st_mode & 0o7777) for path in backup.path.rglob("*") if path.is_file()}
    assert modes == {"0o600"}
    modes = {oct(path.stat().st_mode & 0o7777) for path in [backup.path, *backup.path.rglob("*")] if path.is_dir()}
    assert modes == {"0o700"}


@pytest.mark.parametrize(("compression", "suffix"), [("gzip", ".gz"), ("zstd", ".zst"), ("none", "")])
def test_codecs_name_the_files(installation: ThrowawayInstallation, compression: str, suffix: str) -> None:
    """The suffix follows the codec, and what it wrote verifies."""
    backup = Backup.create(installation.instance(), only=["db", "uploads"], compression=compression)
    assert (backup.path / f"uploads.tar{suffix}").is_file()
    assert (backup.path / f"db/database.sql{suffix}").is_file()
    assert backup.verify().damages == ()


def test_only_and_skip(installation: ThrowawayInstallation) -> None:
    """What is not selected is in the manifest as left out, and the backup says that it is a part."""
    backup = Backup.create(installation.instance(), only=["uploads", "lfs", "pages"], skip=["pages"])
    assert backup.manifest is not None
    made = {record.id for record in backup.manifest.components if record.status is Status.COMPLETE}
    assert made == {"uploads", "lfs"}
    assert backup.manifest.partial
    reasons = {record.reason for record in backup.manifest.components if record.id not in made}
    assert reasons == {"not selected"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"only": ["upload"]},
        {"skip": ["nothing"]},
        {"compression": "lzma"},
        {"level": 10},
        {"jobs": 0},
        {"only": ["db"], "skip": ["db"]},
    ],
)
def test_what_does_not_exist_is_a_usage_error(installation: ThrowawayInstallation, wrong: dict[str, object]) -> None:
    """Nothing is made for a name or number that does not exist."""
    with pytest.raises(UsageError):
        Backup.create(installation.instance(), **wrong)  # type: ignore[arg-type]
    assert _left_in(installation.instance()) == []


def test_a_failed_component_fails_the_backup(installation: ThrowawayInstallation) -> None:
    """Nothing is published; the error has the program's own words, and what became of the others."""
    instance = with_program(
        installation.instance(),
        installation.directory / "bin",
        "pg_dump",
        '[ "$1" = --version ] && exec $REAL "$@"; echo "pg_dump: error: the dog ate it" >&2; exit 1',
    )
    with pytest.raises(BackupFailedError, match="the dog ate it") as failure:
        Backup.create(instance)
    assert _left_in(instance) == []
    statuses = {record.id: record.status for record in failure.value.components}
    assert statuses["db"] is Status.FAILED
    assert Status.FAILED not in {status for component, status in statuses.items() if component != "db"}


def test_keep_going_publishes_the_rest(installation: ThrowawayInstallation) -> None:
    """The failure is in the manifest, nothing of the failed component is in the backup, and all else is whole."""
    script = '[ "$1" = --version ] && exec $REAL "$@"; $REAL "$@" | head -c 20000; exit 1'
    instance = with_program(installation.instance(), installation.directory / "bin", "pg_dump", script)
    backup = Backup.create(instance, keep_going=True)
    assert backup.state is BackupState.COMPLETE_WITH_WARNINGS
    assert backup.manifest is not None
    failed = [record for record in backup.manifest.components if record.status is Status.FAILED]
    assert [record.id for record in failed] == ["db"]
    assert failed[0].reason
    assert not (backup.path / "db").exists()
    assert backup.verify().damages == ()


def test_nothing_but_failures_is_no_backup(installation: ThrowawayInstallation) -> None:
    """Also when it is to keep going, an empty backup is a failed one."""
    instance = with_program(installation.instance(), installation.directory / "bin", "pg_dump", "exit 1")
    with pytest.raises(BackupFailedError, match="nothing could be backed up"):
        Backup.create(instance, only=["db"], keep_going=True)
    assert _left_in(instance) == []


def test_everything_left_out_is_no_backup(installation: ThrowawayInstallation) -> None:
    """A selection that has nothing to back up fails, and says why."""
    with pytest.raises(BackupFailedError, match="no such directory"):
        Backup.create(installation.instance(), only=["ci_catalog_bundles"])
    assert _left_in(installation.instance()) == []


def test_a_backup_does_not_swallow_itself(installation: ThrowawayInstallation) -> None:
    """A backup path inside a directory that is backed up is refused, also through a symbolic link, unless skipped."""
    uploads = installation.directories["uploads"]
    link = installation.root / "elsewhere"
    link.symlink_to(uploads)
    for path in (uploads / "backups", link / "backups", uploads):
        instance = evolve(installation.instance(), backup_path=path)
        with pytest.raises(RefusedError, match="uploads"):
            Backup.create(instance)
        assert not (uploads / "backups").exists()
    instance = evolve(installation.instance(), backup_path=uploads / "backups")
    assert Backup.create(instance, skip=["uploads"], only=[*SMALL]).state is BackupState.COMPLETE


def test_two_within_a_second(installation: ThrowawayInstallation) -> None:
    """Backups that follow each other at once have ids of their own, in order."""
    ids = [Backup.create(installation.instance(), only=["lfs"]).id for _ in range(3)]
    assert len(set(ids)) == 3
    assert list(BackupStore(installation.backup_path).ids()) == ids


def test_one_at_a_time(installation: ThrowawayInstallation) -> None:
    """A second run is told who has the lock."""
    instance = installation.instance()
    with (
        BackupStore(instance.backup_path).lock("backup"),
        pytest.raises(LockedError, match=f"pid {os.getpid()}"),
    ):
        Backup.create(instance)


def test_an_unusable_backup_path(installation: ThrowawayInstallation) -> None:
    """A file in its place is an error that names it."""
    instance = evolve(installation.instance(), backup_path=installation.gitlab_config)
    with pytest.raises(StoreError, match=r"gitlab\.yml"):
        Backup.create(instance)


@pytest.mark.parametrize("status", [ExitStatus.INTERRUPTED, ExitStatus.TERMINATED])
def test_cancelled_in_the_middle(installation: ThrowawayInstallation, status: ExitStatus) -> None:
    """A request to stop ends the child that hangs, removes the staging, and keeps its status."""
    hanging = installation.directory / "hanging"
    os.mkfifo(hanging)
    hanging.chmod(0o666)
    script = f'[ "$1" = --version ] && exec $REAL "$@"; echo $$ > {hanging}; exec sleep 600'
    instance = with_program(installation.instance(), installation.directory / "bin", "pg_dump", script)
    cancel = Cancellation()
    pids: list[int] = []

    def stop() -> None:
        with hanging.open() as pipe:
            pids.append(int(pipe.readline()))
        cancel.request(status)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(CancelledError) as error:
        Backup.create(instance, only=["db"], jobs=1, cancel=cancel)
    thread.join()
    assert error.value.exit_status is status
    assert _left_in(instance) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_an_observer_that_raises_ends_the_backup(installation: ThrowawayInstallation) -> None:
    """Nothing is published then."""

    def observe(event: Event) -> None:
        if isinstance(event, ComponentFinished) and event.component == "lfs":
            raise RuntimeError("seen enough")

    with pytest.raises(RuntimeError, match="seen enough"):
        Backup.create(installation.instance(), only=SMALL, observer=observe)
    assert _left_in(installation.instance()) == []


def test_events_tell_the_story(installation: ThrowawayInstallation) -> None:
    """Each component that is worked on starts once and finishes once, with the numbers of the manifest."""
    events: list[Event] = []
    backup = Backup.create(installation.instance(), only=SMALL, observer=events.append)
    started = [event.component for event in events if isinstance(event, ComponentStarted)]
    assert sorted(SMALL) == sorted(started)
    assert backup.manifest is not None
    finished = {event.component: event for event in events if isinstance(event, ComponentFinished)}
    for record in backup.manifest.components:
        event = finished[record.id]
        assert (record.status, record.bytes_read, record.bytes_written, record.reason) == (
            event.status,
            event.bytes_read,
            event.bytes_written,
            event.reason,
        )


def test_a_full_disk(installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """A backup that does not fit leaves nothing, and the error says what to do."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "none", small], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        instance = evolve(installation.instance(), backup_path=small)
        (installation.directories["lfs"] / "large").write_bytes(os.urandom(1 << 20))
        with pytest.raises(BackupFailedError, match="No space left on device") as error:
            Backup.create(instance, only=["lfs"])
        assert error.value.hint
        assert _left_in(instance) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_secrets_stay_secret(installation: ThrowawayInstallation) -> None:
    """No password of the configuration gets into a document or an event; of the secrets file only the digest does."""
    secrets = installation.root / "secrets.yml"
    secrets.write_text("production:\n  db_key_base: PLANTED-KEY\n")
    instance = installation.instance()
    databases = tuple(evolve(database, password="PLANTED-PASSWORD") for database in instance.databases)  # noqa: S106
    instance = evolve(instance, databases=databases, secrets_file=secrets)
    events: list[Event] = []
    backup = Backup.create(instance, only=["db", "lfs"], observer=events.append)
    told = repr(events) + (backup.path / "manifest.json").read_text() + repr(instance)
    assert "PLANTED" not in told
    assert backup.manifest is not None
    digest = subprocess.run(["sha256sum", secrets], capture_output=True, text=True, check=True).stdout.split()[0]
    assert digest == backup.manifest.secrets_sha256


_KILLED = """
import os, signal, sys
from pathlib import Path
from gitlab_backup import Backup, Instance
count, last = 0, int(sys.argv[2])
def observe(event):
    global count
    count += 1
    if count == last:
        os.kill(os.getpid(), signal.SIGKILL)
Backup.create(Instance.load(gitlab_path=Path(sys.argv[1])), jobs=2, observer=observe)
print(count)
"""


@pytest.mark.slow
def test_killed_at_any_event(installation: ThrowawayInstallation) -> None:
    """After SIGKILL there is no visible backup; the next run says what it removes, and leaves nothing but itself."""

    def run(last: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _KILLED, str(installation.root), str(last)],
            env={**installation.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )

    whole = run(-1)
    assert whole.returncode == 0, whole.stderr
    events = int(whole.stdout)
    made = list(BackupStore(installation.backup_path).ids())
    for last in range(1, events, max(1, events // 12)):
        killed = run(last)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert list(BackupStore(installation.backup_path).ids()) == made
    noticed: list[Event] = []
    backup = Backup.create(installation.instance(), only=["lfs"], observer=noticed.append)
    assert any(isinstance(event, Noticed) and ".partial" in event.message for event in noticed)
    assert _left_in(installation.instance()) == sorted([*made, backup.id])


def test_the_documents_are_json_for_everybody(installation: ThrowawayInstallation) -> None:
    """The metadata has exactly the four fields of version 2, in their order."""
    backup = Backup.create(installation.instance(), only=["lfs"])
    document = json.loads((backup.path / "backup_information.json").read_text())
    assert list(document) == ["metadata_version", "backup_id", "created_at", "gitlab_version"]
    assert document["backup_id"] == backup.id
