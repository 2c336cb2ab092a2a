"""File trees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .text import chance, piece

if TYPE_CHECKING:
    import random
    from pathlib import Path

KIB: Final = 1024
MIB: Final = 1024 * KIB


def mixed(top: Path, scale: float) -> None:
    """Make the tree of most installations: small texts, larger files of both kinds, a few large incompressible ones."""
    source = chance("mixed")
    for number in range(int(20_000 * scale)):
        _write(top, f"text/{number % 256:02x}/{number}.log", piece(source, source.randint(4 * KIB, 40 * KIB)))
    for number in range(int(500 * scale)):
        size = source.randint(MIB, 2 * MIB)
        half = source.randbytes(size // 2)
        _write(top, f"mixed/{number % 16:02x}/{number}.bin", half + piece(source, size - len(half)))
    for number in range(4):
        _write_random(top, f"large/{number}.zip", int(230 * MIB * scale), source)


def text(top: Path, scale: float) -> None:
    """Make a tree of the same size that is all text."""
    source = chance("text")
    for number in range(int(20_000 * scale)):
        _write(top, f"small/{number % 256:02x}/{number}.log", piece(source, source.randint(4 * KIB, 40 * KIB)))
    for number in range(int(1_600 * scale)):
        _write(top, f"traces/{number % 64:02x}/{number}.log", piece(source, MIB))


def tiny(top: Path, count: int, *, largest: int = 200) -> None:
    """Make `count` files of at most `largest` bytes, a thousand a directory."""
    source = chance("tiny")
    text = piece(source, MIB)
    for number in range(count):
        directory = f"{number // 100_000:02}/{number // 1_000 % 100:02}"
        start = source.randrange(len(text) - largest)
        _write(top, f"{directory}/{number:07}.txt", text[start : start + source.randint(0, largest)])


def _write(top: Path, name: str, data: bytes) -> None:
    path = f"{top}/{name}"
    try:
        file = open(path, "xb", buffering=0)  # noqa: PTH123, SIM115 - a million times
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        file = open(path, "xb", buffering=0)  # noqa: PTH123, SIM115
    with file:
        file.write(data)


def _write_random(top: Path, name: str, size: int, source: random.Random) -> None:
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for left in range(size, 0, -MIB):
            file.write(source.randbytes(min(left, MIB)))
