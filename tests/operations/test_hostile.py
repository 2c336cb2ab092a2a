"""A hostile backup is refused, by restore and by verify, and changes nothing: whatever is in its files."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zstandard
from attrs import evolve

from gitlab_backup import Backup
from gitlab_backup.errors import DamagedError
from tests.operations.hostile import (
    Case,
    after_rows,
    among_rows,
    archive,
    dump,
    entry,
    leftovers,
    plain,
    refused,
    state_of,
    tar,
    text,
)
from tests.support import compare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import ThrowawayInstallation

COMPONENTS = ("db", "repositories", "uploads")
MARK = "made-by-a-backup"
"""What a backup tries to make, relative to PostgreSQL's data directory, the current directory, or the restored one."""


@pytest.fixture(scope="module")
def target(template_installation: ThrowawayInstallation) -> Iterator[ThrowawayInstallation]:
    """An installation that nothing here may change: whatever was tried, it is the same in the end."""
    copy = template_installation.copy(template_installation.cluster.directory / f"hostile-{os.getpid()}")
    before = compare.snapshot(copy, excluded=True)
    yield copy
    after = compare.snapshot(copy, excluded=True)
    left = leftovers(copy)
    copy.remove()
    assert [] == compare.differences(before, after)
    assert [] == left


@pytest.fixture(scope="module")
def made(target: ThrowawayInstallation, tmp_path_factory: pytest.TempPathFactory) -> Backup:
    """A good backup, not to be changed."""
    return Backup(shutil.move(Backup.create(target.instance(), only=COMPONENTS).path, tmp_path_factory.mktemp("made")))


@pytest.fixture
def backup(made: Backup, tmp_path: Path) -> Backup:
    """A good backup of this test's own."""
    return Backup(shutil.copytree(made.path, tmp_path / made.id))


def _check(backup: Backup, target: ThrowawayInstallation, case: Case, component: str) -> None:
    """Make a backup hostile; verify and both ways of restore must say where, and do nothing."""
    case.change(backup.path)
    before = state_of(target, component)
    found = [damage for damage in backup.verify().damages if case.place in damage.problem]
    assert (not case.silent) == any(case.file in damage.file for damage in found), found
    said = [
        refused(backup, lambda: backup.restore(target.instance(), only=[component])),
        refused(backup, lambda: backup.restore(target.instance(), only=[component], verify=False)),
    ]
    assert [True, True] == [case.file in words and case.place in words for words in said], said
    assert before == state_of(target, component)
    assert [] == leftovers(target)
    near = [top.glob(MARK) for top in (Path.cwd(), Path("/tmp"), target.cluster.data_directory)]  # noqa: S108
    below = [top.rglob(MARK) for top in (target.directory, backup.path.parent)]
    assert [] == [path for paths in (*near, *below) for path in paths]


def _zeros(path: Path) -> None:
    plain(path)
    (path / "uploads.tar.gz").write_bytes(gzip.compress(bytes(10240)))


FILES = (
    archive("absolute", "at byte 512", entry(f"/tmp/{MARK}".encode())),  # noqa: S108 - it must not be made
    archive("upwards", "leads upwards", entry(f"a/../../{MARK}".encode())),
    archive(
        "through a link",
        "path leads through",
        entry(b"out", b"2", link=b"../.."),
        entry(f"out/{MARK}".encode()),
    ),
    archive("hard link out", "hard link leads upwards", entry(b"in", b"1", link=b"../../../config/database.yml")),
    archive(
        "hard link through a link",
        "path leads through",
        entry(b"out", b"2", link=b"/etc"),
        entry(b"in", b"1", link=b"out/passwd"),
    ),
    archive("device", "device node", entry(b"disk", b"4", device=(8, 0))),
    archive("setuid", "setuid", entry(b"program", mode=0o4755)),
    archive("setgid", "setgid", entry(b"program", mode=0o2755)),
    archive("nobody's", "no user's number", entry(b"file", uid=2**32 - 1)),
    Case("nothing but zeros", "uploads.tar.gz", "has no members", _zeros),
    archive("long", "longer than 255 bytes", entry(b"x" * 300)),
)


@pytest.mark.parametrize("case", FILES, ids=str)
def test_archives(backup: Backup, target: ThrowawayInstallation, case: Case) -> None:
    """What leads out of the directory, or would give somebody rights, is named with its member and byte."""
    _check(backup, target, case, "uploads")


DUMPS = (
    dump("shell", "a command to psql at line", after_rows(f"\\! touch {MARK}")),
    dump("include", "a command to psql at line", after_rows("\\i /etc/passwd")),
    dump("output", "a command to psql at line", after_rows(f"\\o {MARK}", "SELECT 1;")),
    dump("copy", "a command to psql at line", after_rows(f"\\copy users to program 'touch {MARK}'")),
    dump("within", "a command to psql at line", after_rows(f"SELECT 1 \\! touch {MARK}", ";")),
    dump("from a program", "a COPY of something else", after_rows(f"COPY public.users FROM PROGRAM 'touch {MARK}';")),
    dump("to a program", "a COPY of something else", after_rows(f"COPY (SELECT 1) TO PROGRAM 'touch {MARK}';")),
    dump(
        "like rows",
        "a COPY of something else",
        after_rows(
            "CREATE TABLE public.x (stdin int);",
            f"COPY public.x FROM PROGRAM 'touch {MARK}' WHERE stdin IS DISTINCT FROM stdin;",
        ),
    ),
    dump("a block", "a statement that no dump has", after_rows("DO $$ BEGIN NULL; END $$;")),
    dump("of the server", "a statement that no dump has", after_rows("ALTER SYSTEM SET fsync = off;")),
    dump("roll back", "a transaction of its own", after_rows("ROLLBACK;")),
    dump("a zero byte", "zero byte", lambda sql: sql.replace(b"CREATE TABLE", b"CREATE\0TABLE", 1)),
    dump("no dump", "is not a plain dump of pg_dump", lambda _: b"SELECT 1;\n"),
    dump("cut", "cut short", lambda sql: sql[: len(sql) // 2]),
    dump(
        "cut among rows", "among the rows of", lambda sql: sql[: sql.index(b"\n\\.\n", sql.index(b"COPY public.pro"))]
    ),
    dump("shell among rows", "COPY public.projects", among_rows(f"\\! touch {MARK}"), silent=True),
    dump("copy among rows", "COPY public.projects", among_rows("COPY x FROM PROGRAM 'id';"), silent=True),
    dump("an error", "SELECT nothing_of_that", after_rows("SELECT nothing_of_that;"), silent=True),
)


@pytest.mark.parametrize("case", DUMPS, ids=str)
def test_dumps(backup: Backup, target: ThrowawayInstallation, case: Case) -> None:
    """What pg_dump does not write is not run, and named with line and byte; what is among rows is a row."""
    _check(backup, target, case, "db")


@pytest.mark.parametrize(
    "case", [case for case in DUMPS if "program" in case.name or case.name == "like rows"], ids=str
)
def test_a_superuser_runs_no_programs(backup: Backup, target: ThrowawayInstallation, case: Case) -> None:
    """The server would run them for a superuser; such a role is warned of in the plan."""
    instance = target.instance()
    user = target.cluster.superuser
    instance = evolve(instance, databases=tuple(evolve(each, user=user) for each in instance.databases))
    notes = backup.restore(instance, only=["db"], dry_run=True).proposal.plans["db"].notes
    assert any("superuser" in note for note in notes)
    case.change(backup.path)
    said = refused(backup, lambda: backup.restore(instance, only=["db"], verify=False))
    assert case.place in said
    assert not (target.cluster.data_directory / MARK).exists()
    assert [] == leftovers(target)


LATEST = "repositories/manifests/default/@hashed/*/*/*.git/+latest.toml"
STEP = "repositories/manifests/default/@hashed/*/*/*.git/1*.toml"


def _in_both(path: Path, old: str, new: str) -> None:
    """Change a manifest of a repository and its copy."""
    plain(path)
    directory = next(file.parent for file in sorted(path.glob(LATEST)) if old in file.read_text())
    for file in directory.iterdir():
        file.write_text(file.read_text().replace(old, new))


def _replace_in(path: Path, pattern: str, old: bytes, new: bytes) -> None:
    plain(path)
    file = next(file for file in sorted(path.glob(pattern)) if old in file.read_bytes())
    file.write_bytes(file.read_bytes().replace(old, new, 1))


def _hooks(path: Path) -> None:
    plain(path)
    file = min(path.glob("repositories/**/001.custom_hooks.tar"))
    file.write_bytes(tar([entry(b"custom_hooks", b"5"), entry(f"custom_hooks/../../{MARK}".encode())]))


REPOSITORIES = (
    Case("bundle outside", ".toml", "'../../", lambda p: _in_both(p, "bundle_path = '", "bundle_path = '../../")),
    Case("refs outside", ".toml", "'/etc/default", lambda p: _in_both(p, "ref_path = '", "ref_path = '/etc/")),
    Case("odd format", ".toml", "object format", lambda p: _in_both(p, "'sha1'", "'--upload-pack=touch'")),
    Case("odd ref", ".bundle", "no valid name", lambda p: _replace_in(p, "**/*.bundle", b"/main\n", b"/../n\n")),
    Case("odd list", ".refs", "no valid name", lambda p: _replace_in(p, "**/*.refs", b"/main\n", b"/-/.lock\n")),
    Case(
        "option",
        ".bundle",
        "no valid name",
        lambda p: _replace_in(p, "**/*.bundle", b"refs/heads/main", b"--upload-pack=x"),
    ),
    Case("hooks outside", "custom_hooks.tar", "upwards", _hooks),
)


@pytest.mark.parametrize("case", REPOSITORIES, ids=str)
def test_repositories(backup: Backup, target: ThrowawayInstallation, case: Case) -> None:
    """Paths that leave the backup, names that no ref has, and hooks that leave the repository are named."""
    _check(backup, target, case, "repositories")


def _linked(name: str) -> Case:
    def change(path: Path) -> None:
        shutil.move(path / name, path.parent / "elsewhere")
        (path / name).symlink_to(path.parent / "elsewhere")

    return Case(f"{name} is a link", name, "neither a file nor a directory", change)


def _manifest(name: str, place: str, **changes: object) -> Case:
    def change(content: str) -> str:
        return json.dumps(json.loads(content) | changes)

    return text(name, "manifest.json", place, change)


INFORMATION = "backup_information.json"
DOCUMENTS = (
    _linked("uploads.tar.gz"),
    _linked("repositories"),
    _linked("db"),
    _linked(INFORMATION),
    _linked("manifest.json"),
    text("an id outside", INFORMATION, "backup_id", lambda s: s.replace('"backup_id": "', '"backup_id": "../')),
    text("another id", INFORMATION, "backup id", lambda s: s.replace('"backup_id": "1', '"backup_id": "2')),
    text("nested", INFORMATION, "", lambda _: "[" * 100_000),
    text("later", INFORMATION, "metadata_version", lambda s: s.replace('_version": 2', '_version": 3')),
    _manifest("another backup", "backup_id", backup_id="1714053314_2024_04_25_17.0.0-pre"),
    _manifest("no list", "components", components={"id": "db"}),
    text("twice", "manifest.json", "'db' appears more than once", lambda s: s.replace('"id": "uploads"', '"id": "db"')),
    text("sums outside", "SHA256SUMS", "'../uploads", lambda s: s.replace("  uploads", "  ../uploads")),
    text("sums absolute", "SHA256SUMS", "is absolute", lambda s: s.replace("  uploads", "  /etc/uploads")),
    text("no sums", "SHA256SUMS", "line 1", lambda s: "-" * 64 + s[64:]),
)


@pytest.mark.parametrize("case", DOCUMENTS, ids=str)
def test_documents(backup: Backup, target: ThrowawayInstallation, case: Case) -> None:
    """Links in the directory, and documents that lie, lead nowhere: they are damage, with or without verification."""
    _check(backup, target, case, "uploads")


def _details(path: Path, component: str, **changes: object) -> None:
    document = json.loads((path / "manifest.json").read_text())
    record = next(each for each in document["components"] if each["id"] == component)
    record["details"] |= changes
    (path / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("uploads", {"members": 1, "data_bytes": 0}),
        ("uploads", {"members": -1, "data_bytes": -1}),
        ("uploads", {"members": 1 << 60, "data_bytes": 1 << 60}),
        ("db", {"databases": {"main": {"file": "../../x", "rows": {"public.users": 10**9}}}}),
        ("db", {"databases": {"main": {"size_bytes": 1 << 60}}}),
    ],
)
def test_details_that_lie(
    backup: Backup, target: ThrowawayInstallation, component: str, changes: dict[str, object]
) -> None:
    """A manifest that does not fit its files, or asks for more space than there is, ends before anything changes."""
    _details(backup.path, component, **changes)
    (backup.path / "SHA256SUMS").unlink()
    before = state_of(target, component)
    refused(backup, lambda: backup.restore(target.instance(), only=[component]))
    refused(backup, lambda: backup.restore(target.instance(), only=[component], verify=False))
    assert before == state_of(target, component)
    assert [] == leftovers(target)


def _zstd(window: int, blocks: int) -> bytes:
    """Return a frame (RFC 8878, 3.1.1) of so many blocks of 128 KiB of zeros, four bytes each."""
    run, last = (struct.pack("<I", (128 << 10) << 3 | 1 << 1 | end)[:3] + b"\0" for end in (0, 1))
    return struct.pack("<IBB", 0xFD2FB528, 0, (window - 10) << 3) + run * (blocks - 1) + last


GIB_OF_ZEROS = gzip.compress(bytes(8 << 20), 1) * 192  # 1.5 GiB, in members one after the other
MEMBER = tar([entry(b"zeros", size=3 << 30)])[:1024]
_VERIFY = """
import sys
from gitlab_backup import Backup
for damage in Backup(sys.argv[1]).verify().damages:
    print(damage.file, damage.problem)
# Of this program alone: what `getrusage` tells has begun as a copy of whoever started it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("uploads.tar.gz", gzip.compress(MEMBER, 1) + GIB_OF_ZEROS, "it ends too early"),
        ("uploads.tar.zst", zstandard.compress(MEMBER) + _zstd(17, 12_288), "it ends too early"),
        ("uploads.tar.zst", _zstd(31, 12_288), "memory"),
        ("db/database.sql.gz", gzip.compress(b"--\n-- PostgreSQL database dump\n--\n", 1) + GIB_OF_ZEROS, "zero byte"),
        (
            "db/database.sql.gz",
            gzip.compress(b"--\n-- PostgreSQL database dump\n--\n" + b"x" * (80 << 20), 1),
            "too long",
        ),
    ],
    ids=["gzip", "zstd", "window", "dump", "statement"],
)
@pytest.mark.slow
def test_bombs_need_little_memory(
    backup: Backup, target: ThrowawayInstallation, file: str, content: bytes, problem: str
) -> None:
    """Gigabytes out of a few kilobytes are refused, with flat memory."""
    plain(backup.path)
    for old in backup.path.glob(f"{file.partition('.')[0]}.*"):
        old.unlink()
    (backup.path / file).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", _VERIFY, backup.path],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    *damages, kibibytes = done.stdout.splitlines()
    assert any(line.startswith(file) and problem in line for line in damages), damages
    assert int(kibibytes) < 400 << 10
    component = file.partition("/")[0].partition(".")[0]
    with pytest.raises(DamagedError):
        backup.restore(target.instance(), only=[component])
    refused(backup, lambda: backup.restore(target.instance(), only=[component], verify=False))
    assert [] == leftovers(target)


def test_members_one_after_the_other_are_one(backup: Backup, installation: ThrowawayInstallation) -> None:
    """`cat a.gz b.gz` is read whole: what is hostile in the second is found, and what is not is restored."""
    plain(backup.path)
    file = backup.path / "uploads.tar.gz"
    whole = gzip.decompress(file.read_bytes())
    half = len(whole) // 2 // 512 * 512
    file.write_bytes(gzip.compress(whole[:half]) + gzip.compress(whole[half:]))
    uploads = installation.directories["uploads"]
    before = compare.tree(uploads, leave_out="tmp")
    assert () == backup.verify().damages
    backup.restore(installation.instance(), only=["uploads"])
    assert before == compare.tree(uploads, leave_out="tmp")
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    second = tar([entry(b"../out")])
    file.write_bytes(gzip.compress(whole[:end]) + gzip.compress(second))
    assert any("leads upwards" in damage.problem for damage in backup.verify().damages)
    with pytest.raises(DamagedError, match="leads upwards"):
        backup.restore(installation.instance(), only=["uploads"])
