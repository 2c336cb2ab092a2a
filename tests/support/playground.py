"""A throwaway GitLab to play with: databases, repositories and files, but no processes of GitLab.

It needs the programs of PostgreSQL and git, belongs to nobody but you, and is gone when it is stopped.
"""

# ruff: noqa: T201  it is there to be read

from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from . import compare, postgres
from .accounts import Account
from .installation import ThrowawayInstallation, build, build_empty

STATE: Final = "playground.json"
"""What is written into the directory once the installation is ready: which process has its server, and where."""
_SHOWN: Final = 20


def main() -> int:
    """Do what the command line asks for. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.playground", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="start|compare|stop")
    start = commands.add_parser("start", help="build one in DIR, a new directory")
    serve = commands.add_parser("serve")  # what `start` leaves in the background; not told of
    for command in (start, serve):
        command.add_argument("directory", type=Path, metavar="DIR")
        command.add_argument("--empty", action="store_true", help="as a machine on which GitLab was just installed")
    command = commands.add_parser("compare", help="say what differs between two of them")
    command.add_argument("directories", type=Path, metavar="DIR", nargs=2)
    command = commands.add_parser("stop", help="stop and remove them, with their backups")
    command.add_argument("directories", type=Path, metavar="DIR", nargs="+")
    options = parser.parse_args()
    match options.command:
        case "start":
            return _start(options.directory.absolute(), empty=options.empty)
        case "serve":
            return _serve(options.directory, empty=options.empty)
        case "compare":
            return _compare(*options.directories)
        case _:
            return max(stop(directory) for directory in options.directories)


def load(directory: Path) -> ThrowawayInstallation:
    """Return the installation that is running in a directory. Raises `FileNotFoundError` where there is none."""
    state = json.loads((directory / STATE).read_text())
    owner = Account.named(state["owner"])
    cluster = postgres.Cluster(
        programs=Path(state["programs"]),
        directory=Path(state["server"]),
        account=owner,
        port=state["port"],
        loopback=False,
    )
    return ThrowawayInstallation(
        directory=directory,
        cluster=cluster,
        databases=state["databases"],
        owner=owner,
        omnibus=False,
        repositories=(),
    )


def stop(directory: Path) -> int:
    """Stop an installation and remove its directory. Returns the exit status."""
    try:
        pid = json.loads((directory / STATE).read_text())["pid"]
    except OSError as error:
        print(f"There is no throwaway GitLab in {directory}: {error}", file=sys.stderr)
        return 1
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        descriptor = None
    # Another process may have got its number meanwhile.
    if descriptor is not None:
        if Path(f"/proc/{pid}/cwd").resolve() == directory.resolve():
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            select.select([descriptor], [], [])
        os.close(descriptor)
    shutil.rmtree(os.fsencode(directory))  # as bytes: not all names in it are UTF-8
    return 0


def _start(directory: Path, *, empty: bool) -> int:
    try:
        directory.mkdir()
    except OSError as error:
        print(f"The throwaway GitLab needs a new directory: {error}", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", __spec__.name, "serve", str(directory), *(["--empty"] if empty else [])]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # it outlives the shell that has started it
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    # Both are closed when it is ready; it goes on without them.
    ready, words = process.stdout.read(), process.stderr.read()
    if not ready:
        shutil.rmtree(os.fsencode(directory))
        print(f"It could not be built.\n{words}", file=sys.stderr)
        return 1
    print(ready, end="")
    return 0


def _serve(directory: Path, *, empty: bool) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.chdir(directory)  # by which it is known, see `stop`
    with postgres.cluster() as cluster:
        installation = build_empty(directory, cluster) if empty else build(directory, cluster)
        (directory / "environment").write_text(
            f"export GITLAB_PATH={shlex.quote(str(installation.root))}\n"
            f'export PATH={shlex.quote(str(cluster.programs))}:"$PATH"\n'
        )
        state = {
            "pid": os.getpid(),
            "server": str(cluster.directory),
            "programs": str(cluster.programs),
            "port": cluster.port,
            "owner": installation.owner.name,
            "databases": dict(installation.databases),
        }
        (directory / STATE).write_text(json.dumps(state))
        kind = "An empty GitLab" if empty else "A throwaway GitLab"
        print(f"{kind} is in {directory}, and its PostgreSQL server runs.", flush=True)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        while True:
            signal.pause()


def _compare(one: Path, other: Path) -> int:
    before, after = compare.snapshot(load(one)), compare.snapshot(load(other))
    for state in (before, after):
        for name in [name for name in state.repositories if "/@pools/" in name]:  # no backup has them
            del state.repositories[name]
    problems = compare.differences(before, after)
    for problem in problems[:_SHOWN]:
        print(problem)
    if problems:
        print(f"They differ in {len(problems)} things.")
        return 1
    rows = sum(database.rows for database in after.databases.values())
    files = sum(len(tree) for tree in after.files.values())
    print(
        f"They are equal: {len(after.databases)} databases with {rows} rows, {len(after.repositories)} repositories,"
        f" {files} files and directories."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
