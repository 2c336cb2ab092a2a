"""What the command says of itself, and what it makes of arguments that it does not know."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gitlab_backup.version import __version__

if TYPE_CHECKING:
    from .program import Program

COMMANDS = ("backup all", "restore all", "list", "status", "show", "verify", "check", "config show", "version")
INSTALLATION = ("--context", "--gitlab-path", "--gitlab-config", "--database-config", "--backup-path")


@pytest.mark.parametrize("arguments", [("version",), ("--version",), ("--debug", "version"), ("--debug", "--version")])
def test_version(bare: Program, arguments: tuple[str, ...]) -> None:
    """The version is printed alike, whichever way it is asked for."""
    result = bare(*arguments)
    assert (0, f"gitlab-backup-cli {__version__}\n", "") == (result.status, result.out, result.err)


def test_version_loads_nothing_heavy() -> None:
    """Monitoring asks for the version often, so nothing is imported that it does not need."""
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gitlab_backup_cli", "version"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in found.splitlines()}
    assert "gitlab_backup" in loaded
    assert not loaded & {"typer", "pydantic", "rich", "psycopg", "yaml", "zstandard", "isal", "cattrs"}


def test_installed_program() -> None:
    """The program of that name and the module are the same."""
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="gitlab-backup-cli")
    assert entry.value == "gitlab_backup_cli.__main__:main"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(bare: Program, command: str) -> None:
    """The help of every command has an example, and tells the options that can be given there."""
    result = bare(*command.split(), "--help")
    assert result.status == 0
    assert f"\n    gitlab-backup-cli {command}" in result.out
    expected = INSTALLATION if command != "version" else ()
    assert not [option for option in expected if option not in result.out]


def test_help_of_the_program(bare: Program) -> None:
    """The help of the program names its commands, and what its exit statuses mean."""
    result = bare("--help")
    assert result.status == 0
    assert not [command for command in COMMANDS if command.split()[0] not in result.out]
    assert "3 complete with warnings" in result.out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("", "a command is missing", ""),
        ("frobnicate", "there is no command frobnicate", ""),
        ("backup al", "there is no command al", "Do you mean all? "),
        ("backup all --frobnicate", "there is no option --frobnicate", ""),
        ("backup all --job 2", "there is no option --job", "Do you mean --jobs or --json? "),
        ("backup all --jobs many", "--jobs must be a whole number, not 'many'", ""),
        ("verify --jobs 0", "--jobs must be at least 1, not '0'", ""),
        ("verify --log-format xml", "--log-format must be text or json, not 'xml'", ""),
        ("show", "BACKUP_ID is missing", ""),
        ("show one two", "too much is given: two", ""),
        ("list --backup-path", "--backup-path needs a value", ""),
        ("verify latest --all", "name one backup, or give --all", "`gitlab-backup-cli list` prints the ids"),
    ],
)
def test_usage_error(bare: Program, arguments: str, message: str, hint: str) -> None:
    """What cannot be understood has status 2, an error that names it and a hint, and prints no result."""
    result = bare(*arguments.split())
    assert (2, "") == (result.status, result.out)
    error, told = result.err.splitlines()
    assert f"error: {message}" == error
    assert told.startswith(f"hint: {hint}")
    assert told.endswith((" --help`.", " of the backups."))


def test_usage_error_in_the_environment(bare: Program) -> None:
    """A value that a variable has is not looked for on the command line."""
    result = bare.having(GITLAB_BACKUP_CLI_VERIFY_JOBS="many")("verify", "latest")
    expected = "error: the environment variable GITLAB_BACKUP_CLI_VERIFY_JOBS must be a whole number, not 'many'"
    assert (2, expected) == (result.status, result.err.splitlines()[0])


def test_completion_is_available(bare: Program) -> None:
    """A shell can ask for completion."""
    complete = bare.having(
        _GITLAB_BACKUP_CLI_COMPLETE="complete_bash", COMP_WORDS="gitlab-backup-cli ver", COMP_CWORD="1"
    )
    assert sorted(complete().out.split()) == ["verify", "version"]


def test_no_installation(bare: Program) -> None:
    """Where there is no installation, the configuration cannot be used: status 7."""
    result = bare("config", "show")
    assert result.status == 7
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert "\nhint: " in result.err
