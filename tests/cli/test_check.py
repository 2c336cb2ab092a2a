"""`check`: what it prints, and how it ends, for people and for monitoring."""

from __future__ import annotations

import os
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gitlab_backup_cli import health
from gitlab_backup_cli.health import PluginStatus

from gitlab_backup.errors import ConfigurationError, UsageError
from gitlab_backup.operations.check import CHECKS, Level, Limits, check
from gitlab_backup.sizes import parse_size, readable_size
from gitlab_backup.store import BackupStore
from tests.operations.pruned_store import id_at, make_backup

if TYPE_CHECKING:
    from tests.support.installation import ThrowawayInstallation

    from .program import Program

PAGE = Path(__file__).parents[2] / "docs" / "how-to-check.md"
HOUR = 3600
SIZE = 5 << 20


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A backup path with a backup of an hour ago."""
    path = tmp_path / "backups"
    path.mkdir(mode=0o700)
    make_backup(path, id_at(int(time.time()) - HOUR), size=SIZE)
    return path


def leave_something(store: Path) -> None:
    """Let there be something to warn of."""
    (store / f".{id_at(5)}.partial").mkdir()


def test_lines(reader: Program, store: Path) -> None:
    """A line for every finding, what to do below it, and a sum; the status is that of the worst."""
    well = reader("check", "--backup-path", store)
    assert (0, "") == (well.status, well.err)
    *lines, last = well.out.splitlines()
    assert "no problem was found" == last
    assert all(line.startswith(("ok       ", "         advice: ")) for line in lines)
    leave_something(store)
    warned = reader("check", "--backup-path", store)
    assert (3, "1 warning") == (warned.status, warned.out.splitlines()[-1])
    assert "\nwarning  leftovers: " in warned.out
    assert "\n         to do: `gitlab-backup-cli prune --incomplete`" in warned.out
    bad = reader("check", "--backup-path", store, "--min-size", "10M")
    assert (1, "1 problem, 1 warning") == (bad.status, bad.out.splitlines()[-1])
    assert "\nproblem  newest backup: " in bad.out
    assert "5.0 MiB: less than 10.0 MiB" in bad.out


def test_document(reader: Program, store: Path) -> None:
    """The document has all findings, and what was measured."""
    document = reader("check", "--json", "--backup-path", store).document
    assert ["status", "backup_path", "newest", "age_seconds", "size_bytes", "free_bytes", "findings"] == list(document)
    assert ("ok", str(store), SIZE) == (document["status"], document["backup_path"], document["size_bytes"])
    assert (document["newest"],) == BackupStore(store).ids()
    assert 0 <= document["age_seconds"] - HOUR < 300
    assert all(["check", "level", "about", "message", "to_do"] == list(each) for each in document["findings"])
    assert set(CHECKS) == {each["check"] for each in document["findings"]}


def test_no_installation(bare: Program, store: Path) -> None:
    """It is a problem like any other, not a failure of the check; backups are looked at where their path is named."""
    alone = bare("check", "--json")
    assert (1, "problem", None) == (alone.status, alone.document["status"], alone.document["backup_path"])
    assert ["configuration"] == [each["check"] for each in alone.document["findings"]]
    named = bare("check", "--json", "--backup-path", store)
    assert (1, SIZE) == (named.status, named.document["size_bytes"])
    assert "backups" in {each["check"] for each in named.document["findings"]}


def test_limits_that_cannot_be_understood(bare: Program) -> None:
    """They are wrong usage, with a document where one is asked for."""
    for option, value in (("--max-age", "yesterday"), ("--min-size", "large")):
        result = bare("check", "--json", option, value)
        assert (2, "failed", []) == (result.status, result.document["status"], result.document["findings"])
        assert value in result.document["error"]["message"]


def test_plugin(reader: Program, store: Path) -> None:
    """One line with performance data, and the statuses 0, 1 and 2."""
    arguments = ("check", "--nagios", "--backup-path", store, "--max-age", "2h")
    line = r"{} - (.+) \| age=(\d+)s;;7200 size=%d%s free=(\d+)B problems={} warnings={}\n"
    well = reader(*arguments)
    assert (0, "") == (well.status, well.err)
    found = re.fullmatch(line.format("OK", 0, 0) % (SIZE, "B"), well.out)
    assert found is not None
    assert "is complete" in found[1]
    leave_something(store)
    warned = reader(*arguments)
    assert 1 == warned.status
    assert re.fullmatch(line.format("WARNING", 0, 1) % (SIZE, "B"), warned.out)
    bad = reader(*arguments, "--min-size", "1G")
    assert 2 == bad.status
    found = re.fullmatch(line.format("CRITICAL", 1, 1) % (SIZE, r"B;;1073741824:"), bad.out)
    assert found is not None
    assert found[1].startswith("1 problem, 1 warning: newest backup: ")
    assert "; leftovers: " in found[1]


@pytest.mark.parametrize("arguments", [("--max-age", "soon"), ("--min-size", "1X"), ("--json",)])
def test_plugin_that_cannot_do_its_work(bare: Program, arguments: tuple[str, ...]) -> None:
    """It knows nothing, and says so on standard output, where monitoring looks."""
    result = bare("check", "--nagios", *arguments)
    assert (3, "") == (result.status, result.err)
    assert re.fullmatch(r"UNKNOWN - [^\n]+\n", result.out)


def test_plugin_without_an_installation(bare: Program) -> None:
    """Whether backups are made cannot be known, which is critical; what is not measured is not in the data."""
    result = bare("check", "--nagios")
    assert 2 == result.status
    assert re.fullmatch(r"CRITICAL - 1 problem: configuration: [^\n|]+ \| problems=1 warnings=0\n", result.out)


@pytest.mark.parametrize(
    ("arguments", "status", "out"),
    [((), 143, ""), (("--nagios",), 3, "UNKNOWN - terminated\n")],
    ids=["lines", "plugin"],
)
def test_terminated(reader: Program, tmp_path: Path, arguments: tuple[str, ...], status: int, out: str) -> None:
    """A signal ends the check, and the program that it runs. A plugin has its line all the same: it took too long."""
    os.mkfifo(tmp_path / "started")
    script = tmp_path / "pg_dump"
    script.write_text(f"#!/bin/sh\necho > {tmp_path}/started\nexec tail -f /dev/null\n")
    script.chmod(0o755)
    slow = reader.having(PATH=f"{tmp_path}:{reader.environment['PATH']}")
    with slow.start("check", "--backup-path", tmp_path, *arguments) as process:
        (tmp_path / "started").read_text()
        process.terminate()
        assert (out, status) == (process.communicate()[0], process.returncode)


def test_a_name_cannot_forge_the_line() -> None:
    """What comes from outside has no line and no performance data of its own, and no control characters."""
    found = check(ConfigurationError("a | b=1\n  - OK\x1b[2J"))
    line, status = health.plugin(found, Limits())
    assert PluginStatus.CRITICAL == status
    assert r"CRITICAL - 1 problem: configuration: a / b=1 - OK\x1b[2J | problems=1 warnings=0" == line
    assert (r"UNKNOWN - a / b\x07", 3) == health.unknown("a |\nb\a")
    assert r"- OK\x1b[2J" in health.lines(found)
    assert Level.PROBLEM.value == health.document(found)["status"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1k", 1024), ("500M", 500 << 20), ("10GiB", 10 << 30), ("2TB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    """A size is a number with a unit of 1024, or without."""
    assert size == parse_size(text)


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "1X", "10 G", "1GG", "9" * 16, "\u0661"])
def test_what_is_no_size(text: str) -> None:
    """Everything else is wrong usage, and told with an example."""
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert "10G" in (caught.value.hint or "")


def test_a_size_can_be_read_again() -> None:
    """What is printed of a whole number of units is understood."""
    assert 3 << 30 == parse_size(readable_size(3 << 30).replace(".0 ", ""))


def test_the_page(installation: ThrowawayInstallation, program: Program) -> None:
    """Every command of the page finds nothing wrong with an installation that has a backup of today."""
    make_backup(installation.backup_path, id_at(int(time.time()) - HOUR), size=SIZE)
    installation.backup_path.chmod(0o700)
    commands = re.findall(r"^```shell\n(.*?)\n```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert 4 == len(commands)
    for command in commands:
        name, *arguments = shlex.split(command)
        result = program(*arguments)
        assert ("gitlab-backup-cli", 0, "") == (name, result.status, result.err), result.out
