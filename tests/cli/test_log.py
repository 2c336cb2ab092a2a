"""The log of a run: every event by its name, in a file, on the screen, in syslog and in the journal."""

from __future__ import annotations

import json
import logging
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import asdict
from gitlab_backup_cli.log import JournalSink, Log, LogFormat, Sink, SyslogSink

from gitlab_backup import events
from gitlab_backup.events import NAMES, ComponentProgressed, ComponentWarned, Event, to_record
from gitlab_backup.logs import LOGGER, log
from tests.operations.pruned_store import make_backup

from .test_backup import failing_pg_dump
from .test_display import EVENTS

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .program import Program

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
DELETED = events.BackupDeleted("1714053314_2024_04_25_17.0.0-pre", Path("/backups/x"), 7)


def records(text: str) -> list[dict[str, Any]]:
    """Return the documents of a log, a line each."""
    return [json.loads(line) for line in text.splitlines()]


def test_every_event_has_a_name_and_its_page() -> None:
    """No event of the library is without a name, and the page has each name with each of its fields."""
    assert {each for each in vars(events).values() if isinstance(each, type) and issubclass(each, Event)} == {
        Event,
        *NAMES,
    }
    page = PAGE.read_text()
    for event in (*EVENTS, DELETED):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{NAMES[type(event)]}`")]
        assert set(asdict(event)) <= set(re.findall(r"`(\w+)`", row))


def test_a_record_is_plain_data() -> None:
    """Whatever is in an event, JSON takes it, and it says the same when it is read again."""
    for event in (*EVENTS, DELETED):
        record = to_record(event)
        assert record == json.loads(json.dumps(record))
        assert set(record) == {"event", *asdict(event)}


def test_a_backup_in_json(program: Program, tmp_path: Path) -> None:
    """A log in JSON has the run from its start to its end, each line with time, level, process and run."""
    file = tmp_path / "backup.log"
    result = program("backup", "all", "--only", "lfs,uploads", "--log-format", "json", "--log-file", file)
    lines = records(file.read_text())
    names = [each["event"] for each in lines]
    assert names[:2] == ["run_started", "operation_started"]
    assert names[-3:] == ["operation_finished", "message", "run_finished"]
    assert {"component_started", "component_progressed", "component_finished"} <= set(names)
    assert all(list(each)[:5] == ["time", "level", "pid", "run", "event"] for each in lines)
    assert {each["run"] for each in lines} == {"backup"}
    assert (lines[-1]["exit_status"], lines[-1]["error"]) == (result.status, None)
    assert "lfs: complete" in result.out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_failure_in_text(installation: ThrowawayInstallation, program: Program, tmp_path: Path) -> None:
    """A log in text is appended to, tells the levels apart, and says why a run has failed."""
    file = tmp_path / "backup.log"
    command = failing_pg_dump(installation, program)
    assert command("backup", "all", "--only", "db", "--log-file", file).status == 1
    assert command("backup", "all", "--only", "nonsense", "--log-file", file).status == 2
    text = file.read_text()
    assert len(re.findall(r"^\S+Z info backup: started$", text, re.MULTILINE)) == 2
    assert re.search(r"^\S+Z error db: failed: .*out of luck", text, re.MULTILINE)
    assert re.search(r"^\S+Z error backup: failed: unknown component: nonsense", text, re.MULTILINE)


@pytest.mark.parametrize("command", [("restore", "all", "latest", "--yes"), ("prune", "--keep-last", "1")])
def test_json_on_the_screen(program: Program, command: tuple[str, ...]) -> None:
    """Without a file, lines of JSON are all that is on standard output, also what else is said there."""
    assert program("backup", "all", "--only", "lfs", "--quiet").status == 0
    result = program(*command, "--log-format", "json")
    lines = records(result.out)
    assert (lines[0]["event"], lines[-1]["event"]) == ("run_started", "run_finished")
    assert "message" in {each["event"] for each in lines}
    assert result.status == lines[-1]["exit_status"] == 0


def test_a_verification_is_logged(reader: Program, tmp_path: Path) -> None:
    """A verification has a log, too, which says what is damaged, and with which status it has ended."""
    store, file = tmp_path / "backups", tmp_path / "log"
    make_backup(store, DELETED.backup_id, statuses={})
    result = reader("verify", "latest", "--backup-path", store, "--log-file", file, "--log-format", "json")
    lines = records(file.read_text())
    assert (4, 4) == (result.status, lines[-1]["exit_status"])
    assert {"verify"} == {each["run"] for each in lines}
    assert "component_finished" in {each["event"] for each in lines}


def test_json_beside_a_document(program: Program) -> None:
    """With `--json`, the log is on standard error; with `--quiet`, it is nowhere."""
    result = program("backup", "all", "--only", "lfs", "--log-format", "json", "--json")
    assert result.document["status"] == "complete"
    assert records(result.err)[-1]["event"] == "run_finished"
    quiet = program("backup", "all", "--only", "lfs", "--log-format", "json", "--quiet")
    assert (quiet.status, quiet.out, quiet.err) == (0, "", "")


def test_deletions_after_a_backup_are_logged(program: Program) -> None:
    """What `--prune` deletes after a backup is in its log, too."""
    first, second = (program("backup", "all", "--prune", "--keep-last", "1", "--log-format", "json") for _ in range(2))
    assert {first.status, second.status} <= {0, 3}
    deleted = [[each["event"] for each in records(done.out)].count("backup_deleted") for done in (first, second)]
    assert deleted == [0, 1]


def test_a_log_that_cannot_be_opened(program: Program, installation: ThrowawayInstallation, tmp_path: Path) -> None:
    """A log that cannot be opened is said before anything is done."""
    result = program("backup", "all", "--log-file", tmp_path / "missing" / "log")
    assert result.status == 1
    assert result.err.startswith(f"error: the log file {tmp_path}/missing/log cannot be opened")
    assert not installation.backup_path.exists()


def test_a_full_disk_ends_no_backup(program: Program) -> None:
    """A log that can no longer be written is given up with a warning, and the backup goes on: status 3."""
    result = program("backup", "all", "--only", "lfs", "--log-file", "/dev/full")
    assert result.status == 3
    assert result.err == "warning: the log file /dev/full cannot be written, and ends here: No space left on device\n"
    assert ": complete; " in result.out


def test_each_sink_is_given_up_by_itself() -> None:
    """Where one of several sinks fails, it is told once, and the others go on."""

    class Broken:
        name = "broken"

        def write(self, *_: object) -> None:
            raise OSError(5, "Input/output error")

        def close(self) -> None:
            """Nothing is open."""

    class Kept(Broken):
        lines: tuple[str, ...] = ()

        def write(self, *arguments: object) -> None:
            self.lines += (str(arguments[1]),)

    kept, lost = Kept(), list[str]()

    def give_up(message: str) -> None:
        lost.append(message)
        written.record(logging.WARNING, message, {"event": "report_failed"})

    sinks: list[Sink] = [Broken(), Broken(), kept]
    written = Log("backup", LogFormat.TEXT, give_up, sinks)
    written.event(ComponentWarned("db", "look"))
    assert len(lost) == 2
    told = [line.partition(" warning ")[2] for line in kept.lines]
    assert sorted(told) == sorted([*lost, "db: warning: look"])


def test_progress_once_a_second() -> None:
    """Progress comes often; the log has the first of each component, not all."""

    class Kept:
        name = "kept"
        events = 0

        def write(self, *_: object) -> None:
            self.events += 1

        def close(self) -> None:
            """Nothing is open."""

    kept = Kept()
    written = Log("backup", LogFormat.JSON, pytest.fail, [kept])
    for count in range(100):
        written.event(ComponentProgressed("db" if count % 2 else "lfs", count, count))
    assert kept.events == 2


def listen(address: Path) -> socket.socket:
    """Return a socket that takes what is sent to an address."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(address))
    receiver.settimeout(30)
    return receiver


def test_syslog(tmp_path: Path) -> None:
    """Syslog gets facility, level, program and process, and the line."""
    with listen(tmp_path / "log") as receiver:
        written = Log("backup", LogFormat.TEXT, pytest.fail, [SyslogSink(tmp_path / "log")])
        written.event(ComponentWarned("db", "look"))
        written.close()
        assert re.fullmatch(rb"<12>gitlab-backup-cli\[\d+\]: db: warning: look", receiver.recv(4096))


def test_journal(tmp_path: Path) -> None:
    """The journal gets the line as its message, whatever is in it, and fields to search by."""
    with listen(tmp_path / "journal") as receiver:
        written = Log("backup", LogFormat.JSON, pytest.fail, [JournalSink(tmp_path / "journal")])
        written.event(ComponentWarned("db", "two\nlines"))
        written.close()
        data = receiver.recv(4096)
    fields = {}
    while data:
        name, _, data = data.partition(b"\n")
        length = int.from_bytes(data[:8], "little")
        fields[name.decode()], data = data[8 : 8 + length].decode(), data[9 + length :]
    assert json.loads(fields.pop("MESSAGE"))["message"] == "two\nlines"
    assert fields == {
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "gitlab-backup-cli",
        "GITLAB_BACKUP_RUN": "backup",
        "GITLAB_BACKUP_EVENT": "component_warned",
        "GITLAB_BACKUP_COMPONENT": "db",
    }


def test_the_logger_of_the_library(caplog: pytest.LogCaptureFixture) -> None:
    """Events go to the logging of Python with their levels, for those who ask for it."""
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        for event in EVENTS:
            log(event)
    assert [each.__dict__["event"] for each in caplog.records] == list(EVENTS)
    levels = {each.getMessage(): each.levelname for each in caplog.records}
    assert levels["component_progressed component='db' bytes_read=1024 bytes_written=100"] == "DEBUG"
    failed = [message.partition(" ")[0] for message, name in levels.items() if name == "ERROR"]
    assert failed == ["component_finished", "operation_finished"]


def test_the_logger_is_quiet() -> None:
    """A program that asks for no log gets none, not even what logging prints as a last resort."""
    code = (
        "from gitlab_backup.events import OperationFinished\nfrom gitlab_backup.logs import log\n"
        "log(OperationFinished('backup', 'x', 'failed'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
