"""The commands and their parameters, as data."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from gitlab_backup_cli.app import app
from gitlab_backup_cli.help import parameters
from gitlab_backup_cli.settings import variables
from typer import Context
from typer.main import get_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAM: Final = "gitlab-backup-cli"
_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}


@frozen
class Parameter:
    """An option or an argument."""

    name: str
    """As it is typed: `-q, --quiet`, `--jobs N`."""
    text: str
    key: str | None = None
    """Its place in the file: `backup.all.jobs`."""
    variable: str | None = None


@frozen
class Command:
    """A command, or a group of commands."""

    path: tuple[str, ...]
    usage: str
    summary: str
    description: tuple[str, ...]
    """Paragraphs."""
    parameters: Mapping[str, tuple[Parameter, ...]]
    """By what they are about."""
    notes: tuple[str, ...]
    """Paragraphs that stand at the end."""
    examples: tuple[str, ...]
    """Lines."""
    commands: Mapping[str, str]
    """The names and summaries of the commands of a group."""

    @property
    def name(self) -> str:
        """What is typed for it."""
        return " ".join((PROGRAM, *self.path))


def read() -> tuple[Command, ...]:
    """Return all commands, the program first, each group before its commands."""
    return tuple(_read(get_command(app), Context(get_command(app), info_name=PROGRAM, **_SETTINGS), ()))


def _read(command: Any, context: Any, path: tuple[str, ...]) -> Iterator[Command]:
    known = variables(command, path)
    below = {name: command.get_command(context, name) for name in getattr(command, "list_commands", _none)(context)}
    summary, *description = _paragraphs(command.help)
    *notes, examples = _paragraphs(command.epilog)
    yield Command(
        path=path,
        usage=" ".join([" ".join((PROGRAM, *path)), *command.collect_usage_pieces(context)]),
        summary=summary,
        description=tuple(description),
        parameters={
            about: tuple(_parameter(each, context, known, path) for each in found)
            for about, found in parameters(command, context).items()
        },
        notes=tuple(notes),
        examples=tuple(line.strip() for line in examples.splitlines()[1:]),
        commands={name: _paragraphs(each.help)[0] for name, each in below.items()},
    )
    for name, each in below.items():
        yield from _read(each, Context(each, info_name=name, parent=context, **_SETTINGS), (*path, name))


def _none(_: object) -> list[str]:
    return []


def _parameter(parameter: Any, context: Any, known: Mapping[str, tuple[str, str]], path: tuple[str, ...]) -> Parameter:
    name, text = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        return Parameter(name.partition(" ")[0], text)
    key, variable = known.get(parameter.name, (None, None))
    return Parameter(name, text, ".".join((*path, key)) if key else None, variable)


def _paragraphs(text: str | None) -> list[str]:
    """Return the paragraphs of a text; those whose lines are to be kept have them."""
    found = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        kept = paragraph.startswith("\b\n")
        found.append(paragraph.removeprefix("\b\n") if kept else " ".join(paragraph.split()))
    return found
