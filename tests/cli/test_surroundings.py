"""The command where little is allowed and much is hostile; and what others on the machine get to see of its secrets."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, BackupStore
from tests.faults.matrix import OPERATIONS
from tests.operations.changes import wipe
from tests.support import compare

from .test_backup import failing_pg_dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.installation import ThrowawayInstallation

    from .program import Program, Result

PLANTED = ("planted-Pa55word'\\of the database", "planted-t0ken-of-gitaly", "planted-k3y-of-secrets")


def limited(program: Program, *arguments: str, limits: str = "") -> Result:
    """Run the command below a shell that sets limits for it."""
    return program.below("/bin/sh", "-c", f'{limits}\nexec "$@"', "sh")(*arguments)


def hostile(program: Program, directory: Path) -> Program:
    """Return the command in an environment that would lead git, the programs of PostgreSQL and Python astray."""
    traps = directory / "traps"
    traps.mkdir()
    for name in ("git", "pg_dump", "psql", "tar"):
        (traps / name).write_text(f"#!/bin/sh\ntouch {directory}/sprung\nexit 1\n")
        (traps / name).chmod(0o755)
    (directory / "config").write_text("[core]\n\tfsmonitor = false\n\tbare = nonsense\n")
    (directory / "service").write_text("[wrong]\nhost=/nonexistent\ndbname=wrong\n")
    (directory / "nothing").mkdir()
    path = program.environment["PATH"]
    return program.having(
        # What is relative is looked up where the command happens to be started.
        PATH=f":.:traps:{directory}/no/such:{directory}/config:{path}:",
        GIT_DIR=str(directory / "nothing"),
        GIT_WORK_TREE=str(directory),
        GIT_OBJECT_DIRECTORY=str(directory / "nothing"),
        GIT_ALTERNATE_OBJECT_DIRECTORIES=str(directory / "nothing"),
        GIT_NAMESPACE="wrong",
        GIT_INDEX_FILE="/nonexistent",
        GIT_CONFIG_GLOBAL=str(directory / "config"),
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0="core.hooksPath",
        GIT_CONFIG_VALUE_0=str(traps),
        GIT_TRACE=str(directory / "trace"),
        GIT_DEFAULT_HASH="sha256",
        GIT_SSH_COMMAND=str(traps / "git"),
        PGDATABASE="wrong",
        PGHOST="/nonexistent",
        PGPORT="1",
        PGUSER="wrong",
        PGPASSWORD="wrong",
        PGOPTIONS="-c default_transaction_read_only=on -c search_path=wrong",
        PGSERVICE="wrong",
        PGSERVICEFILE=str(directory / "service"),
        PGSSLMODE="require",
        PGCLIENTENCODING="LATIN1",
        PGAPPNAME="wrong",
        PGTZ="Asia/Kathmandu",
        PGDATESTYLE="German",
        TZ="Asia/Kathmandu",
        COLUMNS="5",
        IFS="/",
        CDPATH="/",
        TAR_OPTIONS="--wrong",
        GZIP="--wrong",
        TMPDIR=str(directory / "no/such"),
    ).at(directory)


def foreign(program: Program) -> Program:
    """Return the command in a locale that knows ASCII only, and with a Python that may not mend that."""
    return program.having(LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


def surrounded(test: Callable[..., None]) -> Callable[..., None]:
    """Have a test that goes there and back count for all operations."""
    for operation in OPERATIONS:
        test = pytest.mark.injects("surroundings", operation)(test)
    return test


def there_and_back(installation: ThrowawayInstallation, program: Program, *options: str, limits: str = "") -> list[str]:
    """Back up, verify, wipe, restore and prune, and return what differs then."""
    before = compare.snapshot(installation)
    made = limited(program, "backup", "all", "--json", *options, limits=limits)
    assert made.status == 0, made.err
    verified = limited(program, "verify", "latest", "--json", *options, limits=limits)
    assert (verified.status, verified.document["status"]) == (0, "intact"), verified.err
    listed = limited(program, "show", "latest", limits=limits)
    assert listed.status == 0, listed.err
    wipe(installation)
    restored = limited(program, "restore", "all", "latest", "--yes", *options, limits=limits)
    assert restored.status == 0, restored.err
    pruned = limited(program, "prune", "--keep-last", "1", limits=limits)
    assert pruned.status == 0, pruned.err
    return compare.differences(before, compare.snapshot(installation))


@surrounded
def test_little_memory_and_few_files(installation: ThrowawayInstallation, program: Program) -> None:
    """1 GiB of address space and 256 descriptors are enough for all of it, with as many jobs as there may be."""
    limits = "ulimit -v 1048576 && ulimit -n 256"
    assert [] == there_and_back(installation, program, "--jobs", "8", limits=limits)


@surrounded
def test_a_hostile_environment(installation: ThrowawayInstallation, program: Program, tmp_path: Path) -> None:
    """Variables of git, PostgreSQL and others, and a PATH with traps, change nothing; nor does there being no umask."""
    assert [] == there_and_back(installation, hostile(program, tmp_path), limits="umask 0")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "trace").exists()


@surrounded
def test_without_proc(installation: ThrowawayInstallation, program: Program) -> None:
    """Nothing needs `/proc`, which some containers and chroots do not have."""
    alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    hidden = 'mount -t tmpfs none /proc && exec "$@"'
    if subprocess.run([*alone, hidden, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    assert [] == there_and_back(installation, program.below(*alone, hidden, "sh"))


@surrounded
def test_a_locale_without_utf8(installation: ThrowawayInstallation, program: Program) -> None:
    """Names that are not ASCII, or not even UTF-8, go there and back, and are printed escaped."""
    assert [] == there_and_back(installation, foreign(program))
    text = foreign(program)("show", "latest", "--json")
    assert text.out.isascii()


@contextmanager
def watching_arguments(*secrets: str) -> Iterator[list[str]]:
    """Look at the arguments of all processes all the time, and note those with a secret."""
    found: list[str] = []
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    line = (process / "cmdline").read_bytes()
                    if line not in seen:
                        seen.add(line)
                        text = os.fsdecode(line)
                        found.extend(text for secret in secrets if secret in text)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
    # It has looked: the server of the tests runs all the time, and the dumps took a while.
    assert any(b"pg_dump" in line for line in seen)


@pytest.fixture
def planted(installation: ThrowawayInstallation) -> tuple[str, ...]:
    """Secrets where the configuration has them, and a part of the one that has to be quoted."""
    password, token, key = PLANTED
    config = installation.database_config
    quoted = password.replace("'", "''")
    config.write_text(config.read_text().replace('"throwaway"', f"'{quoted}'"))
    gitlab = installation.gitlab_config
    gitlab.write_text(gitlab.read_text().replace("development:", f"  gitaly:\n    token: {token}\ndevelopment:"))
    secrets = installation.root / "config" / "secrets.yml"
    secrets.write_text(secrets.read_text().replace("throwaway", key))
    return (*PLANTED, "planted-Pa55word")


def test_secrets_stay_secret(installation: ThrowawayInstallation, program: Program, planted: tuple[str, ...]) -> None:
    """Passwords and tokens are in no argument, nothing that is printed, no traceback, log or document of a backup."""
    commands = (
        ("config", "show"),
        ("config", "show", "--json"),
        ("backup", "all", "--json"),
        ("restore", "all", "latest", "--yes"),
    )
    with watching_arguments(*planted) as found:
        results = [program(*arguments) for arguments in commands]
        results.append(failing_pg_dump(installation, program)("backup", "all", "--only", "db", "--json"))
        log = installation.directory / "log"
        broken = installation.database_config.read_text()
        installation.database_config.write_text(broken.replace("host: /", "host: /nonexistent/"))
        results.append(program("--debug", "backup", "all", "--only", "db", "--log-file", str(log)))
        installation.database_config.write_text(broken + "\n  nonsense: [\n")
        results.append(program("--debug", "backup", "all", "--only", "db", "--log-file", str(log)))
    assert [0, 0, 0, 0, 1, 1, 7] == [result.status for result in results]
    assert [] == found
    told = "".join(result.out + result.err for result in results)
    documents = [*installation.backup_path.rglob("*.json"), *installation.backup_path.rglob("SHA256SUMS")]
    assert len(documents) == 3
    told += "".join(document.read_text() for document in documents)
    assert "Traceback" in told
    told += log.read_text()
    assert [] == [secret for secret in planted if secret in told]


def test_an_insecure_store(installation: ThrowawayInstallation, program: Program) -> None:
    """A backup path that everybody can write to is refused, with the option that overrides it; that works."""
    installation.backup_path.mkdir()
    installation.backup_path.chmod(0o777)
    refused = program("backup", "all", "--only", "lfs")
    assert refused.status == 8
    assert "--insecure-store" in refused.err
    assert program("backup", "all", "--only", "lfs", "--insecure-store").status == 0
    (backup_id,) = BackupStore(installation.backup_path).ids()
    assert program("restore", "all", backup_id, "--yes").status == 8
    assert program("restore", "all", backup_id, "--yes", "--insecure-store").status == 0
    assert Backup(installation.backup_path / backup_id).verify().damages == ()
    assert program("prune", "--keep-last", "1").status == 8
    assert program("prune", "--keep-last", "1", "--insecure-store").status == 0
