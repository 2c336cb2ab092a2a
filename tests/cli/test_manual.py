"""The manual pages: whether they say what the command does, and whether the programs that print them are content."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from reference.__main__ import PAGES
from reference.man import pages


def test_the_pages_are_of_this_command() -> None:
    """What is installed says what the command does now."""
    there = {page.name: page.read_text() for page in PAGES.iterdir()}
    assert pages() == there, "Write them anew: python -m reference (or ./nox.sh -s man)"


def test_no_warnings() -> None:
    """Nothing in the pages is wrong, or meant for another version of man. Their date is that of the version."""
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *PAGES.iterdir()], capture_output=True, text=True, check=False
    )
    assert [] == [line for line in lint.stdout.splitlines() if "missing date" not in line]
    assert "" == lint.stderr


def test_as_it_is_read() -> None:
    """On a screen of 80 columns nothing is cut off, and what is to be copied can be."""
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    page = PAGES / "gitlab-backup-cli-prune.1"
    shown = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=78", page], capture_output=True, text=True, check=True
    ).stdout
    plain = "".join(char for place, char in enumerate(shown) if char != "\b" and shown[place + 1 : place + 2] != "\b")
    assert max(map(len, plain.splitlines())) <= 80
    assert "\n       --keep-within SPAN\n" in plain
    assert "gitlab-backup-cli prune --keep-daily 7 --keep-weekly 4 --dry-run" in plain
