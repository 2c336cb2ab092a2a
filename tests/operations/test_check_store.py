"""What a check finds in a backup path: each thing that can be wrong with it, and with the backups in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import Backup, BackupStore, Manifest
from gitlab_backup.errors import CancelledError, ConfigurationError
from gitlab_backup.events import Status
from gitlab_backup.operations.check import Finding, Health, Level, Limits, check
from gitlab_backup.operations.journal import JOURNAL_NAME
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.files import free_bytes
from tests.operations.pruned_store import id_at, lose, make_backup
from tests.support.accounts import closed_directory

if TYPE_CHECKING:
    from gitlab_backup import Instance
    from tests.support.installation import ThrowawayInstallation

EPOCH = 1_714_053_314
NOW = datetime.fromtimestamp(EPOCH, UTC)
HOUR = 3600
NO_INSTALLATION = ConfigurationError("there is none here")
MANY = 10**18


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A private backup path with nothing in it."""
    path = tmp_path / "backups"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(scope="session")
def instance(template_installation: ThrowawayInstallation) -> Instance:
    """An instance whose databases are not asked: its configuration and directories are enough here."""
    return evolve(template_installation.instance(), databases=())


def look(store: Path, limits: Limits | None = None, *, instance: Instance | None = None, now: datetime = NOW) -> Health:
    """Check a backup path."""
    return check(instance or NO_INSTALLATION, limits, store=BackupStore(store), now=now)


def of(health: Health, name: str) -> list[Finding]:
    """Return what one check has found."""
    return [each for each in health.findings if each.check == name]


def only(health: Health, name: str, level: Level) -> Finding:
    """Return the one finding of a check, which has this level."""
    (found,) = of(health, name)
    assert level is found.level, found
    return found


def test_without_an_installation_the_backups_are_checked(store: Path) -> None:
    """The configuration is a problem, with its own words; backups, space and clock are checked all the same."""
    make_backup(store, id_at(EPOCH - HOUR))
    health = look(store)
    found = only(health, "configuration", Level.PROBLEM)
    assert NO_INSTALLATION.message == found.message
    assert ["backups", "clock", "leftovers", "space"] == sorted(
        each.check for each in health.findings if each.check not in {"configuration", "backup_path"}
    )
    assert {Level.OK} == {each.level for each in health.findings if each.check != "configuration"}


def test_without_an_installation_and_a_store_there_is_one_finding() -> None:
    """Nothing else can be looked at, and nothing is measured."""
    health = check(NO_INSTALLATION)
    only(health, "configuration", Level.PROBLEM)
    assert (1, None, None, Level.PROBLEM) == (len(health.findings), health.newest, health.free_bytes, health.level)


def test_what_is_measured(store: Path) -> None:
    """The numbers are those of the newest complete backup, by its manifest."""
    make_backup(store, id_at(EPOCH - 5 * HOUR), size=50)
    newest = make_backup(store, id_at(EPOCH - 3 * HOUR), size=70).name
    make_backup(store, id_at(EPOCH - HOUR), left_out=frozenset({"registry"}))
    health = look(store)
    assert (newest, timedelta(hours=3), 70) == (health.newest, health.age, health.size_bytes)
    assert abs(free_bytes(store) - (health.free_bytes or 0)) < 1 << 30


def test_no_complete_backup(store: Path) -> None:
    """An empty backup path is a problem, and so is one whose backups are all partial, incomplete or unfinished."""
    assert "no complete backup" in only(look(store), "backups", Level.PROBLEM).message
    make_backup(store, id_at(EPOCH - HOUR), left_out=frozenset({"registry"}))
    (store / f".{id_at(EPOCH - 2)}.partial").mkdir()
    found = only(look(store), "backups", Level.PROBLEM)
    assert "backup all" in (found.to_do or "")


@pytest.mark.parametrize(("hours", "level"), [(26, Level.OK), (27, Level.PROBLEM)])
def test_age(store: Path, hours: int, level: Level) -> None:
    """Without a limit of one's own, a backup may be 26 hours old; one that is exactly so old is no problem."""
    make_backup(store, id_at(EPOCH - hours * HOUR))
    assert f"{hours} h old" in only(look(store), "backups", level).message


def test_a_limit_of_ones_own(store: Path) -> None:
    """Who makes a backup a week says so."""
    make_backup(store, id_at(EPOCH - 100 * HOUR))
    assert "4 d 4 h old" in only(look(store, Limits(max_age=timedelta(days=8))), "backups", Level.OK).message


@pytest.mark.parametrize(("size", "level"), [(4096, Level.OK), (4095, Level.PROBLEM)])
def test_size(store: Path, size: int, level: Level) -> None:
    """A backup that is smaller than expected is a problem, and both sizes are named."""
    make_backup(store, id_at(EPOCH - HOUR), size=size)
    only(look(store), "backups", Level.OK)
    assert "4.0 KiB" in only(look(store, Limits(min_size=4096)), "backups", level).message


def test_a_later_backup_that_is_not_complete(store: Path) -> None:
    """Last night's backup lacks a component: a warning that names it, and the night before still counts."""
    whole = make_backup(store, id_at(EPOCH - 20 * HOUR)).name
    bad = make_backup(store, id_at(EPOCH - HOUR), statuses={"uploads": Status.FAILED}).name
    health = look(store)
    good, flawed = of(health, "backups")
    assert (Level.OK, Level.WARNING) == (good.level, flawed.level)
    assert whole in good.message
    assert bad in flawed.message
    assert "uploads" in flawed.message
    assert (Level.WARNING, whole) == (max(each.level for each in of(health, "backups")), health.newest)


def test_a_backup_with_a_file_missing_does_not_count(store: Path) -> None:
    """Somebody has begun to delete the newest one by hand."""
    make_backup(store, id_at(EPOCH - 50 * HOUR))
    lose(make_backup(store, id_at(EPOCH - HOUR)), "uploads.tar.gz")
    old, flawed = of(look(store), "backups")
    assert (Level.PROBLEM, Level.WARNING) == (old.level, flawed.level)
    assert "uploads.tar.gz is missing" in flawed.message


def test_a_backup_of_the_future(store: Path) -> None:
    """The clock is a problem, and that backup does not stand for one that could be judged by its age."""
    old = make_backup(store, id_at(EPOCH - 30 * HOUR)).name
    future = make_backup(store, id_at(EPOCH + 1)).name
    health = look(store)
    assert future in only(health, "clock", Level.PROBLEM).message
    assert old in only(health, "backups", Level.PROBLEM).message
    assert old == health.newest


def test_a_backup_of_this_second(store: Path) -> None:
    """A backup that was begun just now is not of the future."""
    make_backup(store, id_at(EPOCH))
    health = look(store)
    only(health, "clock", Level.OK)
    assert "0 min old" in only(health, "backups", Level.OK).message


def test_no_space_for_the_next_backup(store: Path) -> None:
    """The last backup is larger than what is free."""
    make_backup(store, id_at(EPOCH - HOUR), size=MANY)
    found = only(look(store), "space", Level.PROBLEM)
    assert "prune" in (found.to_do or "")


def test_space_for_the_next_backup_only(store: Path) -> None:
    """It grows: the next one fits, but those of the days to come will not."""
    free = free_bytes(store)
    make_backup(store, id_at(EPOCH - 30 * HOUR), size=100)
    make_backup(store, id_at(EPOCH - HOUR), size=free // 5)
    found = only(look(store), "space", Level.WARNING)
    assert "growth" in found.message


def test_no_space_because_of_growth(store: Path) -> None:
    """One like the last would fit, but it has grown, and the next is expected to grow as much."""
    free = free_bytes(store)
    make_backup(store, id_at(EPOCH - 30 * HOUR), size=100)
    make_backup(store, id_at(EPOCH - HOUR), size=free // 5 * 3)
    only(look(store), "space", Level.PROBLEM)


def test_growth_is_told_by_whole_backups(store: Path) -> None:
    """Partial and failed ones, and one whose manifest is damaged, say nothing of the size; shrinking needs no space."""
    free = free_bytes(store)
    make_backup(store, id_at(EPOCH - 60 * HOUR), size=free // 4)
    make_backup(store, id_at(EPOCH - 50 * HOUR), size=MANY, left_out=frozenset({"registry"}))
    make_backup(store, id_at(EPOCH - 40 * HOUR), size=MANY, statuses={"uploads": Status.FAILED})
    (make_backup(store, id_at(EPOCH - 35 * HOUR), size=MANY) / "manifest.json").write_text("{")
    make_backup(store, id_at(EPOCH - 30 * HOUR), size=free // 4)
    make_backup(store, id_at(EPOCH - HOUR), size=free // 5)
    only(look(store), "space", Level.OK)


def test_only_the_last_backups_tell_of_growth(store: Path) -> None:
    """What a leap of last year has cost says nothing of tomorrow."""
    make_backup(store, id_at(EPOCH - 100 * HOUR), size=100)
    size = free_bytes(store) // 5
    for number in range(5):
        make_backup(store, id_at(EPOCH - (number + 1) * HOUR), size=size)
    only(look(store), "space", Level.OK)


def test_leftovers(store: Path) -> None:
    """Dead staging and a deletion that was killed are named, with what removes them."""
    names = f".{id_at(EPOCH)}.partial", f".{id_at(EPOCH - 9)}.deleted"
    for name in names:
        (store / name).mkdir()
    found = only(look(store), "leftovers", Level.WARNING)
    assert all(name in found.message for name in names)
    assert "prune --incomplete" in (found.to_do or "")


def test_an_interrupted_restore(store: Path) -> None:
    """Its journal is a problem: the installation may be between two states."""
    (store / JOURNAL_NAME).touch()
    assert JOURNAL_NAME in only(look(store), "leftovers", Level.PROBLEM).message


_HOLD = """
import sys
from gitlab_backup import BackupStore
with BackupStore(sys.argv[1]).lock("backup"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_what_is_being_made_is_no_leftover(store: Path) -> None:
    """While a backup runs, its staging is alive. The check needs no lock, and once its process is dead, says so."""
    (store / f".{id_at(EPOCH)}.partial").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "locked\n" == process.stdout.readline()
        assert f"backup is running (pid {process.pid}" in only(look(store), "leftovers", Level.OK).message
        process.kill()
    only(look(store), "leftovers", Level.WARNING)


def test_a_failed_operation_is_not_taken_for_a_running_one(store: Path) -> None:
    """It has let go of the lock, though its process goes on to live."""
    (store / f".{id_at(EPOCH)}.partial").mkdir()
    with pytest.raises(ZeroDivisionError), BackupStore(store).lock("backup"):
        raise ZeroDivisionError
    only(look(store), "leftovers", Level.WARNING)


def test_a_store_that_others_can_write_to(store: Path) -> None:
    """A backup would be refused; the words are those of the refusal."""
    store.chmod(0o777)
    assert "0777" in only(look(store), "backup_path", Level.PROBLEM).message


def test_a_store_that_does_not_exist_yet(tmp_path: Path) -> None:
    """The first backup makes it, where that is possible; where it is not, that is a problem."""
    assert "does not exist yet" in only(look(tmp_path / "a" / "b"), "backup_path", Level.OK).message
    assert [] == list(tmp_path.iterdir())


def test_a_store_that_is_no_directory(tmp_path: Path) -> None:
    """A file in its place is a problem, and so is a link that leads nowhere."""
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    for path in (file, link):
        assert f"{path} is not a directory" in of(look(path), "backup_path")[0].message
    only(look(link / "below"), "backup_path", Level.PROBLEM)


@pytest.mark.parametrize("mode", [0o000, 0o555, 0o733])
def test_a_store_that_cannot_be_used(mode: int) -> None:
    """Not to be listed, or not to be written to: a problem, said once, and no crash."""
    with closed_directory(mode) as directory:
        health = look(directory)
        below = look(directory / "new")
    assert "cannot be read and written" in only(health, "backup_path", Level.PROBLEM).message
    assert Level.PROBLEM is of(below, "backup_path")[0].level
    messages = [each.message for each in health.findings]
    assert sorted(set(messages)) == sorted(messages)


def test_on_the_same_file_system(store: Path, instance: Instance, tmp_path: Path) -> None:
    """It is advice, not a warning, and names what would be lost together."""
    same = evolve(instance, storages=(evolve(instance.storages[0], path=tmp_path),))
    found = of(look(store, instance=same), "backup_path")[-1]
    assert (Level.OK, True) == (found.level, found.to_do is not None)
    assert "storage default" in found.message


def test_on_another_file_system(instance: Instance) -> None:
    """Then there is nothing to advise."""
    memory = Path("/dev/shm")  # noqa: S108 - the other file system that a Linux has
    if not memory.is_dir() or memory.stat().st_dev == instance.root.stat().st_dev:
        pytest.skip("this machine has no other file system to write to")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        only(look(Path(directory), instance=instance), "backup_path", Level.OK)


def test_secrets_are_not_in_a_backup(store: Path, instance: Instance) -> None:
    """It is said of each kind of installation where they are: always, but without spoiling the result."""
    make_backup(store, id_at(EPOCH - HOUR))
    source = only(look(store, instance=instance), "secrets", Level.OK)
    assert "secrets.yml) is not in the newest backup" in source.message
    assert "--include config" in str(source.to_do)
    omnibus = only(look(store, instance=evolve(instance, installation="omnibus")), "secrets", Level.OK)
    assert "/etc/gitlab" in omnibus.message


@pytest.mark.parametrize(("status", "there"), [(Status.COMPLETE, True), (Status.SKIPPED, False)])
def test_secrets_that_are_in_the_newest_backup(store: Path, instance: Instance, status: Status, *, there: bool) -> None:
    """Where a component holds them, it is said what they open; one that was left out holds nothing."""
    path = make_backup(store, id_at(EPOCH - HOUR))
    manifest = Manifest.read(path)
    assert manifest is not None
    others = tuple(each for each in manifest.components if each.id != "config")
    record = evolve(others[0], id="config", destination="config.tar", status=status)
    selected = tuple(each.id for each in (*others, record))
    (path / "manifest.json").write_bytes(evolve(manifest, components=(*others, record), selected=selected).to_json())
    found = only(look(store, instance=instance), "secrets", Level.OK)
    assert (there, not there) == ("opens" in found.message, "is not in the newest backup" in found.message)
    assert there is ("nobody else can read them" in str(found.to_do))


def test_secrets_that_cannot_be_found(store: Path, instance: Instance) -> None:
    """A backup cannot note which secrets it belongs to: a warning."""
    _, found = of(look(store, instance=evolve(instance, secrets_file=None)), "secrets")
    assert Level.WARNING is found.level


def test_a_directory_that_has_gone(installation: ThrowawayInstallation) -> None:
    """What an earlier backup has, and is no longer there, is a warning; a directory that never was there is none."""
    instance = evolve(installation.instance(), databases=())
    Backup.create(instance, only=["uploads", "pages"])
    only(look(instance.backup_path, instance=instance), "missing", Level.OK)
    uploads = installation.directories["uploads"]
    uploads.rename(uploads.with_name("elsewhere"))
    found = only(look(instance.backup_path, instance=instance), "missing", Level.WARNING)
    assert "uploads" == found.about
    assert found.message.startswith(f"{uploads} does not exist, but the backup ")


def test_nothing_changes(store: Path) -> None:
    """Neither content nor times: not even a lock is made."""
    make_backup(store, id_at(EPOCH - HOUR))
    (store / f".{id_at(EPOCH)}.partial").mkdir()

    def state() -> str:
        found = {str(path): os.lstat(path) for path in (store, *store.rglob("*"))}
        return json.dumps({name: (each.st_ino, each.st_mtime_ns, each.st_ctime_ns) for name, each in found.items()})

    before = state()
    look(store)
    assert before == state()


def test_it_can_be_cancelled(store: Path) -> None:
    """A request ends it; that is no finding."""
    cancel = Cancellation()
    cancel.request()
    with pytest.raises(CancelledError):
        check(NO_INSTALLATION, store=BackupStore(store), cancel=cancel)
