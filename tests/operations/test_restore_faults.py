"""Whatever breaks while a restore is at work, the installation is as it was: all of it, compared."""

from __future__ import annotations

import gzip
import os
import select
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup
from gitlab_backup.errors import DamagedError, GitLabBackupError, RefusedError, RestoreFailedError
from gitlab_backup.events import Event, Noticed
from tests.operations.changes import change
from tests.operations.hostile import JOURNAL, after_rows, leftovers, plain
from tests.support import compare, postgres
from tests.support import installation as installations
from tests.support.accounts import is_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.compare import State
    from tests.support.installation import ThrowawayInstallation

STRATEGIES = ("swap", "transaction")


@pytest.fixture(scope="module")
def target(template_installation: ThrowawayInstallation) -> Iterator[ThrowawayInstallation]:
    """An installation that has changed since it was backed up, whose role may create databases."""
    cluster = template_installation.cluster
    copy = template_installation.copy(cluster.directory / f"faults-{os.getpid()}")
    cluster.psql("ALTER ROLE gitlab CREATEDB")
    yield copy
    cluster.psql("ALTER ROLE gitlab NOCREATEDB")
    copy.remove()


@pytest.fixture(scope="module")
def made(target: ThrowawayInstallation, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """Its backup, not to be changed."""
    path = shutil.move(Backup.create(target.instance()).path, tmp_path_factory.mktemp("made"))
    change(target, seed=5)
    return Backup(path)


@pytest.fixture(scope="module")
def before(target: ThrowawayInstallation, made: Backup) -> State:
    """What it was after these changes."""
    assert made.path.exists()
    return compare.snapshot(target, excluded=True)


@pytest.fixture
def backup(made: Backup, tmp_path: Path) -> Backup:
    """A copy of the backup, to be broken."""
    return Backup(shutil.copytree(made.path, tmp_path / made.id))


def _unchanged(target: ThrowawayInstallation, before: State) -> None:
    assert [] == compare.differences(before, compare.snapshot(target, excluded=True))
    assert [] == leftovers(target)


def _rewrite(backup: Backup, file: str, change: Callable[[bytes], bytes]) -> None:
    """Change a dump of a backup that nothing vouches for."""
    if (backup.path / "SHA256SUMS").exists():
        plain(backup.path)
    path = backup.path / file
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes())), 1))


def _flip(backup: Backup, pattern: str) -> str:
    """Flip a bit in the middle of the largest file of that name. Returns which that is."""
    path = max(backup.path.glob(pattern), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)
    return str(path.relative_to(backup.path))


@pytest.mark.injects("damage", "restore")
@pytest.mark.parametrize(
    "pattern",
    [
        "backup_information.json",
        "manifest.json",
        "SHA256SUMS",
        "db/database.sql.gz",
        "db/ci_database.sql.gz",
        "external_diffs.tar.gz",
        "repositories/second/**/001.bundle",
        "repositories/**/001.refs",
        "repositories/**/001.custom_hooks.tar",
        "repositories/manifests/**/+latest.toml",
    ],
)
def test_a_flipped_bit_changes_nothing(
    target: ThrowawayInstallation, before: State, backup: Backup, pattern: str
) -> None:
    """In a file of any kind it is found before anything changes, and the file is named."""
    name = _flip(backup, pattern)
    with pytest.raises(DamagedError) as caught:
        backup.restore(target.instance())
    # A digest that was changed tells on the file that it is of.
    assert name in str(caught.value) or name == "SHA256SUMS"
    _unchanged(target, before)


@pytest.mark.injects("damage", "restore")
@pytest.mark.parametrize(
    "pattern", ["db/ci_database.sql.gz", "external_diffs.tar.gz", "repositories/second/**/001.bundle"]
)
def test_a_flipped_bit_is_undone(target: ThrowawayInstallation, before: State, backup: Backup, pattern: str) -> None:
    """Without verification it is found on the way, when much may have been built beside the old: all of that goes."""
    _flip(backup, pattern)
    with pytest.raises(GitLabBackupError, match=r"damaged|everything was put back"):
        backup.restore(target.instance(), verify=False)
    _unchanged(target, before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_error_in_the_second_database(
    target: ThrowawayInstallation, before: State, backup: Backup, strategy: str
) -> None:
    """The first one is not touched either; the message names dump, line and statement."""
    _rewrite(backup, "db/ci_database.sql.gz", after_rows("INSERT INTO public.nothing_of_that VALUES (1);"))
    with pytest.raises(RestoreFailedError, match=r"db/ci_database\.sql\.gz, line \d+ .*INSERT INTO public\.nothing"):
        backup.restore(target.instance(), database_strategy=strategy)
    _unchanged(target, before)


@pytest.mark.injects("connection cut", "restore")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_session_that_is_ended(target: ThrowawayInstallation, before: State, backup: Backup, strategy: str) -> None:
    """When the server ends our session in the middle of a load, as an administrator or the kernel may do it."""
    _rewrite(backup, "db/ci_database.sql.gz", after_rows("SELECT pg_terminate_backend(pg_backend_pid());"))
    with pytest.raises(RestoreFailedError, match="terminat"):
        backup.restore(target.instance(), database_strategy=strategy)
    _unchanged(target, before)


@pytest.mark.injects("ENOSPC", "restore")
def test_a_full_disk(target: ThrowawayInstallation, made: Backup) -> None:
    """Where a component does not fit, that is said before anything changes; where it was not foreseen, it is undone."""
    pages = target.directories["pages"]
    options = "size=4m,nr_inodes=20"
    if not is_root() or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", pages], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (pages / "old").write_bytes(b"old")
        before = compare.snapshot(target, excluded=True)
        with pytest.raises(RestoreFailedError, match="No space left on device") as caught:
            made.restore(target.instance())
        assert "Free space" in str(caught.value.hint)
        _unchanged(target, before)
        (pages / "large").write_bytes(bytes((4 << 20) - (64 << 10)))
        before = compare.snapshot(target, excluded=True)
        with pytest.raises(RefusedError, match="not enough space"):
            made.restore(target.instance())
        _unchanged(target, before)
    finally:
        subprocess.run(["umount", pages], check=True)


_LIMITED = """
import resource, sys
from pathlib import Path
from gitlab_backup import Backup, Instance
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
Backup(Path(sys.argv[2])).restore(Instance.load(gitlab_path=Path(sys.argv[1])), only=["uploads", "lfs", "repositories"])
"""


def test_a_file_that_may_not_grow(target: ThrowawayInstallation, before: State, made: Backup) -> None:
    """A limit of this process, or of a quota, is as a full disk."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, target.root, made.path],
        env={**target.environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "File too large; everything was put back" in done.stderr
    _unchanged(target, before)


def _when_loading(cluster: postgres.Cluster, act: Callable[[], None], restore: Callable[[], object]) -> Exception:
    """Restore a dump that waits in the middle, and do something then. Returns the error of the restore."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            restore()
        except GitLabBackupError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(300)%' AND state = 'active'"
    while cluster.psql(query) == "0" and thread.is_alive():
        select.select([], [], [], 0.02)
    act()
    thread.join(60)
    assert not thread.is_alive()
    return errors[0]


@pytest.mark.injects("server restarted", "restore")
@pytest.mark.slow
def test_a_server_that_dies(tmp_path: Path) -> None:
    """While the server is down the old databases cannot be looked after; the next run after that does it."""
    with postgres.cluster() as cluster:
        target = installations.build(cluster.directory / "own", cluster)
        cluster.psql("ALTER ROLE gitlab CREATEDB")
        first = Backup.create(target.instance())
        backup = Backup(shutil.copytree(first.path, tmp_path / first.id))
        _rewrite(backup, "db/ci_database.sql.gz", after_rows("SELECT pg_sleep(300);"))
        change(target, seed=6)
        # Otherwise sequences go on 32 values later after a crash (`sequence.c`, SEQ_LOG_VALS).
        cluster.psql("CHECKPOINT")
        before = compare.snapshot(target, excluded=True)
        for strategy in STRATEGIES:
            error = _when_loading(
                cluster,
                cluster.kill,
                lambda: backup.restore(target.instance(), database_strategy=strategy),  # noqa: B023 - called at once
            )
            assert isinstance(error, RestoreFailedError)
            waits = (target.backup_path / JOURNAL).exists()
            assert (strategy == "swap") == waits, error
            if waits:
                assert "the next run tries again" in str(error.hint)
                with pytest.raises(GitLabBackupError, match="interrupted restore"):
                    Backup.create(target.instance(), only=["lfs"])
            cluster.start()
            noticed: list[Event] = []
            backup.restore(target.instance(), database_strategy=strategy, dry_run=True, observer=noticed.append)
            said = [event.message for event in noticed if isinstance(event, Noticed)]
            assert waits == any("was undone" in message for message in said)
            _unchanged(target, before)
