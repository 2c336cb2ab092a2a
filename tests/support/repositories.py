"""Real Git repositories, one of each kind, laid out as GitLab's storages are."""

from __future__ import annotations

import hashlib
import os
import subprocess
from enum import Enum
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

# Nothing of the user's own configuration may change what is built.
ENVIRONMENT: Final = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "LC_ALL": "C",
}
_BASE: Final = 1714053314  # 2024-04-25T13:55:14Z


class Shape(Enum):
    """What is special about a repository."""

    ORDINARY = "several branches and tags, hidden refs, packed"
    LOOSE = "loose objects and refs, custom hooks"
    EMPTY = "no commit"
    UNBORN = "HEAD names a branch that does not exist, others do"
    SHA256 = "SHA-256 object format"
    POOLED = "shares objects with a pool, through a relative alternate"
    MISSING = "a row in the database without a directory"


@frozen(kw_only=True)
class Repository:
    """A repository that the database lists, and where it belongs."""

    storage: str
    relative_path: PurePosixPath
    """Below the storage, with `.git`."""
    shape: Shape


def hashed(prefix: str, number: int) -> str:
    """Return the disk path of GitLab's hashed storage, without a suffix (app/models/storage/hashed.rb)."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"{prefix}/{digest[:2]}/{digest[2:4]}/{digest}"


def git(repository: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run git on a repository, whoever owns it, and return what it prints."""
    done = subprocess.run(
        ["/usr/bin/env", "git", f"--git-dir={repository}", *arguments],
        input=stdin,
        capture_output=True,
        env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", **ENVIRONMENT},
        check=False,
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace")
        raise AssertionError(f"git {' '.join(arguments)} in {repository} ended with {done.returncode}: {words}")
    return done.stdout


def create(path: Path, shape: Shape, *, salt: str, pool: Path | None = None) -> None:
    """Create the repository `path`. Repositories of different `salt` have different commits.

    `pool` is the object pool of a `Shape.POOLED` one, on the same storage.
    """
    if shape is Shape.MISSING:
        return
    head = "trunk" if shape is Shape.UNBORN else "main"
    object_format = "sha256" if shape is Shape.SHA256 else "sha1"
    options = ["--bare", "--quiet", "--template=", f"--object-format={object_format}", f"--initial-branch={head}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    git(path, "init", *options)
    if shape is Shape.POOLED:
        assert pool is not None
        _link(path, pool)
    if shape is not Shape.EMPTY:
        _fill(path, shape, salt=salt)
    if shape is Shape.LOOSE:
        _add_hooks(path)


def create_pool(path: Path) -> None:
    """Create an object pool with the commits that its members share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--bare", "--quiet", "--template=", "--initial-branch=main")
    _import(path, _commits("refs/remotes/origin/heads/main", salt="pool", count=4, size=20_000), pack=True)


def _link(path: Path, pool: Path) -> None:
    """Make `path` use the objects of `pool`, as Gitaly does (objectpool/link.go)."""
    relative = os.path.relpath(pool / "objects", path / "objects")
    (path / "objects" / "info").mkdir(exist_ok=True)
    (path / "objects" / "info" / "alternates").write_text(relative + "\n")
    shared = git(pool, "rev-parse", "refs/remotes/origin/heads/main").decode().strip()
    git(path, "update-ref", "refs/heads/shared", shared)


def _fill(path: Path, shape: Shape, *, salt: str) -> None:
    pack = shape is not Shape.LOOSE
    _import(
        path, _commits("refs/heads/main" if shape is not Shape.UNBORN else "refs/heads/other", salt=salt), pack=pack
    )
    main = "refs/heads/other" if shape is Shape.UNBORN else "refs/heads/main"
    first, last = git(path, "rev-parse", f"{main}~2", main).decode().split()
    refs = [
        f"create refs/heads/feature/ünïcode-{salt} {first}",
        f"create refs/merge-requests/1/head {first}",
        f"create refs/keep-around/{first} {first}",
        f"create refs/environments/production/deployments/1 {last}",
        f"create refs/tags/v0.9 {first}",
    ]
    git(path, "update-ref", "--stdin", stdin="".join(f"{line}\n" for line in refs).encode())
    tag = b"tag v1.0\nfrom %s\ntagger T <t@example.com> %d +0000\ndata 7\nRelease\n" % (main.encode(), _BASE)
    _import(path, tag, pack=pack)
    if pack:
        git(path, "pack-refs", "--all")
        # On top of the pack: a branch of loose objects that packed-refs does not know.
        _import(path, _commits("refs/heads/loose", salt=f"{salt}-loose", count=1), pack=False)


def _commits(ref: str, *, salt: str, count: int = 3, size: int = 2_000) -> bytes:
    """Return a stream for git fast-import: commits that change a file and add one of odd name each."""
    parts = []
    for number in range(count):
        text = (f"{salt} {number}\n" * (size // 10)).encode()
        stamp = f"A U Thor <author@example.com> {_BASE + number * 60} +0200\n".encode()
        parts += [
            b"commit %s\nauthor %scommitter %s" % (ref.encode(), stamp, stamp),
            b"data 9\nCommit %d\n" % (number % 10) + b"\n",
            b"M 100644 inline README.md\ndata %d\n" % len(text) + text + b"\n",
            b'M 100755 inline "bin/run\\n\\303\\251 %d"\ndata 10\n#!/bin/sh\n\n' % number,
            b"M 120000 inline link\ndata 9\nREADME.md\n",
        ]
    return b"".join(parts)


def _import(path: Path, stream: bytes, *, pack: bool) -> None:
    # Below the limit, fast-import unpacks what it wrote into loose objects.
    git(path, "-c", f"fastimport.unpackLimit={0 if pack else 1_000_000}", "fast-import", "--quiet", stdin=stream)


def _add_hooks(path: Path) -> None:
    hooks = path / "custom_hooks" / "pre-receive.d"
    hooks.mkdir(parents=True)
    (hooks / "10-check").write_text("#!/bin/sh\nexit 0\n")
    (hooks / "10-check").chmod(0o755)
    (path / "custom_hooks" / "notes.txt").write_text("not a hook\n")
    (path / "custom_hooks" / "notes.txt").chmod(0o640)
    (path / "custom_hooks" / "post-receive").symlink_to("pre-receive.d/10-check")
