"""Programs: fed, read from, told to end, and gone with all that they started."""

from __future__ import annotations

import errno
import io
import os
import platform
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.errors import CancelledError, ExitStatus, ProgramError, ProgramNotFoundError
from gitlab_backup.streams.accounts import Account
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.process import Program, capture, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gitlab_backup.streams.sink import Buffer

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
NOBODY = Account("nobody", 65534, 65534, (65533,))


class Collecting:
    """Keeps what it gets, and calls `react` after each piece."""

    def __init__(self, react: Callable[[], None] = lambda: None) -> None:
        self.pieces: list[Buffer] = []
        self.ended = False
        self._react = react

    def write(self, data: Buffer, /) -> None:
        self.pieces.append(data)
        self._react()

    def finish(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


def shell(script: str, *arguments: str | Path) -> Program:
    """A shell that runs `script`, with `arguments` as $1 and so on."""
    return Program(("/bin/sh", "-c", script, "sh", *map(str, arguments)), ENVIRONMENT)


def wait_for_holders(fifo: Path) -> None:
    """Return when no process holds the writing end of `fifo` any more; the test's timeout says that one does."""
    with fifo.open("rb") as file:
        file.read()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture(autouse=True)
def leaves_no_descriptor() -> Iterator[None]:
    """No run may leave a descriptor open."""
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    yield
    assert before == sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_output_status_and_words() -> None:
    """The sink gets the output but is neither finished nor aborted; the last words are returned."""
    sink = Collecting()
    completed = run(shell("echo out; echo words >&2"), stdout=sink, cancel=Cancellation())
    assert (b"out\n", False) == (b"".join(sink.pieces), sink.ended)
    assert (0, "words\n") == (completed.returncode, completed.stderr)


@pytest.mark.parametrize("stdin", [b"x" * 3_000_000, [b"x" * 1_000_000] * 3, io.BytesIO(b"x" * 3_000_000)])
def test_input_of_each_kind(stdin: bytes | list[bytes] | io.BytesIO) -> None:
    """Bytes, an iterable and a file in memory are all fed whole, more than any pipe holds."""
    _, output = capture(shell("cat"), stdin=stdin, cancel=Cancellation())
    assert b"x" * 3_000_000 == output


def test_raw_file_is_handed_over(tmp_path: Path) -> None:
    """A raw file is read by the program itself, from where it stands."""
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        file.seek(4)
        _, output = capture(shell("cat; test -f /dev/stdin"), stdin=file, cancel=Cancellation())
    assert b"456789" == output


def test_input_that_is_not_read_is_no_error() -> None:
    """A program that stops reading decides by its status whether that is an error."""
    _, output = capture(shell("head -c 3"), stdin=(b"x" * 100_000 for _ in range(100)), cancel=Cancellation())
    assert b"xxx" == output
    with pytest.raises(ProgramError, match="failed with status 4"):
        capture(shell("exit 4"), stdin=b"x" * 3_000_000, cancel=Cancellation())


def test_failing_input_is_never_taken_for_its_end(tmp_path: Path) -> None:
    """Where reading the input raises, that surfaces, and the program does not see an end of its input."""

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("no more")

    # It ignores the first signal: else that would win the race against an end of the input, and hide it.
    script = 'trap "" INT; cat >/dev/null && touch "$1"'
    with pytest.raises(ValueError, match="no more"):
        run(shell(script, tmp_path / "complete"), stdin=chunks(), cancel=Cancellation())
    assert not (tmp_path / "complete").exists()


def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is exactly the given one, and only three descriptors are open."""
    monkeypatch.setenv("SECRET", "1")
    with open(os.devnull) as file:  # noqa: PTH123
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003
        script = "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'), len(os.listdir('/proc/self/fd')))"
        _, output = capture(Program((sys.executable, "-c", script), ENVIRONMENT), cancel=Cancellation())
    # The fourth is that of the directory which is listed.
    assert b"['PATH'] 4\n" == output


def test_secrets_are_not_shown() -> None:
    """The environment, which may hold passwords, is not part of what a program looks like."""
    assert "hunter2" not in repr(Program(("/bin/true",), {"PGPASSWORD": "hunter2"}))


def test_directory(tmp_path: Path) -> None:
    """A program runs where it is told; a missing directory is not a missing program."""
    _, output = capture(Program(("/bin/pwd",), ENVIRONMENT, directory=tmp_path), cancel=Cancellation())
    assert f"{tmp_path}\n".encode() == output
    with pytest.raises(ProgramError, match="missing") as caught:
        capture(Program(("/bin/pwd",), ENVIRONMENT, directory=tmp_path / "missing"), cancel=Cancellation())
    assert not isinstance(caught.value, ProgramNotFoundError)


def test_status_that_is_not_accepted() -> None:
    """The message has the name, the status and the last words; accepted statuses are returned."""
    with pytest.raises(ProgramError) as caught:
        run(shell("echo first >&2; echo no such table >&2; exit 3"), cancel=Cancellation())
    assert caught.value.message.startswith("sh failed with status 3: ")
    assert caught.value.message.endswith("no such table")
    assert 3 == caught.value.returncode
    assert 3 == run(shell("exit 3"), cancel=Cancellation(), accept=(0, 3)).returncode


def test_killed_by_signal() -> None:
    """A program that a signal has killed is named with that signal."""
    with pytest.raises(ProgramError, match="sh was killed by signal SIGKILL") as caught:
        run(shell("kill -9 $$"), cancel=Cancellation())
    assert -signal.SIGKILL == caught.value.returncode


def test_programs_that_cannot_start(tmp_path: Path) -> None:
    """A program that is not there, and one that may not be run, are told apart."""
    with pytest.raises(ProgramNotFoundError, match="missing"):
        run(Program((str(tmp_path / "missing"),), ENVIRONMENT), cancel=Cancellation())
    (tmp_path / "text").write_bytes(b"")
    with pytest.raises(ProgramError, match="text cannot be run") as caught:
        run(Program((str(tmp_path / "text"),), ENVIRONMENT), cancel=Cancellation())
    assert not isinstance(caught.value, ProgramNotFoundError)


def test_flood_of_words() -> None:
    """Any amount on stderr blocks nothing; the last 16 KiB are kept."""
    completed = run(shell("head -c 20000000 /dev/zero | tr '\\0' x >&2; printf end >&2"), cancel=Cancellation())
    assert ("x" * 100 + "end", 16384) == (completed.stderr[-103:], len(completed.stderr))


def test_limit_of_capture() -> None:
    """More output than expected ends the program and is an error."""
    with pytest.raises(ProgramError, match="yes wrote more than"):
        capture(Program(("/usr/bin/yes",), ENVIRONMENT), cancel=Cancellation(), limit=1000)


@pytest.mark.parametrize("trap", ["", "trap '' INT;", pytest.param("trap '' INT TERM;", marks=pytest.mark.slow)])
def test_cancel_ends_all(fifo: Path, trap: str) -> None:
    """On a request everything in the process group ends, whatever it ignores, with the status of the request."""
    cancel = Cancellation()
    sink = Collecting(lambda: cancel.request(ExitStatus.TERMINATED))
    script = f'exec 3>"$1"; {trap} sh -c "{trap} echo up; while :; do sleep 60; done" & while :; do wait; done'
    reader = threading.Thread(target=wait_for_holders, args=(fifo,))
    reader.start()
    with pytest.raises(CancelledError) as caught:
        run(shell(script, fifo), stdout=sink, cancel=cancel)
    reader.join()
    assert ExitStatus.TERMINATED == caught.value.exit_status


def test_cancel_before_the_start(tmp_path: Path) -> None:
    """After a request nothing is started."""
    cancel = Cancellation()
    cancel.request()
    with pytest.raises(CancelledError):
        run(shell('touch "$1"', tmp_path / "started"), cancel=cancel)
    assert not (tmp_path / "started").exists()


def test_timeout_ends_all(fifo: Path) -> None:
    """A program that takes too long is ended, and the message says so."""
    reader = threading.Thread(target=wait_for_holders, args=(fifo,))
    reader.start()
    with pytest.raises(ProgramError, match=r"sh .*did not end within 0\.1 seconds"):
        run(shell('exec 3>"$1"; sleep 60', fifo), cancel=Cancellation(), timeout=0.1)
    reader.join()


def test_failing_sink_ends_all(fifo: Path) -> None:
    """What a sink raises ends the program, and is raised, rather than what follows from it."""

    def refuse() -> None:
        raise ValueError("full")

    reader = threading.Thread(target=wait_for_holders, args=(fifo,))
    reader.start()
    with pytest.raises(ValueError, match="full"):
        run(shell('exec 3>"$1"; yes', fifo), stdout=Collecting(refuse), cancel=Cancellation())
    reader.join()


@pytest.mark.timeout(20)
def test_grandchildren_end_with_their_program(fifo: Path) -> None:
    """What a program leaves in its process group ends with it; the run does not wait for it, nor lose output."""
    reader = threading.Thread(target=wait_for_holders, args=(fifo,))
    reader.start()
    _, output = capture(shell('exec 3>"$1"; sleep 60 & echo out', fifo), cancel=Cancellation())
    reader.join()
    assert b"out\n" == output


@pytest.fixture(params=["a kernel with pidfd_open", "an older kernel"])
def any_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to hear of the end of a program."""

    def missing(_pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if request.param == "an older kernel":
        monkeypatch.setattr(os, "pidfd_open", missing)


@pytest.mark.usefixtures("any_kernel")
def test_the_end_is_heard() -> None:
    """On any kernel, a program that says nothing ends with its status, and what has read nothing is no error."""
    assert 3 == run(shell("sleep 0.05; exit 3"), stdin=b"x" * 1000, cancel=Cancellation(), accept=[3]).returncode


@pytest.mark.usefixtures("any_kernel")
@pytest.mark.timeout(20)
def test_status_that_is_lost() -> None:
    """Where SIGCHLD is ignored (some supervisors do), a lost status is an error, neither success nor a hang."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(ProgramError, match="status"):
            run(shell("exit 3"), cancel=Cancellation())
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_slow_sink_holds_the_program_back() -> None:
    """While the sink takes its time the program waits: nothing piles up but what a pipe holds."""
    # The program counts what it could write; the first piece is held until it can write no more.
    script = """
import os, select
os.set_blocking(1, False)
count = 0
try:
    while True:
        count += os.write(1, bytes(65536))
except BlockingIOError:
    os.write(2, str(count).encode())
"""
    total = 0

    class Slow(Collecting):
        def write(self, data: Buffer, /) -> None:
            nonlocal total
            if total == 0:
                started.wait()
            total += len(data)

    started = threading.Event()
    timer = threading.Timer(0.5, started.set)
    timer.start()
    completed = run(Program((sys.executable, "-c", script), ENVIRONMENT), stdout=Slow(), cancel=Cancellation())
    timer.join()
    assert int(completed.stderr) == total <= 4 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_account() -> None:
    """A program runs with the user, the group and exactly the supplementary groups of its account."""
    program = Program(("/bin/sh", "-c", "id -u; id -g; id -G"), ENVIRONMENT, account=NOBODY)
    _, output = capture(program, cancel=Cancellation())
    assert b"65534\n65534\n65534 65533\n" == output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("machine", [platform.machine(), "pdp11"])
def test_no_way_back(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No id and no capability of root is left to a program, nor is this process another user, on any machine."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    program = Program(("/bin/cat", "/proc/self/status"), ENVIRONMENT, account=NOBODY)
    fields = dict(line.split(b":", 1) for line in capture(program, cancel=Cancellation())[1].splitlines())
    assert [b"65534"] * 4 == fields[b"Uid"].split() == fields[b"Gid"].split()
    assert [0, 0, 0] == [int(fields[name], 16) for name in (b"CapInh", b"CapPrm", b"CapEff")]
    assert (0, 0, 0) == os.getresuid()


def test_own_account() -> None:
    """The account that this process has already needs no rights."""
    own = Account("me", os.geteuid(), 12345, ())
    assert b"x\n" == capture(Program(("/bin/echo", "x"), ENVIRONMENT, account=own), cancel=Cancellation())[1]


def test_the_cause_is_kept() -> None:
    """Where a program says why it fails, and then shows much else, the error has both ends of it."""
    script = "echo 'x: error: the cause' >&2; for i in $(seq 50); do echo line $i >&2; done; exit 1"
    with pytest.raises(ProgramError) as caught:
        run(shell(script), cancel=Cancellation())
    assert "error: the cause\nline 41\n" in caught.value.message
