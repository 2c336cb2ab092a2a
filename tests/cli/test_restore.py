"""`restore all` of a real installation: what it says before, what it does, and how it ends."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
from contextlib import suppress
from subprocess import TimeoutExpired
from typing import TYPE_CHECKING

import pytest

from gitlab_backup import Backup, BackupStore
from tests.operations.changes import change
from tests.support import compare

from .program import TIMEOUT
from .test_backup import KEYS, replace_program, statuses
from .test_signals import make_fifo, read_pid
from .test_terminal import on_terminal, without_colour

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.installation import ThrowawayInstallation

    from .program import Program

DOCUMENT = ["backup_id", "path", "status", "components", "plan", "notes", "next_steps"]
JOURNAL = ".gitlab-restore.journal"


@pytest.fixture
def backup(installation: ThrowawayInstallation) -> Backup:
    """A backup of databases and uploads, which have changed since."""
    made = Backup.create(installation.instance(), only=["db", "uploads"])
    change(installation, seed=3)
    return made


def with_broken_dump(backup: Backup) -> None:
    """Put a statement that fails at the end of a dump, and let no digest tell."""
    dump = backup.path / "db" / "ci_database.sql.gz"
    with gzip.open(dump) as file:
        sql = file.read()
    end = b"--\n-- PostgreSQL database dump complete"
    assert 1 == sql.count(end)
    dump.write_bytes(gzip.compress(sql.replace(end, b"INSERT INTO public.never_made VALUES (1);\n\n" + end)))
    like_the_reference(backup)


def like_the_reference(backup: Backup) -> None:
    """Leave what GitLab's own tool would leave: neither manifest nor digests."""
    (backup.path / "manifest.json").unlink()
    (backup.path / "SHA256SUMS").unlink()


def hanging_git(installation: ThrowawayInstallation, program: Program) -> Program:
    """Return the command in an environment in which no bundle is ever read, and the pipe `started` tells that."""
    script = (
        f'case " $* " in *" index-pack "*) echo $$ > "{installation.directory}/started"; exec sleep 600;; esac\n'
        'exec /usr/bin/git "$@"'
    )
    return replace_program(installation, program, "git", script)


def test_round_trip(installation: ThrowawayInstallation, program: Program) -> None:
    """What was backed up is there again, all of it, and the document says so."""
    before = compare.snapshot(installation)
    made = program("backup", "all", "--json").document
    change(installation, seed=4)
    result = program("restore", "all", "latest", "--yes", "--json")
    assert 0 == result.status, result.err
    assert [] == compare.differences(before, compare.snapshot(installation))
    document = result.document
    assert DOCUMENT == list(document)
    assert [made["backup_id"], made["path"], "complete"] == [document[key] for key in DOCUMENT[:3]]
    restored = [each["id"] for each in made["components"] if each["status"] == "complete"]
    assert restored == [each["id"] for each in document["components"]] == list(document["plan"])
    assert all(KEYS == list(each) for each in document["components"])
    assert "Restart GitLab's services." in document["next_steps"]
    assert all(document["plan"].values())


def test_lines(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """With `--yes`, all is said that would have been asked, and at the end what is left to do, in order."""
    result = program("restore", "all", "latest", "--yes")
    assert (0, "") == (result.status, result.err)
    lines = result.out.splitlines()
    assert f"latest is {backup.id}" == lines[0]
    assert any(line.startswith(f"    database main ({installation.databases['main']}): ") for line in lines)
    assert any("secrets.yml" in line for line in lines)
    for word in ("intact", "complete"):
        ended = [line.partition(":")[0] for line in lines if f": {word}; " in line]
        assert {"db", "uploads"} == {each for each in ended if each != f"restore {backup.id}"}
    assert f"restore {backup.id}: complete; " in result.out
    steps = lines[lines.index("What you must still do, in this order:") + 2 :]
    assert [str(number) for number in range(1, len(steps) + 1)] == [step.strip().partition(". ")[0] for step in steps]
    assert "gitlab:check SANITIZE=true RAILS_ENV=production" in " ".join(steps)


def test_quiet(program: Program, backup: Backup) -> None:
    """With `--quiet` and `--yes`, a restore that succeeds says nothing."""
    result = program("restore", "all", backup.id, "--yes", "--quiet")
    assert (0, "", "") == (result.status, result.out, result.err)


def test_dry_run(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """A dry run checks all, says what would be replaced, asks nobody, and changes nothing."""
    before = compare.snapshot(installation)
    result = program("restore", "all", "latest", "--dry-run")
    assert (0, "") == (result.status, result.err)
    assert installation.databases["main"] in result.out
    assert str(installation.directories["uploads"]) in result.out
    assert f"verify {backup.id}: " in result.out
    result = program("restore", "all", "latest", "--dry-run", "--json", "--only", "db")
    document = result.document
    assert DOCUMENT == list(document)
    assert (0, "planned", {"db": "planned"}) == (result.status, document["status"], statuses(document))
    assert ["database"] == [each["archiver"] for each in document["components"]]
    assert all(KEYS == list(each) for each in document["components"])
    assert 2 == len(document["plan"]["db"])
    assert [] == compare.differences(before, compare.snapshot(installation))


def test_nobody_is_there(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """Without a terminal and without `--yes` it is refused, before anything is read: status 8."""
    before = compare.snapshot(installation)
    result = program("restore", "all", "latest", "--json")
    assert 8 == result.status
    assert "--yes" in result.err
    assert "verify" not in result.err
    document = result.document
    assert [*DOCUMENT, "error"] == list(document)
    assert [backup.id, str(backup.path), "failed", [], {}, [], []] == [document[key] for key in DOCUMENT]
    assert 8 == document["error"]["exit_status"]
    assert [] == compare.differences(before, compare.snapshot(installation))


def asked(
    installation: ThrowawayInstallation, program: Program, backup: Backup, answer: bytes | signal.Signals
) -> tuple[int, str]:
    """Restore on a terminal. What will be replaced is said before. Returns the status, and what is said after."""
    status, written = on_terminal(program.having(TERM="xterm-256color"), "restore", "all", "latest", answer=answer)
    before, question, after = without_colour(written).partition('Type "yes"')
    assert question
    assert f"latest is {backup.id}" in before
    assert installation.databases["ci"] in before
    assert "secrets.yml" in before
    return status, after


def test_yes(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """On a terminal it says what will be replaced, and asks. A yes restores."""
    before = compare.snapshot(installation)
    status, after = asked(installation, program, backup, b"yes\n")
    assert 0 == status
    assert "What you must still do" in after
    assert "\nerror: " not in after
    assert [] != compare.differences(before, compare.snapshot(installation))


def test_anything_but_yes(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """Anything but a yes changes nothing, Ctrl-C included."""
    before = compare.snapshot(installation)
    for answer, status in ((b"no\n", 8), (b"\n", 8), (b"\xff\n", 8), (b"\x04", 8), (signal.SIGINT, 130)):
        ended, after = asked(installation, program, backup, answer)
        assert (answer, status) == (answer, ended)
        assert "What you must still do" not in after
        # What comes after the question begins on a line of its own.
        assert "\nerror: " in after
    assert [] == compare.differences(before, compare.snapshot(installation))


def test_a_narrow_screen(program: Program, backup: Backup) -> None:
    """Everything that is said before the answer keeps to the width of the screen, but for a name that is longer."""
    _, written = on_terminal(program.having(TERM="dumb"), "restore", "all", backup.id, columns=40, answer=b"no\n")
    start, end = written.index(f"The backup {backup.id}"), written.index("as it is: ")
    lines = written[start:end].splitlines()[2:]
    assert [] == [line for line in lines if len(line) > 40 and " " in line.removeprefix("  - ").strip()]
    assert ['Type "yes" to restore. Anything else', "leaves everything "] == lines[-2:]


def test_question_of_a_quiet_restore(program: Program, backup: Backup) -> None:
    """`--quiet` is no consent: what will be replaced is said, and asked, and nothing else."""
    status, written = on_terminal(program.having(TERM="dumb"), "restore", "all", backup.id, "--quiet", answer=b"yes\n")
    assert 0 == status
    assert "verify" not in written
    assert written.strip().splitlines()[0] == f"The backup {backup.id} replaces this"
    assert 'Type "yes"' in written.strip().splitlines()[-1]


def test_question_beside_a_document(program: Program, backup: Backup, tmp_path: Path) -> None:
    """The question goes to standard error, so that standard output stays one document."""
    import json
    import pty

    controller, terminal = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        process = program.start("restore", "all", backup.id, "--json", stdin=terminal, stdout=out, stderr=terminal)
    os.close(terminal)
    os.write(controller, b"no\n")
    with suppress(OSError):
        while os.read(controller, 65536):
            pass
    os.close(controller)
    assert 8 == process.wait(TIMEOUT)
    document = json.loads((tmp_path / "out").read_text())
    assert ("failed", ["db", "uploads"]) == (document["status"], list(document["plan"]))
    assert document["notes"]


def test_sessions(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """Who is connected is listed, with the advice what to stop; `--yes` does not hide it, and the document has it."""
    import psycopg

    server, name = installation.cluster, installation.databases["main"]
    with psycopg.connect(
        host=str(server.socket_directory),
        port=server.port,
        user="gitlab",
        dbname=name,
        application_name="puma: worker 1",
        autocommit=True,
    ):
        result = program("restore", "all", backup.id, "--only", "db", "--yes", "--json")
    assert 0 == result.status, result.err
    (note,) = [each for each in result.document["notes"] if "puma: worker 1" in each]
    assert f"connected to {name}: " in note
    assert all(f"`gitlab-ctl stop {each}`" in note for each in ("puma", "sidekiq"))
    assert f"  - {note}\n" in result.err


def test_database_strategy(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """Which way is taken, and why, is a note; one that is asked for and not possible is refused with the reason."""
    only = ("restore", "all", backup.id, "--only", "db", "--dry-run", "--json")
    (chosen,) = [note for note in program(*only).document["notes"] if "strategy transaction" in note]
    assert "the role may not create databases" in chosen
    assert "cannot be put back" in chosen
    refused = program(*only, "--database-strategy", "swap")
    assert (8, "failed") == (refused.status, refused.document["status"])
    assert "the role may not create databases" in refused.err
    assert installation.databases["main"] in refused.err
    installation.cluster.psql("ALTER ROLE gitlab CREATEDB")
    try:
        swap, transaction = program(*only), program(*only, "--database-strategy", "transaction")
    finally:
        installation.cluster.psql("ALTER ROLE gitlab NOCREATEDB")
    assert any("(strategy swap)" in note for note in swap.document["notes"])
    assert any("(strategy transaction)" in note for note in transaction.document["notes"])


def test_keep_old(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """With `--keep-old`, what was replaced is beside the new, all of it; without, nothing is."""
    uploads = installation.directories["uploads"]
    old = uploads.with_name(f"{uploads.name}.before-{backup.id}")
    before = compare.tree(uploads)
    restore = ("restore", "all", backup.id, "--only", "uploads", "--yes")
    assert 0 == program(*restore, "--keep-old").status
    assert before == compare.tree(old)
    assert before != compare.tree(uploads)
    shutil.rmtree(os.fsencode(old))  # as bytes: not all names in it are UTF-8
    assert 0 == program(*restore).status
    assert [uploads] == list(uploads.parent.glob(f"{uploads.name}*"))


def test_damage(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """A damaged backup is not restored, and a dry run says the same: status 4. The part that is whole is restored."""
    archive = backup.path / "uploads.tar.gz"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    before = compare.snapshot(installation)
    for option in ("--yes", "--dry-run"):
        result = program("restore", "all", "latest", option, "--json")
        assert (4, "failed", 4) == (result.status, result.document["status"], result.document["error"]["exit_status"])
        assert "uploads.tar.gz" in result.err
    assert [] == compare.differences(before, compare.snapshot(installation))
    assert 0 == program("restore", "all", "latest", "--yes", "--skip", "uploads").status


def test_failure(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """Where a dump has a statement that fails, everything is put back, and it is said: status 1."""
    with_broken_dump(backup)
    before = compare.snapshot(installation)
    result = program("restore", "all", backup.id, "--yes", "--json")
    assert (1, "failed") == (result.status, result.document["status"])
    assert "never_made" in result.document["error"]["message"]
    assert "everything was put back" in result.err
    assert ["db", "uploads"] == list(result.document["plan"])
    assert [] == compare.differences(before, compare.snapshot(installation))
    assert not (backup.path.parent / JOURNAL).exists()


def test_warnings(program: Program, backup: Backup) -> None:
    """What is configured, but not in the backup, is left alone, and a warning: status 3."""
    like_the_reference(backup)
    (backup.path / "db" / "ci_database.sql.gz").unlink()
    result = program("restore", "all", backup.id, "--only", "db", "--dry-run", "--json")
    assert (0, 1) == (result.status, len(result.document["components"][0]["warnings"]))
    result = program("restore", "all", backup.id, "--only", "db", "--yes", "--json")
    assert (3, "complete_with_warnings", {"db": "warning"}) == (
        result.status,
        result.document["status"],
        statuses(result.document),
    )
    (warning,) = result.document["components"][0]["warnings"]
    assert f"db: warning: {warning}\n" in result.err
    assert any("SHA256SUMS" in note for note in result.document["notes"])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("latest", "--only", "nonsense"), 2, "unknown component: nonsense"),
        (("latest", "--database-strategy", "nonsense"), 2, "nonsense"),
        (("latest", "--yes", "--jobs", "0"), 2, "0 jobs"),
        ((), 2, "BACKUP_ID"),
        (("1714053314_2024_04_25_17.0.0-pre", "--yes"), 5, "no backup 1714053314"),
        (("latest", "--only", "lfs", "--dry-run"), 8, "has no lfs"),
    ],
)
def test_mistakes(program: Program, backup: Backup, arguments: tuple[str, ...], status: int, message: str) -> None:
    """What does not exist, or is not in the backup, is said before anything is read."""
    assert backup.id
    result = program("restore", "all", *arguments)
    assert (status, True) == (result.status, message in result.err)
    assert "verify" not in result.out


def test_locked(program: Program, backup: Backup) -> None:
    """While another operation works in the backup path nothing is restored: status 6."""
    with BackupStore(backup.path.parent).lock("backup"):
        result = program("restore", "all", backup.id, "--yes")
    assert 6 == result.status
    assert f"backup (pid {os.getpid()}" in result.err


def test_broken_configuration(program: Program, backup: Backup, tmp_path: Path) -> None:
    """A configuration that cannot be used has status 7."""
    (tmp_path / "gitlab.yml").write_text("production: [")
    result = program("restore", "all", backup.id, "--yes", "--gitlab-config", tmp_path / "gitlab.yml")
    assert (7, "") == (result.status, result.out)


def test_other_version(installation: ThrowawayInstallation, program: Program, backup: Backup) -> None:
    """A backup of another version is refused with status 8; with `--force-version`, a note says so."""
    (installation.root / "VERSION").write_text("17.1.0-ee\n")
    result = program("restore", "all", backup.id, "--yes")
    assert 8 == result.status
    assert "--force-version" in result.err
    document = program("restore", "all", backup.id, "--dry-run", "--force-version", "--json").document
    assert any("17.1.0-ee" in note for note in document["notes"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_the_middle(installation: ThrowawayInstallation, program: Program, number: signal.Signals) -> None:
    """However often it is interrupted, everything is put back, and said; then it ends with the signal's status."""
    backup = Backup.create(installation.instance())
    change(installation, seed=5)
    before = compare.snapshot(installation)
    fifo = make_fifo(installation.directory / "started")
    process = hanging_git(installation, program).start("restore", "all", backup.id, "--yes", "--json")
    read_pid(fifo)
    os.close(fifo)
    while process.poll() is None:
        process.send_signal(number)
        with suppress(TimeoutExpired):
            process.wait(0.05)
    out, err = process.communicate(timeout=TIMEOUT)
    assert 128 + number == process.returncode
    word = "interrupted" if number is signal.SIGINT else "terminated"
    assert err.endswith(f"error: {word}\nhint: Everything was put back: the installation is as it was.\n")
    assert '"status": "failed"' in out
    assert [] == compare.differences(before, compare.snapshot(installation))
    assert not (backup.path.parent / JOURNAL).exists()


def test_killed(installation: ThrowawayInstallation, program: Program) -> None:
    """What a killed restore has left is put right by the next run, which says so, even if that changes nothing else."""
    backup = Backup.create(installation.instance())
    change(installation, seed=6)
    before = compare.snapshot(installation)
    fifo = make_fifo(installation.directory / "started")
    process = hanging_git(installation, program).start("restore", "all", backup.id, "--yes", "--json")
    child = read_pid(fifo)
    os.close(fifo)
    process.kill()
    # What it has started may live longer, and holds the other ends of its pipes.
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    process.communicate(timeout=TIMEOUT)
    assert (backup.path.parent / JOURNAL).exists()
    result = program("restore", "all", backup.id, "--dry-run")
    assert f"an interrupted restore of {backup.id} was undone" in result.out
    assert [] == compare.differences(before, compare.snapshot(installation))
    assert not (backup.path.parent / JOURNAL).exists()
