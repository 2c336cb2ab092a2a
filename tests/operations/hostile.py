"""Makes backups hostile, and tells what came of them."""

from __future__ import annotations

import gzip
import os
import subprocess
from typing import TYPE_CHECKING

from attrs import field, frozen

from gitlab_backup.errors import GitLabBackupError
from gitlab_backup.streams.tar import TarWriter
from gitlab_backup.streams.tar.header import encode
from tests.streams.tar_support import ListSink
from tests.support import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from gitlab_backup import Backup
    from tests.support.installation import ThrowawayInstallation

JOURNAL = ".gitlab-restore.journal"


@frozen
class Case:
    """One way to be hostile."""

    name: str
    file: str
    """What the messages must name."""
    place: str
    """What they must say besides, as a part of them."""
    change: Callable[[Path], None] = field(repr=False)
    """Makes the directory of a backup hostile."""
    silent: bool = False
    """Whether verification cannot know: what is in the rows of a table, or what the server will say."""

    def __str__(self) -> str:
        return self.name


def leftovers(installation: ThrowawayInstallation) -> list[str]:
    """Return what a restore has left of what it makes, by the names that it uses."""
    databases = installation.cluster.psql("SELECT datname FROM pg_database", "postgres").split()
    own = installation.databases.values()
    mine = [name for name in databases if any(name.startswith((f"{o}_restoring_", f"{o}_before_")) for o in own)]
    names = ("*restoring*", "*before-*", "*moving-*", JOURNAL)
    patterns = [argument for name in names for argument in ("-o", "-name", name)][1:]
    found = subprocess.run(["find", installation.directory, *patterns], capture_output=True, text=True, check=True)
    return mine + found.stdout.split()


def state_of(installation: ThrowawayInstallation, component: str) -> object:
    """Return all that can be compared of one component."""
    if component == "db":
        return {name: compare.database(installation.cluster, each) for name, each in installation.databases.items()}
    if component == "repositories":
        tops = installation.storages.values()
        return {path: compare.repository(path) for top in tops for path in compare.find_repositories(top)}
    return compare.tree(installation.directories[component])


def refused(backup: Backup, restore: Callable[[], object]) -> str:
    """Return what is said of a restore that must fail, with its causes. Fails where it did not."""
    try:
        restore()
    except GitLabBackupError as error:
        return str(error)
    raise AssertionError(f"{backup.path} was restored")


def plain(path: Path) -> None:
    """Make it look like a backup of GitLab's own tool: nothing that vouches for its files."""
    (path / "manifest.json").unlink()
    (path / "SHA256SUMS").unlink()


def resum(path: Path) -> None:
    """Make its digests fit again."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "SHA256SUMS")
    names = [str(file.relative_to(path)) for file in files]
    sums = subprocess.run(["sha256sum", "--", *names], cwd=path, capture_output=True, check=True).stdout
    (path / "SHA256SUMS").write_bytes(sums)


Entry = tuple[bytes, bytes, bytes, dict[str, object]]


def entry(name: bytes, kind: bytes = b"0", body: bytes = b"x", **more: object) -> Entry:
    """Return a member of an archive."""
    return name, kind, body if kind == b"0" else b"", more


def tar(entries: Iterable[Entry]) -> bytes:
    """Return an archive with a root, and these members as they are."""
    kept = ListSink()
    writer = TarWriter(kept)
    for name, kind, body, more in (entry(b"./", b"5"), *entries):
        fields: dict[str, object] = {"mode": 0o755, "uid": os.geteuid(), "gid": os.getegid(), "mtime_ns": 0}
        writer.add(encode(name, kind, **(fields | {"size": len(body)} | more)), body)  # type: ignore[arg-type]
    writer.finish()
    return bytes(kept.content)


def archive(name: str, place: str, *entries: Entry) -> Case:
    """Return a case of a hostile archive of uploads, in a backup without a manifest."""

    def change(path: Path) -> None:
        plain(path)
        (path / "uploads.tar.gz").write_bytes(gzip.compress(tar(entries), 1))

    return Case(name, "uploads.tar.gz", place, change)


def dump(name: str, place: str, change: Callable[[bytes], bytes], *, silent: bool = False) -> Case:
    """Return a case of a hostile dump of the database main, in a backup without a manifest."""

    def rewrite(path: Path) -> None:
        plain(path)
        rewrite_dump(path / "db/database.sql.gz", change)

    return Case(name, "db/database.sql.gz", place, rewrite, silent)


def rewrite_dump(file: Path, change: Callable[[bytes], bytes]) -> None:
    """Change what is in a compressed dump."""
    file.write_bytes(gzip.compress(change(gzip.decompress(file.read_bytes())), 1))


def after_rows(*lines: str) -> Callable[[bytes], bytes]:
    """Put lines behind the rows of the first table."""
    text = "".join(f"{line}\n" for line in lines).encode()
    return lambda sql: sql.replace(b"\n\\.\n", b"\n\\.\n" + text, 1)


def among_rows(*lines: str) -> Callable[[bytes], bytes]:
    """Put lines among the rows of the first table that has any."""

    def change(sql: bytes) -> bytes:
        at = sql.index(b"\n\\.\n", sql.index(b"COPY public.projects "))
        return sql[:at] + "".join(f"\n{line}" for line in lines).encode() + sql[at:]

    return change


def text(name: str, file: str, place: str, change: Callable[[str], str]) -> Case:
    """Return a case of a changed text file; `file` may be a pattern, of which the first match is taken.

    All digests fit: nothing but the content is wrong.
    """

    def rewrite(path: Path) -> None:
        target = min(path.glob(file))
        target.write_text(change(target.read_text()))
        if target.name != "SHA256SUMS":
            resum(path)

    return Case(name, file.rpartition("/")[2].replace("*", ""), place, rewrite)
