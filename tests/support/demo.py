"""The tool at work: a throwaway GitLab is built, backed up, lost and restored; the backup is checked without it.

Run as `nox -s demo`. The checks use what every administrator has: sha256sum, gunzip, tar, psql and git. Two restores
that must fail come last, and change nothing.
"""

# ruff: noqa: T201  it is there to be read

from __future__ import annotations

import argparse
import gzip
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from gitlab_backup.store import LOCK_NAME

from . import compare, postgres
from .installation import DIRECTORIES, Size, ThrowawayInstallation, build
from .repositories import git

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def main() -> int:
    """Build, back up, check, lose, restore, compare, fail. Returns 1 where something is not what it should be."""
    parser = argparse.ArgumentParser(prog="nox -s demo --", description=__doc__, allow_abbrev=False)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="build in DIR, a new directory, and leave it there")
    keep: Path | None = parser.parse_args().keep
    with _directory(keep) as directory, postgres.cluster() as cluster:
        _say("1. Build a throwaway GitLab: two databases, Git repositories, file trees")
        installation = build(directory, cluster, size=Size.MEDIUM)
        before = compare.snapshot(installation)
        _describe(installation, before)

        _say("2. Back it up")
        backup = _back_up(installation)
        if backup is None:
            return 1
        print()
        _print_tree(backup)

        _say("3. Check the backup, with standard programs alone")
        report = _Report()
        with tempfile.TemporaryDirectory(prefix="gitlab-backup-demo-") as scratch:
            _check_standard(report, backup)
            _check_databases(report, backup, installation, before)
            _check_repositories(report, backup, installation, before, Path(scratch))
            _check_files(report, backup, before, Path(scratch))
        _check_unchanged(report, installation, before)

        _say("4. Lose everything: empty the databases, remove the repositories and the file trees")
        _wipe(installation)
        _describe(installation, compare.snapshot(installation))

        _say("5. Restore it")
        status = _command(installation, "restore", "all", "latest", "--yes")
        print()
        report.check("it succeeds", "exit status 0", [] if status == 0 else [f"exit status {status}, not 0"])

        _say("6. Compare it with what it was before the backup")
        _compare(report, before, compare.snapshot(installation))

        _say("7. Fail, and change nothing: GitLab has worked on since, and the backup turns out to be broken")
        _change(installation)
        _fail(report, installation, backup, "one byte of an archive is flipped", _flip_a_byte, status=4)
        _fail(report, installation, backup, "a dump ends with an SQL error, and no digest tells", _spoil, status=1)
        print()
        if report.failures:
            print(f"{report.failures} of {report.checks} checks FAILED.")
            return 1
        print(
            f"All {report.checks} checks passed. The backup holds everything; the restore has brought back everything;"
        )
        print("and the two restores that had to fail have left everything as it was.")
        if keep is not None:
            print(f"The installation and its backup are left in {directory}. Its PostgreSQL server is gone.")
        return 0


@define
class _Report:
    """Prints a line for each check, and counts."""

    checks: int = 0
    failures: int = 0
    started: float = field(factory=time.monotonic)

    def check(self, title: str, figures: str, problems: list[str]) -> None:
        """Print the result of one check: the `figures` of what was found right, or the first of the problems."""
        self.checks += 1
        self.failures += bool(problems)
        print(f"  FAILED  {title}" if problems else f"  ok      {title}: {figures}")
        for problem in problems[:10]:
            print(f"            {problem[:300]}")
        if len(problems) > 10:
            print(f"            … and {len(problems) - 10} more")


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="gitlab-backup-demo-") as name:
        Path(name).chmod(0o755)  # within reach of the system user that the installation belongs to
        yield Path(name) / "installation"


def _say(title: str) -> None:
    print(f"\n{title}\n", flush=True)


def _describe(installation: ThrowawayInstallation, state: compare.State) -> None:
    for name, database in state.databases.items():
        print(f"  database {name}: {len(database.tables)} tables, {database.rows} rows")
    repositories = _without_pools(state)
    pools = len(state.repositories) - len(repositories)
    print(
        f"  repositories: {len(repositories)} on {len(installation.storages)} storages,"
        f" and {pools} object pool, which no backup holds"
    )
    entries = [entry for tree in state.files.values() for entry in tree.values()]
    owners = f", of {len({entry.owner for entry in entries})} owners" if entries else ""
    print(f"  files: {len(entries)} entries in {len(state.files)} directories{owners}")


def _without_pools(state: compare.State) -> dict[str, compare.RepositoryState]:
    return {name: each for name, each in state.repositories.items() if "/@pools/" not in name}


def _back_up(installation: ThrowawayInstallation) -> Path | None:
    status = _command(installation, "backup", "all")
    found = sorted(path for path in installation.backup_path.glob("*") if not path.name.startswith("."))
    if status != 0 or len(found) != 1:
        print(f"  FAILED: expected status 0 and one backup, found {[path.name for path in found]}")
        return None
    return found[0]


def _command(installation: ThrowawayInstallation, *arguments: str) -> int:
    """Run the command as an administrator would, in sight. Returns its exit status."""
    command = ["gitlab-backup-cli", "--gitlab-path", str(installation.root), *arguments]
    print(f"  $ {shlex.join(command)}\n", flush=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{installation.environment()['PATH']}"
    environment = {**installation.environment(), "PATH": path}
    environment |= {name: os.environ[name] for name in ("TERM", "NO_COLOR", "COLUMNS") if name in os.environ}
    status = subprocess.run(["/usr/bin/env", *command], env=environment, check=False).returncode
    print(f"\n  exit status {status}")
    return status


def _wipe(installation: ThrowawayInstallation) -> None:
    """Lose everything but the configuration and the backups. Object pools stay: they are in no backup."""
    for name in installation.databases.values():
        installation.cluster.drop_database(name)
        installation.cluster.create_database(name, owner="gitlab")
    for directory in installation.directories.values():
        shutil.rmtree(os.fsencode(directory))  # as bytes: not all names in it are UTF-8
    for storage in installation.storages.values():
        for entry in storage.iterdir():
            if entry.name not in {"+gitaly", "@pools"}:
                shutil.rmtree(entry)


def _compare(report: _Report, before: compare.State, after: compare.State) -> None:
    """Check an installation against what it was: a line for each database, for the repositories, for each file tree."""
    whole = compare.differences(before, after)
    told: set[str] = set()

    def check(title: str, figures: str, prefix: str) -> None:
        problems = [line for line in whole if line.startswith(prefix)]
        told.update(problems)
        report.check(title, figures, problems)

    for name, state in after.databases.items():
        figures = f"{len(state.tables)} tables with {state.rows} rows, {len(state.sequences)} sequences"
        check(f"database {name}", f"the same {figures}, {len(state.schema)} lines of schema", f"database {name}: ")
    repositories = _without_pools(after).values()
    refs = sum(len(each.refs) for each in repositories)
    objects = sum(int(each.objects.split()[0]) for each in repositories)
    hooks = sum(len(each.hooks) for each in repositories)
    figures = f"the same {len(repositories)}, with {refs} refs, {objects} objects, {hooks} entries of hooks, HEADs"
    check("repositories", figures, "repository ")
    for name, tree in after.files.items():
        excluded = DIRECTORIES[name][1]
        but = f" (without {excluded}, which no backup holds)" if excluded else ""
        check(name, f"the same {len(tree)} entries: bytes, owners, modes, times, links{but}", f"{name} ")
    # What is missing altogether has no line above.
    rest = [line for line in whole if line not in told]
    report.check("all of it", "nothing is missing, nothing is there besides", rest)


def _change(installation: ThrowawayInstallation) -> None:
    """Do what a restore would undo: in a database, in a file tree, and to a repository."""
    main = installation.databases["main"]
    installation.cluster.psql("SET ROLE gitlab; CREATE TABLE made_later AS SELECT 1 AS number", main)
    (installation.directories["uploads"] / "made later").write_text("made later\n")
    made = [path for each in installation.repositories if (path := installation.repository_path(each)).exists()]
    shutil.rmtree(made[0])
    print("  made: a table in the database main, a file among the uploads; removed: a repository")


def _flip_a_byte(backup: Path) -> None:
    path = backup / "uploads.tar.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _spoil(backup: Path) -> None:
    path = backup / "db" / "ci_database.sql.gz"
    sql = gzip.decompress(path.read_bytes())
    start, end, rest = sql.rpartition(b"--\n-- PostgreSQL database dump complete")
    path.write_bytes(gzip.compress(start + b"INSERT INTO public.never_made VALUES (1);\n\n" + end + rest))
    # As GitLab's own tool leaves its backups.
    (backup / "SHA256SUMS").unlink()
    (backup / "manifest.json").unlink()


def _fail(
    report: _Report,
    installation: ThrowawayInstallation,
    backup: Path,
    title: str,
    damage: Callable[[Path], None],
    *,
    status: int,
) -> None:
    """Check that a copy of the backup with some damage is not restored, and that nothing is changed by the attempt."""
    before = compare.snapshot(installation)
    print(f"\n  In a copy of the backup, {title}.\n")
    with tempfile.TemporaryDirectory(prefix="gitlab-backup-demo-") as copies:
        shutil.copytree(backup, Path(copies) / backup.name)
        damage(Path(copies) / backup.name)
        ended = _command(installation, "--backup-path", copies, "restore", "all", "latest", "--yes", "--quiet")
        left = sorted(path.name for path in Path(copies).iterdir() if path.name not in {backup.name, LOCK_NAME})
    after = compare.snapshot(installation)
    print()
    report.check("it fails", f"exit status {ended}", [] if ended == status else [f"exit status {ended}, not {status}"])
    rows = sum(each.rows for each in after.databases.values())
    entries = sum(len(tree) for tree in after.files.values())
    figures = f"{rows} rows, {len(after.repositories)} repositories and {entries} entries of file trees are as before"
    problems = compare.differences(before, after) + [f"{name} is left in the backup path" for name in left]
    report.check("nothing has changed", figures, problems)


def _print_tree(backup: Path) -> None:
    print(f"  {backup.parent.name}\n  └── {backup.name}")

    def show(directory: Path, indent: str, depth: int) -> None:
        entries = sorted(directory.iterdir(), key=lambda entry: entry.name)
        for number, entry in enumerate(entries, start=1):
            last = number == len(entries)
            size = "" if entry.is_dir() else f"  ({entry.stat().st_size:,} bytes)"
            print(f"{indent}{'└── ' if last else '├── '}{entry.name}{size}")
            if entry.is_dir() and depth > 1:
                show(entry, indent + ("    " if last else "│   "), depth - 1)

    show(backup, "      ", 3)


def _run(*command: str, cwd: Path, stdin: bytes | None = None) -> tuple[bytes, list[str]]:
    """Run a standard program. Returns what it prints, and its complaints where it failed."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["/usr/bin/env", *command], cwd=cwd, input=stdin, capture_output=True, env=environment, check=False
    )
    if done.returncode == 0:
        return done.stdout, []
    words = done.stderr.decode(errors="replace").splitlines()
    return done.stdout, [f"{command[0]} ended with {done.returncode}", *words]


def _check_standard(report: _Report, backup: Path) -> None:
    output, problems = _run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=backup)
    listed = len(output.splitlines())
    files = sum(path.is_file() for path in backup.rglob("*")) - 1
    if listed != files:
        problems.append(f"SHA256SUMS names {listed} files, of {files} that are there")
    report.check("sha256sum -c SHA256SUMS", f"{listed} files", problems)
    compressed = sorted(backup.rglob("*.gz"))
    problems = [line for path in compressed for line in _run("gunzip", "--test", str(path), cwd=backup)[1]]
    report.check("gunzip -t", f"{len(compressed)} files", problems or ([] if compressed else ["there is none"]))
    archives = sorted(backup.glob("*.tar.gz"))
    members, problems = 0, []
    for path in archives:
        output, complaints = _run("tar", "--list", "--file", str(path), cwd=backup)
        members, problems = members + len(output.splitlines()), problems + complaints
    report.check("tar -t", f"{members} members in {len(archives)} archives", problems)


def _check_databases(report: _Report, backup: Path, installation: ThrowawayInstallation, before: compare.State) -> None:
    cluster = installation.cluster
    for connection in installation.databases:
        dump = backup / "db" / ("database.sql.gz" if connection == "main" else f"{connection}_database.sql.gz")
        name = f"restored_{connection}"
        cluster.create_database(name, owner="gitlab")
        try:
            sql, problems = _run("gunzip", "--stdout", str(dump), cwd=backup)
            cluster.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", name, stdin=sql)
            problems += compare.database_differences(
                connection, before.databases[connection], compare.database(cluster, name)
            )
        except AssertionError as error:
            problems = str(error).splitlines()
        rows = before.databases[connection].rows
        report.check(f"gunzip | psql of {dump.name}", f"same schema, sequences and {rows} rows", problems)
        cluster.drop_database(name)


def _check_repositories(
    report: _Report, backup: Path, installation: ThrowawayInstallation, before: compare.State, scratch: Path
) -> None:
    repositories = backup / "repositories"
    expected = {name: state for name, state in before.repositories.items() if "/@pools/" not in name}
    problems, bundles, refs, wanted = [], 0, 0, set(expected)
    for number, latest in enumerate(sorted(repositories.glob("manifests/**/+latest.toml"))):
        name = str(latest.parent.relative_to(repositories / "manifests"))
        if name not in expected:
            if not tomllib.loads(latest.read_text()).get("non_existent"):
                problems.append(f"{name} is in the backup only")
            continue
        wanted.discard(name)
        try:
            restored, fetched = _restore_repository(repositories, latest, scratch / str(number))
        except (AssertionError, OSError, KeyError) as error:
            problems.append(f"{name}: {error}")
            continue
        bundles += fetched
        refs += len(restored.refs)
        problems += compare.repository_differences(name, expected[name], restored)
    problems += [f"{name} is not in the backup" for name in sorted(wanted)]
    missing = sum(not installation.repository_path(each).exists() for each in installation.repositories)
    figures = f"{len(expected)} repositories from {bundles} bundles, same objects, {refs} refs, HEADs and hooks"
    report.check("git fetch of every bundle", f"{figures} ({missing} rows of the database have none)", problems)


def _restore_repository(repositories: Path, latest: Path, target: Path) -> tuple[compare.RepositoryState, int]:
    """Make a repository from its bundles, as gitaly-backup would. Returns it, and how many bundles there were."""
    document = tomllib.loads(latest.read_text())
    git(target, "init", "--bare", "--quiet", "--template=", f"--object-format={document['object_format']}")
    git(target, "symbolic-ref", "HEAD", document["head_reference"])
    fetched = 0
    for step in document["steps"]:
        if (repositories / step["bundle_path"]).exists():
            git(target, "fetch", "--quiet", str(repositories / step["bundle_path"]), "+refs/*:refs/*")
            fetched += 1
        hooks = repositories / step["custom_hooks_path"]
        if hooks.exists():
            problems = _run("tar", "--extract", "--file", str(hooks), cwd=target)[1]
            if problems:
                raise AssertionError("; ".join(problems))
    return compare.repository(target), fetched


def _check_files(report: _Report, backup: Path, before: compare.State, scratch: Path) -> None:
    for component, (_, excluded) in DIRECTORIES.items():
        target = scratch / component
        target.mkdir()
        archive = backup / f"{component}.tar.gz"
        options = ("--extract", "--same-permissions", "--file", str(archive))
        problems = _run("tar", *options, cwd=target)[1]
        problems += compare.tree_differences(component, before.files[component], compare.tree(target))
        without = f" without {excluded}" if excluded else ""
        report.check(f"tar -x {archive.name}", f"same {len(before.files[component])} entries{without}", problems)


def _check_unchanged(report: _Report, installation: ThrowawayInstallation, before: compare.State) -> None:
    problems = compare.differences(before, compare.snapshot(installation))
    report.check("the installation itself", "unchanged by the backup", problems)


if __name__ == "__main__":
    sys.exit(main())
