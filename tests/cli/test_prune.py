"""`prune`, `pin` and `unpin`: what they print, and how they end."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gitlab_backup_cli.commands.prune import prune_after
from gitlab_backup_cli.display import Nothing

from gitlab_backup import Backup, BackupStore, Cancellation
from gitlab_backup.errors import ExitStatus
from gitlab_backup.operations.prune import PruneOptions
from gitlab_backup.retention import Rules
from tests.operations.pruned_store import id_at, make_backup, make_legacy

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .program import Program

START = 1_714_053_314
IDS = tuple(id_at(START + number * 86_400) for number in range(4))
PARTIAL = id_at(START + 9 * 86_400)
PAGE = Path(__file__).parents[2] / "docs" / "how-to-prune.md"
LEGACY = f"{START}_gitlab_backup.tar"
UNFINISHED = "is being made, or was interrupted; `prune --incomplete` removes it once nothing works on it"
KEEP_TIME = 604_800
"""That of the throwaway installation, in seconds."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A backup path with four backups, one of them pinned, and something of every other kind."""
    path = tmp_path / "backups"
    for backup_id in IDS:
        make_backup(path, backup_id)
    make_backup(path, PARTIAL, left_out=frozenset({"registry"}))
    make_legacy(path, LEGACY)
    (path / f".{id_at(START)}.partial").mkdir()
    (path / "lost+found").mkdir()
    (path / "\x1b[2J").touch()
    BackupStore(path).pin(IDS[0])
    return path


def test_lines(bare: Program, store: Path) -> None:
    """A dry run says what the run does then: a line for everything, names escaped, the sum at the end."""
    arguments = ("prune", "--keep-last", "1", "--keep-daily", "2", "--backup-path", store)
    planned = bare(*arguments, "--dry-run")
    assert (planned.status, planned.err) == (0, "")
    assert set(IDS) < set(BackupStore(store).ids())
    done = bare(*arguments)
    assert (done.status, done.err) == (0, "")
    size = done.out.splitlines()[0].partition(": ")[2]
    assert done.out.splitlines() == [
        f"deleted {IDS[1]}: {size}",
        f"kept {IDS[0]}: pinned",
        f"kept {IDS[2]}: keep-daily 2024-04-27",
        f"kept {IDS[3]}: keep-last, keep-daily 2024-04-28",
        f"left alone {PARTIAL}: partial: is not a backup of everything",
        f"left alone .{IDS[0]}.partial: unfinished: {UNFINISHED}",
        r"left alone \x1b[2J: foreign: is not a backup",
        "left alone lost+found: foreign: is not a backup",
        "left alone 1 backup of the Rake task (1.5 KiB): --legacy prunes them, too",
        f"1 backup deleted ({size}), 3 kept",
    ]
    assert planned.out == done.out.replace("\ndeleted", "\nwould delete").replace("deleted (", "to delete (").replace(
        "deleted", "would delete", 1
    )
    assert BackupStore(store).ids() == (IDS[0], *IDS[2:], PARTIAL)


@pytest.mark.parametrize("dry_run", [True, False])
def test_document(bare: Program, store: Path, *, dry_run: bool) -> None:
    """The document has everything, and for each backup that is kept the rules that keep it."""
    flags = ("--dry-run",) if dry_run else ()
    result = bare("prune", "--keep-within", "1h", "--minimum", "2", "--json", "--backup-path", store, *flags)
    assert result.status == 0
    document = result.document
    assert {"backup_path": str(store), "status": "planned" if dry_run else "complete"} == {
        key: document[key] for key in ("backup_path", "status")
    }
    assert {"keep_within_seconds": 3600, "minimum": 2} == {k: v for k, v in document["rules"].items() if v is not None}
    assert document["kept"] == [
        {"name": name, "path": str(store / name), "reasons": [{"rule": rule, "period": None}]}
        for name, rule in ((IDS[0], "pinned"), (IDS[2], "minimum"), (IDS[3], "minimum"))
    ]
    assert [(each["name"], each["size_bytes"] > 100) for each in document["deleted"]] == [(IDS[1], True)]
    assert [(each["name"], each["kind"]) for each in document["left_alone"]] == [
        (PARTIAL, "partial"),
        (f".{IDS[0]}.partial", "unfinished"),
        ("\x1b[2J", "foreign"),
        ("lost+found", "foreign"),
    ]
    assert (document["remains"], document["legacy"]) == ([], {"files": 1, "size_bytes": 1536})
    assert (IDS[1] in BackupStore(store).ids()) == dry_run


def test_quiet(bare: Program, store: Path) -> None:
    """With `--quiet`, what went well is not spoken of."""
    result = bare("prune", "--keep-last", "1", "--quiet", "--backup-path", store)
    assert (result.status, result.out, result.err) == (0, "", "")
    assert IDS[1] not in BackupStore(store).ids()


def test_incomplete_alone(bare: Program, store: Path) -> None:
    """`--incomplete` removes dead staging, and without rules nothing else: it needs no installation, either."""
    result = bare("prune", "--incomplete", "--json", "--backup-path", store)
    assert (result.status, result.document["rules"]) == (0, None)
    assert (result.document["remains"], result.document["deleted"]) == ([f".{IDS[0]}.partial"], [])
    assert not (store / f".{IDS[0]}.partial").exists()
    assert BackupStore(store).ids() == (*IDS, PARTIAL)


def test_legacy(bare: Program, store: Path) -> None:
    """With `--legacy`, the rules hold for the files of the Rake task, by themselves."""
    newer = make_legacy(store, f"{START + 1}_gitlab_backup.tar").name
    result = bare("prune", "--keep-last", "1", "--legacy", "--json", "--backup-path", store)
    assert [each["name"] for each in result.document["deleted"]] == [*IDS[1:3], LEGACY]
    assert (store / newer).exists()
    assert not (store / LEGACY).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep-last", "0"), "--keep-last"),
        (("--keep-within", "14"), "14d"),
        (("--minimum", "-1", "--keep-last", "1"), "--minimum"),
        (("--keep-daily", "many"), "--keep-daily"),
    ],
)
def test_usage(bare: Program, store: Path, arguments: tuple[str, ...], message: str) -> None:
    """What makes no sense has status 2, says what would, and deletes nothing."""
    result = bare("prune", *arguments, "--backup-path", store)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
    assert BackupStore(store).ids() == (*IDS, PARTIAL)


def forever(installation: ThrowawayInstallation) -> None:
    """Have an installation keep its backups for ever."""
    text = installation.gitlab_config.read_text()
    assert f"keep_time: {KEEP_TIME}" in text
    installation.gitlab_config.write_text(text.replace(f"keep_time: {KEEP_TIME}", "keep_time: 0"))


def test_nothing_says_what_to_keep(installation: ThrowawayInstallation, program: Program, store: Path) -> None:
    """Without any rule, also where only a minimum is given, it is a usage error that names the rules."""
    forever(installation)
    for arguments in ((), ("--minimum", "3"), ("--legacy",)):
        result = program("prune", *arguments, "--json", "--backup-path", store)
        assert (result.status, result.document["status"], result.document["deleted"]) == (2, "failed", [])
        assert "--keep-last" in result.document["error"]["hint"]
        assert "backup.keep_time" in result.document["error"]["hint"]
    assert BackupStore(store).ids() == (*IDS, PARTIAL)


def test_without_an_installation(bare: Program, store: Path) -> None:
    """Where no installation can say what to keep, the error tells how to do without."""
    result = bare("prune", "--backup-path", store)
    assert (result.status, result.out) == (7, "")
    assert "--keep-last" in result.err


def test_keep_time_is_the_default(reader: Program, store: Path) -> None:
    """`backup.keep_time` counts where no rule is given, with the minimum; a rule takes its place."""
    result = reader("prune", "--json", "--dry-run", "--minimum", "2", "--backup-path", store)
    assert (result.document["rules"]["keep_within_seconds"], result.document["rules"]["minimum"]) == (KEEP_TIME, 2)
    assert [each["name"] for each in result.document["deleted"]] == [IDS[1]]
    result = reader("prune", "--json", "--dry-run", "--keep-last", "9", "--backup-path", store)
    assert (result.document["rules"]["keep_within_seconds"], result.document["deleted"]) == (None, [])


def test_locked(bare: Program, store: Path) -> None:
    """While another operation works, nothing is deleted or pinned: status 6, and the document says so."""
    with BackupStore(store).lock("backup"):
        result = bare("prune", "--keep-last", "1", "--json", "--backup-path", store)
        assert (result.status, result.document["status"], result.document["error"]["exit_status"]) == (6, "failed", 6)
        for command in ("pin", "unpin"):
            assert bare(command, IDS[0], "--backup-path", store).status == 6
        planned = bare("prune", "--keep-last", "1", "--dry-run", "--backup-path", store)
        assert planned.status == 0
    assert BackupStore(store).ids() == (*IDS, PARTIAL)


def test_pin_and_unpin(bare: Program, store: Path) -> None:
    """They say what they did, take `latest`, and know what is no backup: status 5."""
    result = bare("pin", "latest", "--backup-path", store)
    assert (result.status, result.out, result.err) == (0, f"pinned {PARTIAL}\n", "")
    assert BackupStore(store).pinned() == {IDS[0], PARTIAL}
    assert [", partial, pinned " in line for line in bare("list", "--backup-path", store).out.splitlines()] == [
        *(False,) * 5,
        True,
    ]
    assert bare("unpin", IDS[0], "--backup-path", store).out == f"unpinned {IDS[0]}\n"
    assert BackupStore(store).pinned() == {PARTIAL}
    for command in ("pin", "unpin"):
        assert bare(command, "1_1970_01_01_17.0.0", "--backup-path", store).status == 5


def test_after_a_backup(installation: ThrowawayInstallation, program: Program) -> None:
    """`backup all --prune` deletes after its backup, by the options or `keep_time`; the new one stays and counts."""
    for backup_id in IDS:
        make_backup(installation.backup_path, backup_id)
    result = program("backup", "all", "--prune", "--keep-last", "2", "--json")
    assert result.status == 0, result.err
    document = result.document
    assert [each["name"] for each in document["prune"]["deleted"]] == list(IDS[:3])
    new = {"rule": "new", "period": None}
    assert [(each["name"], new in each["reasons"]) for each in document["prune"]["kept"]] == [
        (IDS[3], False),
        (document["backup_id"], True),
    ]
    assert BackupStore(installation.backup_path).ids() == (IDS[3], document["backup_id"])
    result = program("backup", "all", "--prune")
    assert f"deleted {IDS[3]}: " in result.out
    assert "1 backup deleted" in result.out.splitlines()[-1]


def test_after_a_backup_that_is_not_complete(installation: ThrowawayInstallation, program: Program) -> None:
    """One that is partial, or that could not be made, deletes nothing; the partial one is there: status 3."""
    for backup_id in IDS:
        make_backup(installation.backup_path, backup_id)
    store = BackupStore(installation.backup_path)
    result = program("backup", "all", "--only", "lfs", "--prune", "--keep-last", "1", "--json")
    document = result.document
    assert (result.status, document["prune"]["status"], document["prune"]["deleted"]) == (3, "failed", [])
    assert document["backup_id"] in store.ids()
    assert f"the backup {document['backup_id']} was made, but not everything was pruned: " in result.err
    assert set(IDS) < set(store.ids())
    before = store.ids()
    with store.lock("restore"):
        assert program("backup", "all", "--prune", "--keep-last", "1").status == 6
    assert store.ids() == before


def test_interrupted_after_a_backup(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A signal while old backups are deleted has its own status, and the backup that was made is told all the same."""
    cancel = Cancellation()
    cancel.request(ExitStatus.TERMINATED)
    status, document = prune_after(Backup(store / IDS[3]), PruneOptions(rules=Rules(keep_last=1)), Nothing(), cancel)
    assert status is ExitStatus.TERMINATED
    assert document["prune"]["status"] == "failed"  # type: ignore[index, call-overload]
    assert f"error: the backup {IDS[3]} was made, but not everything was pruned: terminated" in capsys.readouterr().err
    assert BackupStore(store).ids() == (*IDS, PARTIAL)


def test_usage_before_a_backup(installation: ThrowawayInstallation, program: Program) -> None:
    """Rules that make no sense, are not there, or are given without `--prune`, are found before the backup is made."""
    forever(installation)
    for arguments, message in (
        (("--prune",), "--keep-last"),
        (("--prune", "--keep-within", "x"), "14d"),
        (("--keep-last", "3"), "--prune"),
    ):
        result = program("backup", "all", *arguments)
        assert (result.status, message in result.err) == (2, True)
    assert BackupStore(installation.backup_path).ids() == ()


def test_the_page(installation: ThrowawayInstallation, program: Program) -> None:
    """Every command of the page does what the page says, one after the other, on an installation with old backups."""
    commands = [
        shlex.split(line)
        for block in re.findall(r"^```shell\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    assert {"prune", "backup", "pin", "unpin"} == {command[1] for command in commands}
    for backup_id in IDS:
        make_backup(installation.backup_path, backup_id)
    for name, *arguments in commands:
        assert name == "gitlab-backup-cli"
        result = program(*arguments)
        assert (result.status, result.err) == (0, "")
