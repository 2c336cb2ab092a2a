"""Repositories that Gitaly owns, on their way into a backup, by a double that enforces gitaly-backup's contract."""

# ruff: noqa: S608 - the values in the SQL are of our own making

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attrs import evolve

from gitlab_backup import Backup
from gitlab_backup.archivers.base import RepositoryOptions, VerifyJob
from gitlab_backup.archivers.gitaly import GitalyArchiver
from gitlab_backup.archivers.gitaly.exchange import Exchange, Request
from gitlab_backup.archivers.gitaly.log import LONGEST, Failures, Log, Report
from gitlab_backup.archivers.gitaly.program import GitalyBackup
from gitlab_backup.archivers.registry import archiver_for
from gitlab_backup.errors import BackupFailedError, CancelledError, ComponentError, ConfigurationError, UsageError
from gitlab_backup.streams.cancel import Cancellation
from gitlab_backup.streams.process import Program
from tests.archivers.git_run import COMPONENT, ID, SCHEMA, Stored, refs_of, restored_refs, stored
from tests.archivers.gitaly_run import TOKEN, GitalyBench
from tests.support.repositories import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gitlab_backup.archivers.base import JSON, Archiver
    from tests.support.postgres import Cluster

VERSIONS = ("16.10.0", "17.0.1", "17.6.0", "18.3.0", "19.0.0")


@pytest.fixture
def bench(cluster: Cluster, database: str, tmp_path: Path) -> GitalyBench:
    made = GitalyBench(cluster, database, tmp_path)
    made.sql(SCHEMA)
    made.storage()
    return made


def _modes(root: Path) -> set[tuple[str, int]]:
    return {("d" if path.is_dir() else "f", path.stat().st_mode & 0o777) for path in root.rglob("*")}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version(bench: GitalyBench, version: str) -> None:
    """Arguments, environment and stdin are what each version takes; the layout is the described one, field by field."""
    bench.version = version
    paths = [bench.shaped(1, Shape.ORDINARY), bench.shaped(2, Shape.SHA256), bench.shaped(3, Shape.LOOSE)]
    empty, missing = bench.shaped(4, Shape.EMPTY), bench.project(5)
    details = bench.back_up()
    (run,) = bench.runs
    expected = ["create", "-path", str(bench.root / "repositories"), "-id", ID]
    assert [*expected, "-parallel", "2", "-parallel-storage", "2"] == run["arguments"]
    assert run["ssl"]["SSL_CERT_DIR"] == "/of/the/caller"
    modern = version not in {"16.10.0", "17.0.1"}
    # Every project is listed with a wiki and designs, and none of these has them.
    assert details == {
        "repositories": 15 if modern else 4,
        "missing": 11,
        "failed": [],
        "gitaly_backup_version": version,
        "id": ID,
        "server_side": False,
        "storages": {"default": 15},
    }
    for path, object_format in zip(paths, ("sha1", "sha256", "sha1"), strict=True):
        found = stored_any(bench, path)
        assert object_format == found.manifest["object_format"]
        assert "refs/heads/main" == found.manifest["head_reference"]
        assert found.bundle is not None
        assert refs_of(path) == restored_refs(found.bundle, bench.directory, object_format)
    assert stored_any(bench, empty).bundle is None
    manifest = bench.root / "repositories" / "manifests" / "default" / bench.relative(missing)
    assert modern == manifest.exists()
    assert {("d", 0o700), ("f", 0o600)} == _modes(bench.root)
    assert not bench.warnings
    assert [] == verify_with(GitalyArchiver(), bench, details)


def stored_any(bench: GitalyBench, path: Path) -> Stored:
    """Read a repository of the backup by the description of the format, without the sidecars of 17.0."""
    for sidecar in list((bench.root / "repositories").rglob("*.attrs")):
        assert bench.version.startswith("17.0")
        sidecar.unlink()
    return stored(bench.root, bench.relative(path))


def verify_with(archiver: Archiver, bench: GitalyBench, details: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """Return what an archiver finds wrong with the backup."""
    root = bench.root
    damages: list[tuple[str, str]] = []
    archiver.verify(
        VerifyJob(
            component=COMPONENT,
            root=root,
            backup_id=ID,
            details=details,
            jobs=2,
            cancel=Cancellation(),
            open_file=lambda name: (root / name).open("rb"),
            open_stream=lambda name: (root / name).open("rb"),
            damaged=lambda name, problem: damages.append((name, problem)),
            names=lambda below: sorted(str(p.relative_to(root)) for p in (root / below).rglob("*") if p.is_file()),
        )
    )
    return damages


@pytest.mark.parametrize("version", ["17.0.1", "18.11.0"])
def test_every_file_gets_its_digest(bench: GitalyBench, version: str) -> None:
    """The files that the program wrote are in SHA256SUMS, counted, and checked by sha256sum; the whole verifies."""
    bench.version = version
    bench.shaped(1, Shape.LOOSE)
    backup = bench.create()
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=backup.path, capture_output=True, check=False
    )
    assert 0 == done.returncode, done.stdout
    files = [path for path in backup.path.rglob("*") if path.is_file()]
    assert len(files) - 1 == len(done.stdout.splitlines())
    assert backup.manifest is not None
    record = next(record for record in backup.manifest.components if record.id == "repositories")
    assert "gitaly" == record.archiver
    assert record.bytes_written == sum(f.stat().st_size for f in files if "repositories" in f.parts)
    assert () == backup.verify().damages
    # A manifest that is gone is missed.
    next(backup.path.glob("repositories/manifests/default/**/+latest.toml")).unlink()
    assert backup.verify().damages


def test_failures_are_named(bench: GitalyBench) -> None:
    """One repository that fails fails the component, which names it and its cause; nothing is published."""
    bench.ordinary(1)
    path = bench.relative(bench.ordinary(2))
    bench.faults = {"at": {path: "fail"}, "leak": TOKEN}
    with pytest.raises(BackupFailedError) as caught:
        bench.create()
    assert path in str(caught.value)
    assert "Unavailable" in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert [] == [p.name for p in (bench.directory / "backups").iterdir() if not p.name.startswith(".gitlab")]


@pytest.mark.parametrize("fault", ["fail", "half", "silent", "no manifest"])
def test_keep_going_leaves_out_what_failed(bench: GitalyBench, fault: str) -> None:
    """What failed, or of which nothing was said, or that left no manifest, is warned of, and nothing of it stays."""
    good, bad = bench.ordinary(1), bench.relative(bench.ordinary(2))
    bench.faults = {"at": {bad: fault}}
    details = bench.back_up(keep_going=True)
    assert [bad in problem for problem in bench.warnings] == [True]
    assert details["failed"] == bench.warnings
    assert not (bench.root / "repositories" / "default" / bad).exists()
    assert not (bench.root / "repositories" / "manifests" / "default" / bad).exists()
    assert stored(bench.root, bench.relative(good)).bundle is not None
    names = {str(p.relative_to(bench.root)) for p in bench.root.rglob("*") if p.is_file()}
    assert names == set(bench.written)
    assert hashlib.sha256((bench.root / min(names)).read_bytes()).hexdigest() == bench.written[min(names)]


def test_all_failing_is_a_failure_even_so(bench: GitalyBench) -> None:
    """Where nothing at all was backed up, the component fails, whatever was asked for."""
    path = bench.ordinary(1)
    name = bench.relative(path).removesuffix(".git")
    bench.faults = {"at": {f"{name}{suffix}.git": "fail" for suffix in ("", ".wiki", ".design")}}
    with pytest.raises(ComponentError, match="3 repositories could not be backed up"):
        bench.back_up(keep_going=True)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"die": True}, "killed by signal 9"),
        ({"status": 1}, "status 1, and not because of any one repository: create: the end is near"),
        ({"status": 77}, "status 77"),
        ({"stop_reading_after": 1}, "said nothing|did not say|before it had read"),
    ],
)
def test_a_run_that_fails_as_a_whole(bench: GitalyBench, faults: dict[str, object], message: str) -> None:
    """A program that dies, or fails for no repository's sake, is an error, also with keep_going."""
    bench.ordinary(1)
    second = bench.relative(bench.ordinary(2))
    bench.faults = {"at": {second: "die"}} if "die" in faults else faults
    with pytest.raises(ComponentError, match=message):
        bench.back_up(keep_going="stop_reading_after" not in faults)


@pytest.mark.parametrize("fault", ["garbage", "flood"])
def test_noise_harms_nothing(bench: GitalyBench, fault: str) -> None:
    """Lines that are no JSON, of 10 MB, or thousands about nothing, between the lines that count."""
    path = bench.ordinary(1)
    bench.faults = {"at": {bench.relative(path): fault}}
    assert 3 == bench.back_up()["repositories"]


def test_cancelled(bench: GitalyBench) -> None:
    """A request ends the program; no process of it is left."""
    path = bench.ordinary(1)
    flag = bench.directory / "hanging"
    os.mkfifo(flag)
    bench.faults = {"at": {bench.relative(path): "hang"}, "flag": str(flag)}

    # Opening a pipe for reading waits for the writer: the program is in the middle of its work then.
    def watch() -> None:
        flag.open("rb").close()
        bench.cancel.request()

    watcher = threading.Thread(target=watch)
    watcher.start()
    with pytest.raises(CancelledError):
        bench.back_up()
    watcher.join()
    assert not Path(f"/proc/{bench.runs[0]['pid']}").exists()


def test_tokens_stay_secret(bench: GitalyBench) -> None:
    """Not in arguments (the double looks at its own, and fails), nor in any file of the backup, nor in a repr."""
    bench.ordinary(1)
    backup = bench.create()
    assert all(TOKEN not in run["cmdline"] for run in bench.runs)
    for path in backup.path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    program = GitalyBackup.of(bench.instance, cancel=Cancellation())
    assert TOKEN not in repr(program)
    assert TOKEN not in repr(program.create(backup_id=ID, directory=None, jobs=1))


def test_a_place_that_is_listed_twice(bench: GitalyBench) -> None:
    """The second row is a failure; what the first one wrote stays whole."""
    path = bench.ordinary(1)
    bench.sql("INSERT INTO projects (id) VALUES (2)")
    bench.sql(f"INSERT INTO project_repositories VALUES (1, '{bench.relative(path).removesuffix('.git')}', 2)")
    bench.back_up(keep_going=True)
    assert ["a second time" in warning for warning in bench.warnings] == [True, True, True]
    assert stored(bench.root, bench.relative(path)).bundle is not None


def test_storages_without_their_repositories_are_suspicious(bench: GitalyBench) -> None:
    """Where none of the projects' repositories is found, that is a warning: perhaps the wrong Gitaly."""
    bench.project(1)
    bench.back_up()
    assert ["none of the 1 project repositories" in warning for warning in bench.warnings] == [True]


def test_server_side(bench: GitalyBench) -> None:
    """Nothing is written here; the record says the id, and verification finds nothing to verify."""
    bench.ordinary(1)
    backup = bench.create(repositories=RepositoryOptions(server_side=True))
    (run,) = bench.runs
    assert ["create", "-server-side", "-id", backup.id] == run["arguments"][:4]
    assert not (backup.path / "repositories").exists()
    assert backup.manifest is not None
    record = next(record for record in backup.manifest.components if record.id == "repositories")
    assert (True, backup.id, 3) == tuple(record.details[key] for key in ("server_side", "id", "repositories"))
    assert () == Backup(backup.path).verify().damages


@pytest.mark.parametrize("version", ["15.9.0", "16.9.6", "nonsense"])
def test_versions_that_are_refused(bench: GitalyBench, version: str) -> None:
    """Before 16.10 the layout would have to be chosen; what tells no version is not gitaly-backup."""
    bench.version = version
    with pytest.raises(ComponentError, match=r"16\.10 or later|does not tell a version"):
        bench.back_up()
    assert [] == bench.runs


def test_the_choice_of_the_archiver(bench: GitalyBench) -> None:
    """gitaly where there are an address and the program; git otherwise; the option decides before that."""
    instance = bench.instance
    assert "gitaly" == archiver_for(COMPONENT, RepositoryOptions(), instance).name
    assert "gitaly" == archiver_for(COMPONENT, RepositoryOptions(), instance, recorded="git").name
    assert "git" == archiver_for(COMPONENT, RepositoryOptions(archiver="git"), instance).name
    without = evolve(instance, gitaly_backup=None, search_path="/nonexistent")
    assert "git" == archiver_for(COMPONENT, RepositoryOptions(), without, recorded="gitaly").name
    local = evolve(instance, storages=tuple(evolve(s, gitaly_address=None) for s in instance.storages))
    assert "git" == archiver_for(COMPONENT, RepositoryOptions(), local).name
    with pytest.raises(UsageError, match="files") as caught:
        archiver_for(COMPONENT, RepositoryOptions(archiver="files"), instance)
    assert caught.value.hint == "Known ones are gitaly and git."
    with pytest.raises(UsageError, match="server-side"):
        archiver_for(COMPONENT, RepositoryOptions(archiver="git", server_side=True), instance)


def test_storages_that_gitaly_cannot_be_asked_for(bench: GitalyBench) -> None:
    """No address, none that the program understands, or none of the storage at all: said before anything runs."""
    bench.ordinary(1)
    instance = bench.instance
    (storage,) = instance.storages
    for storages, error in (
        ((evolve(storage, gitaly_address=None),), ComponentError),
        ((evolve(storage, gitaly_address="http://x"),), ConfigurationError),
        ((evolve(storage, name="other"),), ComponentError),
    ):
        with pytest.raises(error, match=r"default|storage"):
            bench.back_up(instance=evolve(instance, storages=storages))
    assert [] == bench.runs


# The log alone


def _log() -> tuple[Log, list[Report]]:
    reports: list[Report] = []
    return Log("create", reports.append, lambda text: text.replace(TOKEN, "[token]")), reports


def test_lines_cut_anywhere() -> None:
    """A line is understood however it was cut, and with either name of the key."""
    lines = b"".join(
        b'{"%s":"create","msg":"completed create","storage_name":"s","relative_path":"p\\u00e9"}\n' % key
        for key in (b"command", b"command.name")
    )
    for size in (1, 7, 1000):
        log, reports = _log()
        for at in range(0, len(lines), size):
            log.write(lines[at : at + size])
        log.finish()
        assert [Report("s", "pé", "completed")] * 2 == reports


def test_lines_without_an_end_take_no_memory() -> None:
    """A line is kept up to a bound, and what follows it is understood again."""
    log, reports = _log()
    for _ in range(40):
        log.write(b"x" * (LONGEST // 10))
        assert len(log._line) <= LONGEST + LONGEST // 10
    log.write(b'\n{"command":"create","msg":"started create","storage_name":"s","relative_path":"p"}')
    log.finish()
    assert [Report("s", "p", "started")] == reports
    assert len(log.last_words) <= 500


def test_last_words_are_bounded_and_redacted() -> None:
    """Only the end is kept, and no token."""
    log, reports = _log()
    for number in range(1000):
        log.write(b'{"level":"error","msg":"%d: %s"}\n' % (number, TOKEN.encode()))
    assert not reports
    assert [f"{number}: [token]" for number in range(990, 1000)] == log.last_words.split("\n")


def test_many_failures_are_bounded() -> None:
    """The first ones by name, the others as a number."""
    failures = Failures()
    for number in range(5000):
        failures.add(f"{number:04}")
    assert 1001 == len(failures.lines())
    assert "… and 4000 more" == failures.lines()[-1]
    assert ["0000", "0001", "… and 4998 more"] == failures.lines(2)


def test_reports_about_strangers_are_passed_over() -> None:
    """What was not asked for, or was answered already, is not taken."""
    taken: list[Report] = []
    exchange = Exchange("create", iter(()), lambda _request, report: taken.append(report))
    request = Request(storage="s", relative_path="p", project_path="", always_create=False)
    exchange._open[("s", "p")] = request
    for report in (Report("s", "../q", "completed"), Report("s", "p", "completed"), Report("s", "p", "failed")):
        exchange._take(report)
    assert [Report("s", "p", "completed")] == taken


def test_a_program_that_stops_reading() -> None:
    """It has not done its work, whatever its status; and no more was taken from the list than a pipe holds."""
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for number in range(50_000):
            taken += 1
            yield Request(storage="s", relative_path=f"{number}.git", project_path="x" * 50, always_create=False)

    gitaly = GitalyBackup(path="sh", version=(17, 6, 0), environment={}, secrets=())
    program = Program(("/bin/sh", "-c", "read line"), {})
    with pytest.raises(ComponentError, match="before it had read which repositories there are"):
        Exchange("create", requests(), lambda _request, _report: None).run(gitaly, program, Cancellation())
    assert 0 < taken < 20_000
