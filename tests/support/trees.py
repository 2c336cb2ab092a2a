"""Real file trees, with one of everything that an archive has to carry."""

# ruff: noqa: PTH114, PTH118, PTH123  names that are not UTF-8 are bytes, which pathlib does not know

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

from .accounts import Account, is_root

if TYPE_CHECKING:
    from pathlib import Path

_BASE_NS: Final = 1_714_053_314_000_000_000


def create(directory: Path, *, files: int, seed: str, owner: Account, excluded: str | None = None) -> None:
    """Fill `directory`, which must not exist, with `files` ordinary files and all the odd ones.

    `excluded` is a directory at the top, with content, that a backup leaves out. As root everything belongs to
    `owner`, but for a file of root's and one of nobody's.
    """
    chance = random.Random(seed)
    directory.mkdir(parents=True)
    directory.chmod(0o750)
    for number in range(files):
        parent = directory / f"{chance.randrange(16):02x}" / f"{chance.randrange(4):02x}"
        parent.mkdir(parents=True, exist_ok=True)
        file = parent / f"file-{number}.bin"
        # Half of it compresses well, half not at all.
        size = chance.choice((0, 1, 511, 512, 513, 4_096, 20_000))
        file.write_bytes(b"text %d\n" % number * (size // 16) + chance.randbytes(size // 2))
        file.chmod(chance.choice((0o644, 0o640, 0o600, 0o444)))
    _odd_files(directory / "odd", chance)
    if excluded is not None:
        left_out = directory / excluded / "uploads"
        left_out.mkdir(parents=True)
        (left_out / "half-uploaded").write_bytes(b"must not be in a backup")
    # The same name further down is not left out.
    (directory / "odd" / "tmp").mkdir()
    (directory / "odd" / "tmp" / "kept").write_bytes(b"must be in a backup")
    if is_root():
        own(directory, owner)
        os.chown(directory / "odd" / "of-root", 0, 0)
        nobody = Account.named("nobody")
        os.chown(directory / "odd" / "of-nobody", nobody.uid, nobody.gid)
    _set_times(directory, chance)


def own(directory: Path, owner: Account) -> None:
    """Give a whole tree to `owner`."""
    for parent, directories, files in os.walk(os.fsencode(directory)):
        os.chown(parent, owner.uid, owner.gid)
        for name in (*directories, *files):
            os.chown(os.path.join(parent, name), owner.uid, owner.gid, follow_symlinks=False)


def _odd_files(odd: Path, chance: random.Random) -> None:
    odd.mkdir()
    (odd / "empty-directory").mkdir()
    (odd / "private").mkdir(mode=0o700)
    (odd / "private" / "key").write_bytes(b"secret")
    (odd / "private" / "key").chmod(0o600)
    for name in ("of-root", "of-nobody", "empty"):
        (odd / name).touch()
    (odd / "run").write_bytes(b"#!/bin/sh\n")
    (odd / "run").chmod(0o755)
    (odd / "a line\nand another").write_bytes(b"newline in the name")
    (odd / "-rf * ; $(true) \"quoted\" 'twice' \\ ").write_bytes(b"a name for shells")
    (odd / ("ñ" * 120)).write_bytes(b"a long name of 240 bytes")
    deep = odd.joinpath(*("d" * 60 for _ in range(5)))
    deep.mkdir(parents=True)
    (deep / "deep").write_bytes(b"a path that no header of ustar holds")
    with open(os.fsencode(odd) + b"/not-utf-8-\xff\xfe", "wb") as file:
        file.write(b"bytes in the name")
    (odd / "link").symlink_to("run")
    (odd / "dangling").symlink_to("../nowhere/" + "x" * 150)
    (odd / "to-directory").symlink_to("private")
    (odd / "first-name").write_bytes(chance.randbytes(3_000))
    (odd / "second-name").hardlink_to(odd / "first-name")
    (odd / "private" / "third-name").hardlink_to(odd / "first-name")
    with (odd / "sparse").open("wb") as sparse:
        sparse.write(b"start")
        sparse.seek(3_000_000)
        sparse.write(b"end")
        sparse.truncate(4_000_000)


def _set_times(directory: Path, chance: random.Random) -> None:
    """Set every modification time, to the nanosecond; those of directories after those of what is in them."""
    for parent, directories, files in os.walk(os.fsencode(directory), topdown=False):
        for name in sorted((*files, *(each for each in directories if os.path.islink(os.path.join(parent, each))))):
            _set_time(os.path.join(parent, name), chance)
        _set_time(parent, chance)


def _set_time(path: bytes, chance: random.Random) -> None:
    moment = _BASE_NS - chance.randrange(10**17)
    os.utime(path, ns=(moment, moment), follow_symlinks=False)
