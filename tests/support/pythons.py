"""The versions of Python that the packages are for, and empty environments of them. As a program: which are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from uv import find_uv_bin

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS: Final = ("3.11", "3.12", "3.13")


class PythonMissingError(Exception):
    """That version of Python is not installed."""


def uv(*arguments: str | Path, **variables: str) -> str:
    """Run uv with more variables in its environment, and return what it prints."""
    done = subprocess.run(
        [find_uv_bin(), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"uv {arguments[0]} ended with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def find(version: str) -> str:
    """Return the path of an interpreter: one of `PATH`, of pyenv, or that uv has installed.

    Raises `PythonMissingError`.
    """
    try:
        # The programs that pyenv puts into PATH run another version than the chosen one only where this names it.
        return uv("python", "find", "--no-project", "--no-python-downloads", version, PYENV_VERSION=version)
    except AssertionError as error:
        raise PythonMissingError(f"Python {version} is not installed here") from error


def create_environment(version: str, directory: Path) -> Path:
    """Create an environment with nothing in it, not even pip. Returns its `python`. Raises `PythonMissingError`."""
    uv("venv", "--no-project", "--python", find(version), directory)
    return directory / "bin" / "python"


def missing() -> list[str]:
    """Return those of `VERSIONS` that are not installed."""
    found = []
    for version in VERSIONS:
        try:
            find(version)
        except PythonMissingError:
            found.append(version)
    return found


if __name__ == "__main__":
    sys.stdout.write(" ".join(missing()) + "\n")
