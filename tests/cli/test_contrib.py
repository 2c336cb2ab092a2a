"""The units for systemd and the table for cron: what systemd says of them, and whether the command understands them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .program import Program

CONTRIB = Path(__file__).parents[2] / "contrib"
UNITS = CONTRIB / "systemd"
NAME = "/usr/local/bin/gitlab-backup-cli"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def arguments(line: str) -> list[str]:
    """Return what the command is given in a line."""
    words = shlex.split(line)
    (place,) = [number for number, word in enumerate(words) if word.endswith("gitlab-backup-cli")]
    return words[place + 1 :]


@needs_systemd
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Systemd finds nothing wrong or unknown in them, once the command is where they look for it."""
    for unit in UNITS.iterdir():
        # The only thing that is not as on a machine where the command is installed.
        (tmp_path / unit.name).write_text(unit.read_text().replace(NAME, sys.executable))
    names = sorted(str(unit) for unit in tmp_path.iterdir())
    assert len(names) == 3
    done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "gitlab-backup" in line]
    assert (done.returncode, ours) == (0, [])


@needs_systemd
def test_the_service_is_hardened() -> None:
    """What systemd counts as exposure stays low: a setting that is lost is noticed."""
    unit = UNITS / "gitlab-backup.service"
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=45", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot look at a unit that is not installed")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_backs_up(program: Program) -> None:
    """What the service runs is understood, and would back up everything."""
    (line,) = [line for line in (UNITS / "gitlab-backup.service").read_text().splitlines() if line.startswith("Exec")]
    result = program(*arguments(line), "--dry-run", "--json")
    assert (0, "") == (result.status, result.err)
    assert "planned" == result.document["status"]


def test_cron_backs_up(program: Program) -> None:
    """So is what cron runs, which says nothing where nothing is wrong. Its line has six fields before the command."""
    line = (CONTRIB / "cron" / "gitlab-backup").read_text().splitlines()[-1]
    result = program(*arguments(line), "--dry-run")
    assert (0, "", "") == (result.status, result.out, result.err)
    assert line.split()[:6] == ["0", "2", "*", "*", "*", "root"]
    # In a crontab, a percent sign is the end of the line: crontab(5).
    assert "%" not in line
