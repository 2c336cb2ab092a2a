"""Programs that fail late, die, hang, flood their standard error, or do nothing and call it success."""

from __future__ import annotations

import os
import shutil
import threading
import tracemalloc
from contextlib import nullcontext
from itertools import product
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, Cancellation
from gitlab_backup.errors import BackupFailedError, CancelledError, GitLabBackupError, ProgramError
from gitlab_backup.streams.process import Program, run
from tests.archivers.git_run import SCHEMA
from tests.archivers.gitaly_run import GitalyBench
from tests.operations.programs import with_program

from .outcomes import entries, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gitlab_backup.streams.sink import Buffer
    from tests.support.installation import ThrowawayInstallation
    from tests.support.postgres import Cluster

    from .conftest import World
    from .plugin import Injected

# All but the question for the version, which comes first and is not what is to go wrong.
WAYS = {
    "program fails": '$REAL "$@"; echo "the end is near" >&2; exit 3',
    "program dies": '$REAL "$@" | head -c 100; kill -KILL $$',
    "program says nothing": "exit 0",
}
RESTORE = ("git index-pack", "git rev-list", "git for-each-ref")


def _script(program: str, way: str) -> str:
    _, _, command = program.partition(" ")
    spared = '*" --version "*)' if not command else f'*" {command} "*) ;; *)'
    return f'case " $* " in {spared} exec $REAL "$@";; esac\n{way}'


@pytest.mark.parametrize("program", ["pg_dump", "git pack-objects"])
@pytest.mark.parametrize("fault", WAYS)
def test_a_backup(source: ThrowawayInstallation, injected: Injected, fault: str, program: str) -> None:
    """The error names the program or what it was to do; there is no new backup; the next one succeeds."""
    shutil.rmtree(source.backup_path, ignore_errors=True)
    name = program.split(maxsplit=1)[0]
    instance = with_program(source.instance(), source.directory / "bin", name, _script(program, WAYS[fault]))
    only = ["repositories" if name == "git" else "db"]
    with pytest.raises(BackupFailedError, match=r"the end is near|SIGKILL|cut short|pack|bundle"):
        Backup.create(instance, only=only)
    assert [] == entries(source.backup_path)
    injected(fault, "backup")
    assert [Backup.create(source.instance(), only=["lfs"]).id] == entries(source.backup_path)
    shutil.rmtree(source.backup_path)


@pytest.mark.parametrize(
    ("fault", "program"),
    # Where all is well, `git rev-list` says nothing.
    [each for each in product(WAYS, RESTORE) if each != ("program says nothing", "git rev-list")],
)
def test_a_restore(world: World, injected: Injected, fault: str, program: str) -> None:
    """All is put back, also what other components had done by then."""
    target = world.target
    instance = with_program(target.instance(), target.directory / "bin", "git", _script(program, WAYS[fault]))
    with pytest.raises(GitLabBackupError, match="everything was put back"):
        world.made.restore(instance, only=["uploads", "repositories"])
    unchanged(target, world.before)
    injected(fault, "restore")


@pytest.fixture
def gitaly(cluster: Cluster, database: str, tmp_path: Path) -> tuple[GitalyBench, str]:
    """A storage of Gitaly's with three repositories, for the double of gitaly-backup; and the path of one of them."""
    made = GitalyBench(cluster, database, tmp_path)
    made.sql(SCHEMA)
    made.storage()
    _, path, _ = (made.relative(made.ordinary(number)) for number in (1, 2, 3))
    return made, path


@pytest.mark.parametrize(
    ("fault", "faults"),
    [
        ("program fails", {"status": 2}),
        ("program fails", {"at": "fail"}),
        ("program dies", {"at": "die"}),
        ("program says nothing", {"at": "silent"}),
        ("program says nothing", {"at": "no manifest"}),
    ],
)
def test_gitaly_backup(
    gitaly: tuple[GitalyBench, str], injected: Injected, fault: str, faults: dict[str, object]
) -> None:
    """Whatever it did not do, or does not own up to, fails the backup."""
    bench, path = gitaly
    bench.faults = {"at": {path: faults["at"]}} if "at" in faults else faults
    with pytest.raises(BackupFailedError):
        bench.create()
    assert [] == entries(bench.instance.backup_path)
    injected(fault, "backup")
    bench.faults = {}
    assert [bench.create().id] == entries(bench.instance.backup_path)


@pytest.mark.parametrize(
    "script", ["exec sleep 600", "echo started; exec sleep 600", "echo complaint >&2; exec sleep 600"]
)
@pytest.mark.parametrize("stdin", [None, b"x" * 3_000_000])
def test_a_program_that_is_silent(injected: Injected, script: str, stdin: bytes | None) -> None:
    """It is ended, also where it does not read what it is handed, and the error says so and what to look at."""
    program = Program(("/bin/sh", "-c", script), {"PATH": os.environ["PATH"]})
    with pytest.raises(ProgramError, match=r"sh has read and written nothing for 0\.2 seconds") as caught:
        run(program, stdin=stdin, stdout=_Dropped(), cancel=Cancellation(), silence=0.2)
    assert "lock" in str(caught.value.hint)
    injected("program hangs", "backup")


@pytest.mark.parametrize(("max_silence", "ended"), [(0.2, True), (None, False)])
def test_how_long_a_program_may_be_silent(*, max_silence: float | None, ended: bool) -> None:
    """What is allowed to an operation is allowed to its parts: to each program of any of them."""
    seconds = 600 if ended else 1.2
    program = Program(("/bin/sh", "-c", f"sleep {seconds}"), {"PATH": os.environ["PATH"]})
    outcome = pytest.raises(ProgramError, match=r"nothing for 0\.2 seconds") if ended else nullcontext()
    with Cancellation(max_silence=max_silence).part() as cancel, outcome:
        run(program, cancel=cancel)


def test_a_program_that_waits_for_us_is_not_silent() -> None:
    """While a sink takes its time, the program may be silent as long as it likes: it cannot go on."""

    class Slow(_Dropped):
        def write(self, data: Buffer, /) -> None:  # noqa: ARG002
            threading.Event().wait(0.5)

    program = Program(("/bin/sh", "-c", "echo one; echo two"), {"PATH": os.environ["PATH"]})
    assert 0 == run(program, stdout=Slow(), cancel=Cancellation(), silence=0.4).returncode


class _Dropped:
    def write(self, data: Buffer, /) -> None:
        """Drop it."""

    def finish(self) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """Nothing is left to do."""


def _stopped(directory: Path, operation: Callable[[Cancellation], object]) -> int:
    """Run an operation until a program in it says its number through a pipe; stop it. Return the number."""
    cancel, pids = Cancellation(), []

    def stop() -> None:
        with (directory / "hanging").open() as pipe:
            pids.append(int(pipe.readline()))
        cancel.request()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(CancelledError):
        operation(cancel)
    thread.join()
    return pids[0]


def test_a_hanging_restore_is_stopped(world: World, injected: Injected) -> None:
    """A request ends the program, and puts everything back."""
    target = world.target
    directory = target.directory / "hang"
    directory.mkdir()
    os.mkfifo(directory / "hanging")
    (directory / "hanging").chmod(0o666)
    script = _script("git index-pack", f"echo $$ > {directory}/hanging; exec sleep 600")
    instance = with_program(target.instance(), directory / "bin", "git", script)
    made = world.made
    pid = _stopped(directory, lambda cancel: made.restore(instance, only=["lfs", "repositories"], cancel=cancel))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    unchanged(target, world.before)
    injected("program hangs", "restore")


FLOOD = "head -c 30000000 /dev/zero | tr '\\0' x >&2\n"


def test_floods(source: ThrowawayInstallation, world: World, injected: Injected) -> None:
    """Memory stays flat, the manifest small, and the work is done."""
    script = _script("pg_dump", f'{FLOOD}exec $REAL "$@"')
    instance = with_program(source.instance(), source.directory / "bin", "pg_dump", script)
    tracemalloc.start()
    try:
        backup = Backup.create(instance, only=["db"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 25_000_000
    assert (backup.path / "manifest.json").stat().st_size < 100_000
    assert () == backup.verify().damages
    shutil.rmtree(source.backup_path)
    injected("program floods", "backup")
    victim = world.target.copy(world.target.directory.with_name(f"{world.target.directory.name}-flooded"))
    script = _script("git index-pack", f'{FLOOD}exec $REAL "$@"')
    instance = with_program(victim.instance(), victim.directory / "bin", "git", script)
    assert not world.made.restore(instance, only=["repositories"]).with_warnings
    victim.remove()
    injected("program floods", "restore")


def test_a_flood_without_an_end_of_line(injected: Injected) -> None:
    """Of what a program complains, the end is kept: 16 KiB."""
    program = Program(("/bin/sh", "-c", f"{FLOOD}echo done >&2"), {"PATH": os.environ["PATH"]})
    done = run(program, cancel=Cancellation())
    assert done.stderr.endswith("done\n")
    assert len(done.stderr) <= 16 << 10
    injected("program floods", "backup")
