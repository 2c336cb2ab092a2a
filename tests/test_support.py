"""The real parts that the other tests stand on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import compare, postgres
from tests.support.installation import Size, ThrowawayInstallation, build
from tests.support.repositories import Shape, git

if TYPE_CHECKING:
    from collections.abc import Callable


def lives(pid: int) -> bool:
    """Tell whether a process runs: a dead one that nobody has collected does not."""
    try:
        return bool(Path(f"/proc/{pid}/cwd").readlink())
    except FileNotFoundError:
        return False


def test_a_cluster_answers_and_leaves_nothing() -> None:
    """A server answers on its socket; afterwards neither its processes nor its directory exist."""
    with postgres.cluster(loopback=True) as server:
        pid = server.postmaster()
        assert server.psql("SELECT 6 * 7") == "42"
    assert not server.directory.exists()
    assert not lives(pid)


def test_a_cluster_survives_restart_reload_and_kill() -> None:
    """Rows are there after a restart, and after a SIGKILL of the server followed by a start."""
    with postgres.cluster() as server:
        server.psql("CREATE TABLE t AS SELECT 1 AS n")
        server.restart()
        server.insert_hba("local t nobody reject")
        server.append_ident("map a b")
        server.kill()
        server.start()
        assert server.psql("SELECT n FROM t") == "1"


def test_a_cluster_ends_when_its_owner_is_killed() -> None:
    """SIGKILL of the process that made a server ends the server and removes its directory."""
    script = (
        "from tests.support import postgres\n"
        "with postgres.cluster() as server:\n"
        "    print(server.directory, server.postmaster(), server._watchdog.pid, flush=True)\n"
        "    input()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    with owner:
        assert owner.stdout is not None
        directory, postmaster, watchdog = owner.stdout.readline().decode().split()
        watched = os.pidfd_open(int(watchdog))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert select.select([watched], [], [], 30)[0], "the watchdog did not end"
    os.close(watched)
    assert not Path(directory).exists()
    assert not lives(int(postmaster))


def test_a_fresh_database_is_empty(cluster: postgres.Cluster, database: str) -> None:
    """The fixture gives a database of its own without tables."""
    assert cluster.psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database) == "0"


def test_psql_stops_at_an_error(cluster: postgres.Cluster) -> None:
    """An SQL error is a failed test, never an empty result."""
    with pytest.raises(AssertionError, match="division by zero"):
        cluster.psql("SELECT 1/0; SELECT 2")


def test_an_installation_is_what_its_seed_says(cluster: postgres.Cluster) -> None:
    """Two installations of the same size and seed do not differ; with another seed, every part does."""
    made = [build(cluster.directory / f"same-{number}", cluster, seed=seed) for number, seed in enumerate((1, 1, 2))]
    first, same, other = (compare.snapshot(each) for each in made)
    for each in made:
        each.remove()
    assert compare.differences(first, same) == []
    changed = compare.differences(first, other)
    for part in ("database main: table 'issues'", "database ci", "repository", "uploads", "builds"):
        assert any(line.startswith(part) for line in changed), part


def test_a_copy_is_equal_and_leaves_the_original_alone(
    template_installation: ThrowawayInstallation, installation: ThrowawayInstallation
) -> None:
    """A copy has everything of the template, also what backups leave out, and changes to it are its own."""
    before = compare.snapshot(template_installation, excluded=True)
    assert compare.differences(before, compare.snapshot(installation, excluded=True)) == []
    installation.cluster.psql("DELETE FROM issues", installation.databases["main"])
    (installation.directories["uploads"] / "odd" / "run").unlink()
    assert compare.differences(before, compare.snapshot(template_installation, excluded=True)) == []


def test_the_database_lists_what_is_there(template_installation: ThrowawayInstallation) -> None:
    """Every repository that exists is listed, but for pools; those without a directory are the missing ones."""
    snapshot = compare.snapshot(template_installation)
    listed = {
        f"{each.storage}/{each.relative_path}"
        for each in template_installation.repositories
        if each.shape is not Shape.MISSING
    }
    assert listed == {name for name in snapshot.repositories if "/@pools/" not in name}
    assert len(template_installation.repositories) > len(listed)
    views = ("project_routes_view", "project_design_management_routes_view", "project_snippets_routes_view")
    rows = [
        len(template_installation.cluster.psql(f"TABLE {view}", template_installation.databases["main"]).splitlines())
        for view in (*views, "personal_snippets_view", "group_wikis_routes_view")
    ]
    assert rows == [Size.SMALL.projects, 2, 2, 1, 1]


def _hook(installation: ThrowawayInstallation) -> Path:
    (hook,) = installation.storages["default"].glob("@hashed/*/*/*.git/custom_hooks/pre-receive.d/10-check")
    return hook


def _branches(installation: ThrowawayInstallation) -> Path:
    (path,) = (installation.repository_path(each) for each in installation.repositories if each.shape is Shape.SHA256)
    return path


def _unlink_name(installation: ThrowawayInstallation) -> None:
    name = installation.directories["lfs"] / "odd" / "second-name"
    content, status = name.read_bytes(), name.stat()
    parent = name.parent.stat()
    name.unlink()
    name.write_bytes(content)
    name.chmod(status.st_mode & 0o7777)
    os.chown(name, status.st_uid, status.st_gid)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.utime(name.parent, ns=(parent.st_atime_ns, parent.st_mtime_ns))


def _touch(path: Path) -> None:
    os.utime(path, ns=(0, path.lstat().st_mtime_ns + 1), follow_symlinks=False)


def _sql(sql: str, connection: str = "main") -> Callable[[ThrowawayInstallation], object]:
    return lambda installation: installation.cluster.psql(sql, installation.databases[connection])


CHANGES: dict[str, tuple[Callable[[ThrowawayInstallation], object], str]] = {
    "a row": (_sql("UPDATE issues SET ratio = ratio + 1e-9 WHERE id = 1005"), "table 'issues'"),
    "a row of a partition": (
        _sql("UPDATE p_ci_builds SET token_encrypted = '' WHERE id = 1", "ci"),
        "table 'gitlab_partitions_dynamic.ci_builds_101'",
    ),
    "a sequence": (_sql("SELECT nextval('iid_seq')"), "sequence 'iid_seq'"),
    "an index": (_sql("DROP INDEX index_issues_on_open"), "schema lacks"),
    "a grant": (_sql("GRANT SELECT ON routes TO gitlab_monitor"), "schema has besides"),
    "a ref": (lambda each: git(_branches(each), "update-ref", "-d", "refs/tags/v0.9"), "refs"),
    "HEAD": (lambda each: git(_branches(each), "symbolic-ref", "HEAD", "refs/heads/no"), "head"),
    "the mode of a hook": (lambda each: _hook(each).chmod(0o700), "hooks"),
    "a byte": (lambda each: (each.directories["pages"] / "odd" / "run").write_bytes(b"#!/bin/sH\n"), "content"),
    "a nanosecond": (lambda each: _touch(each.directories["packages"] / "odd" / "dangling"), "mtime_ns"),
    "a mode": (lambda each: (each.directories["artifacts"] / "odd" / "empty").chmod(0o4755), "kind"),
    "a hard link": (_unlink_name, "links"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_comparison_sees(
    template_installation: ThrowawayInstallation, installation: ThrowawayInstallation, change: str
) -> None:
    """The smallest change of each kind is a difference, and is named."""
    apply, named = CHANGES[change]
    apply(installation)
    found = compare.differences(compare.snapshot(template_installation), compare.snapshot(installation))
    assert len(found) in {1, 2, 3}, found
    assert any(named in line for line in found), found


@pytest.mark.parametrize("omnibus", [False, True])
def test_the_library_reads_an_installation(cluster: postgres.Cluster, omnibus: bool) -> None:  # noqa: FBT001
    """What the library finds are the databases, storages and directories that were made."""
    made = build(cluster.directory / f"read-{omnibus}", cluster, omnibus=omnibus)
    instance = made.instance()
    made.remove()
    assert instance.installation == ("omnibus" if omnibus else "source")
    assert {each.name: each.dbname for each in instance.databases} == made.databases
    assert {each.name: each.path for each in instance.storages} == made.storages
    assert instance.backup_path == made.backup_path
