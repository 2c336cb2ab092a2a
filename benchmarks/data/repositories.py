"""Bare repositories, laid out as GitLab's storages are."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from tests.support.repositories import git, hashed

from .text import chance, piece

if TYPE_CHECKING:
    import random
    from pathlib import Path

_DATE: Final = 1_714_053_314
_LARGE, _MIDDLE, _SMALL = 64_000_000, 8_000_000, 800_000  # bytes in files; packed, they are half of it
_TEMPLATES: Final = 40


def path_of(number: int) -> str:
    """Return where repository `number` (from 1) lies below its storage."""
    return f"{hashed('@hashed', number)}.git"


def mixed(top: Path, count: int) -> None:
    """Make `count` repositories, of every hundred one large and nine middle ones; not all are a single pack.

    Of ten, six are exactly one pack, two have a second one, and two have loose objects besides.
    """
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: _mixed(top / path_of(number), number), range(1, count + 1)))


def packed(top: Path, of: Path) -> None:
    """Copy the storage `of`, and make each repository exactly one pack."""
    shutil.copytree(of, top, dirs_exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: git(path, "repack", "-a", "-d", "-q"), top.glob("@hashed/*/*/*.git")))


def small(top: Path, count: int) -> None:
    """Make `count` repositories of a few commits, of a few kinds."""
    templates = [top / path_of(number) for number in range(1, min(_TEMPLATES, count) + 1)]
    for number, template in enumerate(templates, start=1):
        _make(template)
        _commit(template, "main", chance(f"small {number}"), files=4, size=3_000, commits=3)
        git(template, "pack-refs", "--all")
    for number in range(len(templates) + 1, count + 1):
        shutil.copytree(templates[number % len(templates)], top / path_of(number))


def _mixed(path: Path, number: int) -> None:
    source = chance(f"repository {number}")
    size = _LARGE if number % 100 == 1 else _MIDDLE if number % 100 in range(2, 11) else _SMALL
    _make(path)
    _commit(path, "main", source, files=12, size=size // 12, commits=5)
    if number % 10 in {7, 8}:
        _commit(path, "second", source, files=3, size=size // 60, commits=2)
    git(path, "update-ref", "refs/merge-requests/1/head", "refs/heads/main~1")
    git(path, "update-ref", "refs/tags/v1.0", "refs/heads/main~2")
    git(path, "pack-refs", "--all")
    if number % 10 in {9, 0}:
        _commit(path, "loose", source, files=5, size=3_000, commits=2, pack=False)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--bare", "--quiet", "--template=", "--initial-branch=main")


def _commit(
    path: Path, branch: str, source: random.Random, *, files: int, size: int, commits: int, pack: bool = True
) -> None:
    """Add a branch: a commit with all of the files, others that change one each. A third is incompressible."""
    parts = []
    for number in range(commits):
        stamp = f"A U Thor <author@example.com> {_DATE + number * 60} +0000"
        parts.append(f"commit refs/heads/{branch}\nauthor {stamp}\ncommitter {stamp}\ndata 6\nCommit\n".encode())
        for each in range(files) if number == 0 else (number % files,):
            data = source.randbytes(size) if each % 3 == 0 else piece(source, size)
            parts.append(b"M 100644 inline %s/%d\ndata %d\n%s\n" % (branch.encode(), each, len(data), data))
    git(
        path,
        "-c",
        f"fastimport.unpackLimit={0 if pack else 1_000_000}",
        "fast-import",
        "--quiet",
        stdin=b"".join(parts),
    )
