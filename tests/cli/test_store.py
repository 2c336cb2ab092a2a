"""`list`, `show` and `verify` of backups that are just there: no installation is needed for them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup.backup_id import BackupId
from gitlab_backup.metadata import Metadata

if TYPE_CHECKING:
    from pathlib import Path

    from .program import Program

OLD = "1714053314_2024_04_25_17.0.0-pre"
NEW = "1714139714_2024_04_26_17.0.0-pre"
BROKEN = "1714226114_2024_04_27_17.0.0-pre"


def reference_backup(store: Path, backup_id: str) -> Path:
    """Make a backup as GitLab's own tool does, with standard programs: it has no manifest and no digests."""
    path = store / backup_id
    (path / "db").mkdir(parents=True)
    parsed = BackupId.parse(backup_id)
    metadata = Metadata(backup_id=backup_id, created_at=parsed.created_at, gitlab_version=parsed.gitlab_version)
    (path / "backup_information.json").write_bytes(metadata.to_json())
    (store / "hello.txt").write_text("hello\n")
    subprocess.run(["/bin/tar", "-czf", path / "uploads.tar.gz", "-C", store, "./hello.txt"], check=True)
    (store / "hello.txt").unlink()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A backup path with two backups of GitLab's own tool, and one whose metadata is broken."""
    path = tmp_path / "backups"
    for backup_id in (NEW, OLD, BROKEN):
        reference_backup(path, backup_id)
    (path / BROKEN / "backup_information.json").write_text("{")
    return path


def test_list_json(bare: Program, store: Path) -> None:
    """All backups are listed, the newest last; of one that is damaged, no more than its name, place and size."""
    bare("pin", NEW, "--backup-path", store)
    result = bare("list", "--json", "--backup-path", store)
    assert (result.status, result.err) == (0, "")
    expected: list[dict[str, object]] = [
        {
            "backup_id": OLD,
            "created_at": "2024-04-25T13:55:14Z",
            "gitlab_version": "17.0.0-pre",
            "status": "unverified",
        },
        {
            "backup_id": NEW,
            "created_at": "2024-04-26T13:55:14Z",
            "gitlab_version": "17.0.0-pre",
            "status": "unverified",
        },
        {"backup_id": BROKEN, "created_at": None, "gitlab_version": None, "status": "damaged"},
    ]
    for entry in expected:
        path = store / str(entry["backup_id"])
        entry["path"] = str(path)
        entry["size_bytes"] = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        entry["partial"] = None
        entry["has_secrets"] = False
        entry["pinned"] = entry["backup_id"] == NEW
    assert expected == result.document


def test_list_fits_a_screen(bare: Program, store: Path) -> None:
    """The list has a line for each backup, which ends with its id and is no wider than a screen."""
    lines = bare("--backup-path", store, "list").out.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == [OLD, NEW, BROKEN]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("exists", [True, False])
def test_list_of_nothing(bare: Program, tmp_path: Path, *, exists: bool) -> None:
    """A backup path without backups, or that does not exist yet, has an empty list; that is no error."""
    path = tmp_path / "nothing"
    if exists:
        path.mkdir()
    result = bare("list", "--json", "--backup-path", path)
    assert (result.status, result.document) == (0, [])
    result = bare("list", "--backup-path", path)
    assert (0, "", f"There is no backup in {path}\n") == (result.status, result.out, result.err)
    assert exists == path.exists()


def test_option_behind_the_command_wins(bare: Program, store: Path, tmp_path: Path) -> None:
    """An option of the installation can be given before and behind the command, and the one behind wins."""
    result = bare("--backup-path", tmp_path / "nothing", "list", "--json", "--backup-path", store)
    assert len(result.document) == 3


def test_relative_backup_path(bare: Program, store: Path) -> None:
    """A relative path is one in the working directory; what is printed is absolute."""
    result = evolve(bare, cwd=store.parent)("list", "--json", "--backup-path", store.name)
    assert str(store / OLD) == result.document[0]["path"]


def test_show(bare: Program, store: Path) -> None:
    """`latest` is the newest backup with readable metadata, and what is shown says which that is."""
    result = bare("show", "latest", "--backup-path", store)
    assert result.status == 0
    assert NEW in result.out.splitlines()[0]
    assert "unverified" in result.out
    document = bare("show", NEW, "--json", "--backup-path", store).document
    assert [document[key] for key in ("backup_id", "status", "compression")] == [NEW, "unverified", None]
    assert [component["id"] for component in document["components"]] == ["uploads"]


def test_show_broken_metadata(bare: Program, store: Path) -> None:
    """Metadata that cannot be understood is an error that names the file: status 1."""
    result = bare("show", BROKEN, "--backup-path", store)
    assert (result.status, result.out) == (1, "")
    assert str(store / BROKEN / "backup_information.json") in result.err


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize("backup_id", ["1714053315_2024_04_25_17.0.0-pre", "../etc", ""])
def test_no_such_backup(bare: Program, store: Path, command: str, backup_id: str) -> None:
    """A backup that is not there has status 5, and the hint names one that is."""
    result = bare(command, backup_id, "--backup-path", store)
    assert (result.status, result.out) == (5, "")
    assert BROKEN in result.err


def test_verify_without_digests(bare: Program, store: Path) -> None:
    """A backup of GitLab's own tool is verified by its structure, and the command says that that is all."""
    result = bare("verify", OLD, "--backup-path", store)
    assert (result.status, result.err) == (0, "")
    assert f"backup {OLD}: intact" in result.out
    assert "no digests to compare, structure checked" in result.out


def test_verify_quiet(bare: Program, store: Path) -> None:
    """With `--quiet`, a backup that is intact is not spoken of."""
    result = bare("verify", OLD, "--quiet", "--backup-path", store)
    assert (result.status, result.out, result.err) == (0, "", "")


def test_verify_all(bare: Program, store: Path) -> None:
    """One damaged backup among several has status 4; the document tells which, and what is wrong with it."""
    archive = store / NEW / "uploads.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-9])
    result = bare("verify", "--all", "--json", "--backup-path", store)
    assert result.status == 4
    assert [(entry["backup_id"], entry["status"]) for entry in result.document] == [
        (OLD, "intact"),
        (NEW, "damaged"),
        (BROKEN, "damaged"),
    ]
    assert {"uploads.tar.gz"} == {damage["file"] for damage in result.document[1]["damages"]}
    assert f"error: 2 backups damaged: {NEW}, {BROKEN}\n" in result.err


def test_verify_quiet_names_damage(bare: Program, store: Path) -> None:
    """With `--quiet`, damage is still an error that is named: backup, file and problem, on standard error."""
    result = bare("verify", BROKEN, "--quiet", "--backup-path", store)
    assert (result.status, result.out) == (4, "")
    assert result.err.startswith(f"{BROKEN}/backup_information.json: ")


def test_verify_all_of_nothing(bare: Program, tmp_path: Path) -> None:
    """To have verified nothing is no success: status 5."""
    assert bare("verify", "--all", "--backup-path", tmp_path).status == 5


def test_backup_path_that_is_a_file(bare: Program, tmp_path: Path) -> None:
    """A backup path that is no directory is an error that names it: status 1."""
    file = tmp_path / "file"
    file.touch()
    result = bare("list", "--backup-path", file)
    assert (result.status, result.out) == (1, "")
    assert str(file) in result.err


def test_file_names_do_not_move_the_cursor(bare: Program, store: Path) -> None:
    """The name of an alien file is printed escaped, whatever it holds and whatever the encoding."""
    (store / OLD / "repositories").mkdir()
    (store / OLD / "repositories" / "\x1b[2J\udcff").symlink_to("/")
    result = bare.having(PYTHONIOENCODING="ascii")("verify", OLD, "--backup-path", store)
    assert result.status == 4
    assert r"repositories/\x1b[2J\udcff: " in result.out
    assert "\x1b" not in result.out + result.err
