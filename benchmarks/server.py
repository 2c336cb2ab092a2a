"""The PostgreSQL server that is measured: durable as a real one, on the disk of the data, kept with it.

Unlike the servers of the tests it syncs what it writes, and survives the process that started it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from tests.support.accounts import is_root, unprivileged
from tests.support.postgres import find_programs

from .measure import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT: Final = 5432
ROLE: Final = "gitlab"

# All else is PostgreSQL's default: fsync, full_page_writes, synchronous_commit and autovacuum are on.
SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "1GB",  # GitLab's packages give a quarter of the memory
    "max_connections": "100",
    "max_locks_per_transaction": "128",  # as GitLab's packages
    "jit": "off",  # only the checks would use it
    "log_min_messages": "warning",
}

# Ends the server when the other end of its standard input is closed: by its owner, or by the kernel after a kill.
# Then its socket's directory goes, too.
_KEEPER: Final = """
"$1/postgres" -D "$2" -k "$3" </dev/null >>"$3/log" 2>&1 &
cat >/dev/null
kill -INT $!
wait $!
rm -rf -- "$3"
"""
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PATIENCE: Final = 120


@define(eq=False)
class Server:
    """A running server."""

    programs: Path
    directory: Path
    """Of its socket."""
    data: Path
    _postmaster: int = field(default=0)

    def environment(self) -> dict[str, str]:
        """Return the variables that connect PostgreSQL's programs to it as the role of GitLab."""
        path = f"{self.programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {"PATH": path, "PGHOST": str(self.directory), "PGPORT": str(PORT), "PGUSER": ROLE}

    def sql(self, query: str, dbname: str = "postgres", *, user: str = ROLE) -> list[tuple[Any, ...]]:
        """Run SQL, several statements or one, and return the rows of the last. Raises `BenchmarkError`."""
        import psycopg

        place = f"host={self.directory} port={PORT} dbname={dbname} user={user}"
        try:
            with psycopg.connect(place, autocommit=True) as connection:
                cursor = connection.execute(query.encode())
                while cursor.nextset():
                    pass
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise BenchmarkError(f"{dbname}: {error}") from error

    def databases(self) -> set[str]:
        """Return the names of the databases."""
        return {str(name) for (name,) in self.sql("SELECT datname FROM pg_database")}

    def recreate(self, dbname: str) -> None:
        """Make an empty database, in the place of one that may be there."""
        self.drop(dbname)
        self.sql(f'CREATE DATABASE "{dbname}" OWNER {ROLE}', user="postgres")

    def drop(self, dbname: str) -> None:
        """Remove a database, where it exists."""
        self.sql(f'DROP DATABASE IF EXISTS "{dbname}" WITH (FORCE)', user="postgres")

    def settle(self) -> None:
        """Write out what earlier work has left to be written, so that it does not burden the next."""
        self.sql("CHECKPOINT", user="postgres")

    def limit(self, cores: int | None) -> None:
        """Let sessions that are begun from now on run on so many cores; None for all."""
        available = sorted(os.sched_getaffinity(0))
        for pid in (self._postmaster, *self._children()):
            try:
                os.sched_setaffinity(pid, available[:cores])
            except ProcessLookupError:
                continue

    def cpu(self) -> float:
        """Return the seconds of processor time of all its processes since it was started."""
        while True:
            children = self._children()
            total = _ticks(self._postmaster, waited=True) + sum(_ticks(pid, waited=False) for pid in children)
            # One that ended meanwhile would be counted twice or not at all.
            if children == self._children():
                return total / _TICKS

    def _children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self._postmaster}/task/{self._postmaster}/children").read_text().split()
        ]

    def wait(self, keeper: subprocess.Popen[bytes]) -> None:
        """Wait until it answers. Raises `BenchmarkError` where it does not."""
        deadline = time.monotonic() + _PATIENCE
        command = [str(self.programs / "pg_isready"), "-q", "-h", str(self.directory), "-p", str(PORT)]
        while subprocess.run(command, check=False).returncode:
            if keeper.poll() is not None or time.monotonic() > deadline:
                log = self.directory / "log"
                raise BenchmarkError(f"PostgreSQL does not start: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(0.05)
        self._postmaster = int((self.data / "postmaster.pid").read_text().split()[0])


def _ticks(pid: int, *, waited: bool) -> int:
    """Return the processor time of a process: user and system, with that of children it waited for (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(number) for number in fields[11 : 15 if waited else 13])


@contextmanager
def running(data: Path) -> Iterator[Server]:
    """Start the server of the data directory `data`, which is made where it is missing; stop it at the end."""
    account = unprivileged()
    programs = find_programs()
    # The path of a Unix socket has at most 107 bytes (unix(7)).
    directory = Path(tempfile.mkdtemp(prefix="gl-bench-", dir="/tmp"))
    directory.chmod(0o755)
    if is_root():
        os.chown(directory, account.uid, account.gid)
    if not (data / "PG_VERSION").exists():
        _initialise(programs, data)
    server = Server(programs=programs, directory=directory, data=data)
    # A session of its own: Ctrl-C is for the benchmark, which then ends the server.
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "keeper", str(programs), str(data), str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=directory,
        start_new_session=True,
        **account.run_as(),
    )
    try:
        server.wait(keeper)
        server.sql(
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN"
            f" CREATE ROLE {ROLE} LOGIN CREATEDB; END IF; END $$",
            user="postgres",
        )
        yield server
    finally:
        assert keeper.stdin is not None  # noqa: S101 - for the type checker
        keeper.stdin.close()
        keeper.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _initialise(programs: Path, data: Path) -> None:
    account = unprivileged()
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)
    if is_root():
        os.chown(data, account.uid, account.gid)
    command = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust"]
    done = subprocess.run(
        [*command, "--encoding=UTF8", "--locale=C.UTF-8"],
        capture_output=True,
        text=True,
        cwd=data,
        check=False,
        **account.run_as(),
    )
    if done.returncode:
        raise BenchmarkError(f"initdb failed in {data}, as the user {account.name}: {done.stderr}")
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
