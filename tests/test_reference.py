"""The reference: what is made from the command is there, and what is written by hand leaves nothing out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import gitlab_backup
from reference.command import PROGRAM, read
from reference.pages import COMMAND, filled

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOT_READ = {
    "GITLAB_BACKUP_CLI",  # the beginning of all variables of options
    "PGCONNECT_TIMEOUT",  # given to programs, as are the next
    "LC_ALL",
    "DEFAULT_MAP",  # a word of typer
}
"""What is written like a variable of the environment in a module that reads some, and is none that it reads."""


def test_every_command_is_there() -> None:
    """The page of the command has each command and each of its options, in a form that Sphinx takes."""
    text = (DOCS / "cli.md").read_text()
    found = [found[1] for found in COMMAND.finditer(text)]
    commands = {" ".join(each.path): each for each in read() if not each.commands or not each.path}
    assert sorted(commands) == sorted(found)
    page = filled(text)
    for each in commands["backup all"].parameters["Repositories"]:
        assert f"````{{option}} {each.name}\n" in page
        assert f"`{each.key}` in the file, `{each.variable}` in the environment" in page
    assert "```{command}" not in page


def test_every_option_has_its_variable_on_the_page() -> None:
    """The page of the environment has the variable of each option, and the key that means the same."""
    page = filled((DOCS / "environment.md").read_text())
    options = [each for command in read() for found in command.parameters.values() for each in found if each.key]
    assert len(options) > 100
    assert [] == [each for each in options if f"| `{each.variable}` |" not in page or f"| `{each.key}` |" not in page]


def test_every_variable_that_is_read() -> None:
    """What modules that read the environment write like a variable is on its page."""
    page = (DOCS / "environment.md").read_text()
    told = set(re.findall(r"[A-Z_]+", page))
    read = set()
    for module in [*(ROOT / "gitlab_backup").rglob("*.py"), *(ROOT / "cli" / PROGRAM.replace("-", "_")).rglob("*.py")]:
        text = module.read_text()
        if re.search(r"\benviron\b", text):
            constants = (each.value for each in ast.walk(ast.parse(text)) if isinstance(each, ast.Constant))
            read |= {
                value for value in constants if isinstance(value, str) and re.fullmatch(r"[A-Z]+(_[A-Z]+)+", value)
            }
    assert "GITLAB_BACKUP_DEBUG" in read
    assert set() == read - told - NOT_READ


def test_every_public_name() -> None:
    """The page of the library has every name that the library offers."""
    page = (DOCS / "library.md").read_text()
    assert [] == [name for name in gitlab_backup.__all__ if f"gitlab_backup.{name}" not in page]


def test_every_component_in_the_help() -> None:
    """The help of `backup all` names every component, so that nobody has to guess."""
    (command,) = [each for each in read() if each.path == ("backup", "all")]
    text = " ".join([*command.description, *(each.text for found in command.parameters.values() for each in found)])
    assert [] == [each.id for each in gitlab_backup.COMPONENTS if not re.search(rf"\b{each.id}\b", text)]


def test_every_help_is_ascii() -> None:
    """A help is read on every terminal; one that has ASCII alone would show escapes."""
    for command in read():
        found = [each for parameters in command.parameters.values() for each in parameters]
        texts = [command.summary, *command.description, *command.notes, *command.examples, *map(str, found)]
        assert [] == [text for text in texts if not text.isascii()]


def test_every_summary_fits() -> None:
    """In lists of commands, at 80 columns and as the shells show them, no summary is cut off."""
    assert [] == [each.name for each in read() if each.path and len(each.summary) > 45]


def test_every_example_fits() -> None:
    """An example can be read and copied at 80 columns. Each begins with the command that it is of."""
    for command in read():
        assert command.examples
        for example in command.examples:
            assert len(example) <= 76, example
            assert example.startswith(command.name)
