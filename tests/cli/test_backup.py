"""`backup all` of a real installation: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gitlab_backup import BackupStore
from gitlab_backup.components import COMPONENTS
from gitlab_backup.streams.tar.clone import clone

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .program import Program

KEYS = ["id", "status", "archiver", "bytes_read", "bytes_written", "duration_seconds", "warnings", "reason"]


def replace_program(installation: ThrowawayInstallation, program: Program, name: str, script: str) -> Program:
    """Return the command in an environment in which a shell script takes the place of a program."""
    directory = installation.directory / "bin"
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)
    return program.having(PATH=f"{directory}{os.pathsep}{program.environment['PATH']}")


def failing_pg_dump(installation: ThrowawayInstallation, program: Program) -> Program:
    """Return the command in an environment in which no dump succeeds."""
    real = installation.cluster.programs / "pg_dump"
    script = f'case "$*" in *--version*) exec "{real}" "$@";; esac\necho "pg_dump: error: out of luck" >&2\nexit 1'
    return replace_program(installation, program, "pg_dump", script)


def statuses(document: Any) -> dict[str, str]:
    """Return the status of each component of a document."""
    return {component["id"]: component["status"] for component in document["components"]}


@pytest.fixture
def store(installation: ThrowawayInstallation) -> BackupStore:
    """The backup path of the installation."""
    return BackupStore(installation.backup_path)


def nothing_left(store: BackupStore) -> bool:
    """Return whether there is neither a backup nor anything unfinished."""
    return not store.path.exists() or not [
        entry for entry in store.path.iterdir() if entry.name.strip(".") != "gitlab-backup.lock"
    ]


def test_a_file_that_never_holds_still(
    installation: ThrowawayInstallation, program: Program, store: BackupStore
) -> None:
    """It is named on screen, and in the manifest with the sizes and times of both versions; the status is 3."""
    busy = installation.directories["uploads"] / "busy"
    # So large that the writer has its turn on a busy processor while it is read.
    busy.write_bytes(bytes(64 << 20))
    directory = os.open(busy.parent, os.O_RDONLY)
    with busy.open("rb") as source:
        copy = clone(directory, source.fileno())
    os.close(directory)
    if copy is not None:
        os.close(copy)
        pytest.skip("here it is read from a clone")
    with subprocess.Popen(["/bin/sh", "-c", 'while echo x; do :; done >> "$1"', "sh", busy]) as writer:
        try:
            result = program("backup", "all", "--only", "uploads")
        finally:
            writer.kill()
    assert result.status == 3
    assert "uploads: warning: ./busy changed while it was read" in result.out
    manifest = json.loads((store.open("latest") / "manifest.json").read_bytes())
    (record,) = (each for each in manifest["components"] if each["id"] == "uploads")
    (changed,) = record["details"]["changed"]
    assert "./busy" == changed["name"]
    for key in ("sizes", "mtimes_ns"):
        before, after = changed[key]
        assert before < after


def test_everything(program: Program, store: BackupStore) -> None:
    """A backup of all is one document that agrees with the manifest, and a backup that all commands know."""
    result = program("backup", "all", "--json")
    document = result.document
    assert list(document) == ["backup_id", "path", "status", "components"]
    assert [each.id for each in COMPONENTS if not each.optional] == [each["id"] for each in document["components"]]
    assert all(list(each) == KEYS for each in document["components"])
    (backup_id,) = store.ids()
    assert (backup_id, str(store.path / backup_id)) == (document["backup_id"], document["path"])
    manifest = json.loads((store.path / backup_id / "manifest.json").read_text())
    assert document["components"] == [{key: each[key] for key in KEYS} for each in manifest["components"]]
    assert document["status"] == manifest["status"]
    assert {"complete": 0, "complete_with_warnings": 3}[document["status"]] == result.status
    assert "db: complete; " in result.err
    (listed,) = program("list", "--json").document
    assert (backup_id, document["status"]) == (listed["backup_id"], listed["status"])
    shown = program("show", "latest")
    assert (shown.status, shown.err) == (0, "")
    assert backup_id in shown.out
    assert document["components"] == [
        {key: each[key] for key in KEYS} for each in program("show", backup_id, "--json").document["components"]
    ]
    verified = program("verify", "latest", "--json")
    assert (verified.status, verified.document["status"], verified.document["has_checksums"]) == (0, "intact", True)


def test_lines(program: Program, store: BackupStore) -> None:
    """Without a terminal there is a line for each component as it ends, and one for the whole."""
    result = program("backup", "all", "--only", "uploads,registry", "--only", "lfs", "--jobs", "1")
    (backup_id,) = store.ids()
    lines = result.out.splitlines()
    assert f"backup {backup_id}: 3 components" == lines[0]
    assert {"uploads", "registry", "lfs"} == {line.partition(":")[0] for line in lines[1:-1]}
    assert lines[-1].startswith(f"backup {backup_id}: complete")
    assert result.err == ""


def test_quiet(program: Program, store: BackupStore) -> None:
    """With `--quiet`, a backup that succeeds says nothing."""
    result = program("backup", "all", "--only", "lfs", "--quiet")
    assert (result.status, result.out, result.err) == (0, "", "")
    assert len(store.ids()) == 1


def test_selection(program: Program) -> None:
    """Components that are deselected are in the document, with the reason; what does not exist has one of its own."""
    document = program("backup", "all", "--only", "lfs,pages,ci_catalog_bundles", "--skip", "pages", "--json").document
    reasons = {each["id"]: each["reason"] for each in document["components"]}
    assert reasons.pop("lfs") is None
    assert "not selected" not in reasons.pop("ci_catalog_bundles")
    assert {"not selected"} == set(reasons.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "lfs,nonsense"), "unknown component: nonsense"),
        (("--skip", "nonsense"), "unknown component: nonsense"),
        (("--compression", "rar"), "rar"),
        (("--compression-level", "99"), "99"),
        (("--jobs", "0"), "0 jobs"),
    ],
)
def test_usage(reader: Program, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """What does not exist has status 2, and the hint says what does; also as a document. Nothing is written."""
    store = tmp_path / "backups"
    result = reader("backup", "all", "--backup-path", store, "--json", *arguments)
    assert result.status == 2
    assert message in result.err
    assert "\nhint: " in result.err
    document = result.document
    assert list(document) == ["backup_id", "path", "status", "components", "error"]
    assert list(document.values())[:4] == [None, None, "failed", []]
    assert document["error"]["exit_status"] == 2
    assert not store.exists()


def test_unknown_component_names_the_known_ones(reader: Program) -> None:
    """Whoever mistypes an id is told all that there are."""
    hint = reader("backup", "all", "--only", "nonsense").err.splitlines()[-1]
    assert not [component.id for component in COMPONENTS if component.id not in hint]


def test_options_that_repeat(reader: Program, tmp_path: Path) -> None:
    """Components are chosen by options that repeat, by lists, and by both together; blanks in a list do no harm."""
    only = ("--only", "lfs", "--only", "pages, uploads,packages", "--skip", "pages", "--skip", "packages,")
    document = reader("backup", "all", "--backup-path", tmp_path, "--dry-run", "--json", *only).document
    planned = {component for component, status in statuses(document).items() if status == "planned"}
    assert {"lfs", "uploads"} == planned


def test_dry_run(reader: Program, tmp_path: Path) -> None:
    """A dry run says what would be done with each component, and changes nothing."""
    store = tmp_path / "backups"
    result = reader("backup", "all", "--dry-run", "--skip", "db", "--backup-path", store)
    assert (result.status, result.err) == (0, "")
    assert str(store) in result.out
    result = reader("backup", "all", "--dry-run", "--skip", "db", "--backup-path", store, "--json")
    assert result.status == 0
    assert (None, str(store), "planned") == tuple(result.document[key] for key in ("backup_id", "path", "status"))
    found = statuses(result.document)
    assert (found["db"], found["uploads"], found["ci_catalog_bundles"]) == ("skipped", "planned", "skipped")
    assert not store.exists()


def test_failure(installation: ThrowawayInstallation, program: Program, store: BackupStore) -> None:
    """A component that fails fails the backup: status 1, the program's own words, nothing published."""
    result = failing_pg_dump(installation, program)("backup", "all", "--only", "db,lfs", "--json")
    assert result.status == 1
    assert "out of luck" in result.err
    document = result.document
    assert [document[key] for key in ("backup_id", "path", "status")] == [None, None, "failed"]
    assert statuses(document)["db"] == "failed"
    assert "out of luck" in document["error"]["message"]
    assert nothing_left(store)


def test_keep_going(installation: ThrowawayInstallation, program: Program, store: BackupStore) -> None:
    """With `--keep-going` the rest is published: status 3, and the failure is in the document and on screen."""
    result = failing_pg_dump(installation, program)("backup", "all", "--only", "db,lfs", "--keep-going", "--json")
    assert (result.status, result.document["status"]) == (3, "complete_with_warnings")
    assert {"db": "failed", "lfs": "complete"}.items() <= statuses(result.document).items()
    assert "db: failed: " in result.err
    assert (result.document["backup_id"],) == store.ids()


def test_damage(program: Program, store: BackupStore) -> None:
    """A changed byte is found, and named with its file: status 4."""
    backup_id = program("backup", "all", "--only", "lfs,uploads", "--json").document["backup_id"]
    archive = store.path / backup_id / "lfs.tar.gz"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    result = program("verify", backup_id)
    assert result.status == 4
    assert "\nlfs.tar.gz: " in result.out
    assert f"error: 1 backup damaged: {backup_id}\n" in result.err


def test_locked(program: Program, store: BackupStore) -> None:
    """While another operation works in the backup path there is no second one: status 6, naming its process."""
    with store.lock("restore"):
        result = program("backup", "all", "--only", "lfs")
        assert result.status == 6
        assert f"restore (pid {os.getpid()}" in result.err
    assert nothing_left(store)


def test_broken_configuration(installation: ThrowawayInstallation, program: Program, tmp_path: Path) -> None:
    """A configuration that cannot be used has status 7, and names the file, wherever the option stands."""
    broken = tmp_path / "gitlab.yml"
    broken.write_text("production: [")
    for arguments in (("backup", "all", "--gitlab-config", broken), ("--gitlab-config", broken, "backup", "all")):
        result = program(*arguments)
        assert (result.status, result.out) == (7, "")
        assert str(broken) in result.err
    assert nothing_left(BackupStore(installation.backup_path))


def test_backup_path_inside_of_what_is_backed_up(installation: ThrowawayInstallation, program: Program) -> None:
    """A backup that would swallow itself is refused: status 8."""
    inside = installation.directories["uploads"] / "backups"
    result = program("backup", "all", "--backup-path", inside)
    assert (result.status, result.out) == (8, "")
    assert str(inside) in result.err
    assert not inside.exists()


def test_defect(installation: ThrowawayInstallation, program: Program) -> None:
    """An error that nobody foresaw has status 1 and never looks like a backup; its traceback is printed on request."""
    site = installation.directory / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import gitlab_backup.instance.model as m\n"
        "def discover(**_): raise ZeroDivisionError('a\\x1b defect')\n"
        "m.Instance.discover = discover\n"
    )
    root = str(Path(__file__).parents[2])
    broken = program.having(PYTHONPATH=f"{site}{os.pathsep}{root}")
    result = broken("backup", "all")
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("error: internal error: ZeroDivisionError: a\\x1b defect\nhint: ")
    assert "Traceback" in broken("--debug", "backup", "all").err
    assert "Traceback" in broken.having(GITLAB_BACKUP_DEBUG="1")("backup", "all").err


def test_config_show(installation: ThrowawayInstallation, program: Program) -> None:
    """What was found is printed with its place, and no password is."""
    result = program("config", "show")
    assert (result.status, result.err) == (0, "")
    document = program("config", "show", "--json").document
    assert str(installation.backup_path) == document["backup_path"]
    assert list(installation.databases.values()) == [each["dbname"] for each in document["databases"]]
    assert {name: str(path) for name, path in installation.storages.items()} == {
        each["name"]: each["path"] for each in document["storages"]
    }
    found = {each["component"]: (each["path"], each["left_out"]) for each in document["directories"]}
    assert (str(installation.directories["uploads"]), None) == found["uploads"]
    assert found["ci_catalog_bundles"][1] is not None
    assert all(each["source"] for each in document["settings"])
    for text in (result.out, json.dumps(document)):
        assert str(installation.gitlab_config) in text
        assert "throwaway" not in text.replace(str(installation.directory), "")


def test_reader_of_progress_that_goes_away(program: Program, store: BackupStore) -> None:
    """That nobody reads the lines any more does not end a backup, and its status stays the truth."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stream:
        process = program.start("backup", "all", "--only", "lfs", stdout=stream)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert len(store.ids()) == 1


def test_standard_programs_read_it(program: Program, store: BackupStore) -> None:
    """What the command made is checked by `sha256sum`, without this tool."""
    backup_id = program("backup", "all", "--only", "uploads", "--compression", "none", "--json").document["backup_id"]
    subprocess.run(["/usr/bin/sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=store.path / backup_id, check=True)
