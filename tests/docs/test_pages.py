"""What the pages have their readers type is typed, and does what the pages say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gitlab_backup import Backup, BackupState
from tests.support import compare, playground
from tests.support.accounts import is_root

from .pages import DOCS, Shell, answers, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.installation import ThrowawayInstallation

TUTORIAL: Final = DOCS / "tutorial.md"

NOT_RUN: Final = {
    "cli.md": 1,
    "events.md": 2,
    "formats.md": 1,
    "how-to-new-machine.md": 2,
    "how-to-omnibus.md": 2,
    "how-to-report.md": 2,
    "how-to-restore.md": 4,
    "how-to-schedule.md": 3,
    "how-to-source.md": 1,
    "how-to-use-from-a-script.md": 1,
    "how-to-write-an-archiver.md": 1,
    "performance.md": 3,
    "repositories.md": 1,
    "tutorial.md": 2,
}
"""How many blocks of each page are not run. Each says why, on the page."""

SIZES_OF_CRON: Final = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
ID: Final = re.compile(r"\d{10}_\d{4}_\d\d_\d\d_17\.0\.0-pre")


def environment(home: Path) -> dict[str, str]:
    """Return what a reader's shell has: the command, and nothing of an installation."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def places() -> Iterator[Path]:
    """A directory for throwaway GitLabs, within reach of the user that they belong to. Whatever is left is stopped."""
    top = Path(tempfile.mkdtemp(prefix="gl-docs-", dir="/tmp"))
    top.chmod(0o755)
    yield top
    for state in top.glob(f"*/{playground.STATE}"):
        playground.stop(state.parent)
    shutil.rmtree(top)


def test_what_is_not_run_is_counted() -> None:
    """No block is left out silently: of each page, so many as are known, and each with its reason."""
    left_out = [block for page in DOCS.glob("*.md") for block in blocks(page) if block.not_run is not None]
    assert NOT_RUN == Counter(block.page for block in left_out)
    assert [] == [str(block) for block in left_out if len((block.not_run or "").split()) < 3]


def test_answers_are_compared() -> None:
    """An answer that differs from what a page shows is noticed, but for what the page leaves open."""
    shown = ("a … c", "…", "end")
    assert answers(shown, "a b c\nend\n")
    assert answers(shown, "a b c\nmore\nand more\nend\n")
    assert not answers(shown, "a b d\nend\n")
    assert not answers(shown, "a b c\nend\nmore\n")
    assert not answers((), "something\n")


def test_only_what_is_there_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that is no throwaway GitLab is not removed, and that is said."""
    assert 1 == playground.stop(tmp_path)
    assert tmp_path.exists()
    assert "There is no throwaway GitLab" in capsys.readouterr().err


def test_the_tutorial(places: Path) -> None:
    """A newcomer who types what the tutorial shows has nightly backups, an alert, and a restored GitLab."""
    old, new = places / "throwaway", places / "throwaway-new"
    (places / "shell").mkdir()
    instead = {"/tmp/throwaway": str(old)}  # noqa: S108  what the page says; also of /tmp/throwaway-new
    shell = Shell(environment(places), places / "shell", DOCS.parent, instead)
    try:
        todo = [block for block in blocks(TUTORIAL) if block.not_run is None]
        for block in todo:
            if block.section == "Clean up":
                break
            shell.type(block)
        made = list(dict.fromkeys(ID.findall("".join(shell.transcript))))
        assert 3 == len(made)

        scheduled(old / "crontab")
        kept = sorted(path.name for path in (old / "backups").iterdir() if not path.name.startswith("."))
        assert made[-1] == kept[0]
        assert 2 == len(kept)
        assert kept[1] not in made
        assert [BackupState.COMPLETE] * 2 == [Backup.open(old / "backups", name).state for name in kept]

        figures = metrics(old / "metrics" / "gitlab_backup.prom")
        assert 0 == figures['gitlab_backup_last_run_exit_status{operation="backup"}']
        assert 2 == figures['gitlab_backup_backups{status="complete"}']
        assert int(kept[1].partition("_")[0]) == figures["gitlab_backup_newest_backup_timestamp_seconds"]
        assert "the backup has failed with status 1\n" == (old / "alerts").read_text()
        assert [] == sorted(alerted() - {name.partition("{")[0] for name in figures})

        before, after = (compare.snapshot(playground.load(each)) for each in (old, new))
        lost = [line for line in compare.differences(before, after) if "/@pools/" not in line]
        assert [] == lost
        assert after.repositories

        shell.type(todo[-1])
        assert [] == list(places.glob("throwaway*"))
    finally:
        shell.end()


def scheduled(crontab: Path) -> None:
    """Run what a crontab schedules, as cron does: with sh, and with what crontab(5) says is in the environment."""
    (line,) = crontab.read_text().splitlines()
    *fields, command = line.split(maxsplit=5)
    for text, (low, high) in zip(fields, SIZES_OF_CRON, strict=True):
        assert text == "*" or low <= int(text) <= high
    assert "%" not in command  # it would end the line
    surroundings = {"HOME": "/", "LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=surroundings, cwd="/", capture_output=True, text=True, check=False
    )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def alerted() -> set[str]:
    """Return the figures that the alerts of the page on metrics ask for."""
    rules = re.findall(r"expr: (.*)", (DOCS / "events.md").read_text())
    assert 2 == len(rules)
    return {name for rule in rules for name in re.findall(r"gitlab_backup_\w+", rule)}


def metrics(file: Path) -> dict[str, float]:
    """Return the figures of a textfile, by name and labels. Every line must be one of the format."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# ")]
    found = [re.fullmatch(r"([a-z_]+(?:\{(?:[a-z]+=\"[a-z_]+\",?)+\})?) ([0-9.e+]+)", line) for line in lines]
    assert None not in found, lines
    return {match[1]: float(match[2]) for match in found if match is not None}


def test_the_other_pages(installation: ThrowawayInstallation, places: Path) -> None:
    """What the other pages have their readers type works on an installation from source."""
    surroundings = {**environment(places), "GITLAB_PATH": str(installation.root)}
    surroundings["PATH"] = f"{installation.cluster.programs}{os.pathsep}{surroundings['PATH']}"
    instead = {
        "/var/opt/gitlab/gitlab-rails/etc/gitlab.yml": str(installation.gitlab_config),
        "/var/opt/gitlab/gitlab-rails/etc/database.yml": str(installation.database_config),
        "/opt/gitlab/embedded/service/gitlab-rails": str(installation.root),
        "/home/git/gitlab": str(installation.root),
        "/var/opt/gitlab/backups": str(installation.backup_path),
        **{
            name: str(places / name.strip("/"))
            for name in ("/srv", "/etc/gitlab", "/var/log", "/var/lib/node_exporter")
        },
    }
    for place in instead.values():
        if place.startswith(str(places)):
            Path(place).mkdir(parents=True)
    for page in sorted(DOCS.glob("*.md")):
        todo = [block for block in blocks(page) if block.not_run is None]
        if page == TUTORIAL or not todo:
            continue
        # Who is not root cannot give files their owners: 3 is complete, with warnings.
        shell = Shell(surroundings, places, places, instead, frozenset({"0"} if is_root() else {"0", "3"}))
        try:
            for block in todo:
                shell.type(block)
        finally:
            shell.end()
