"""How the help of a command looks: what it does, its options by what they are about, and at the end examples."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

# What options are about; those of the command itself have no such name.
REPOSITORIES: Final = "Repositories"
RETENTION: Final = "Which backups are kept"
REPORTS: Final = "Who is told"
INSTALLATION: Final = "Which installation"

_ORDER: Final = {"Arguments": 0, "Options": 1}
_NARROW: Final = 60
"""Columns of a screen on which the text of an option does not stand beside it, but below."""
_SMALLEST: Final = 20
_EXAMPLES: Final = "\n\n\b\nExample"


class Command(TyperCommand):
    """A command. The examples at the end of its docstring stand at the end of its help."""

    def __init__(self, name: str | None, *, help: str | None = None, **values: Any) -> None:  # noqa: A002 - typer's name
        text, found, examples = (help or "").partition(_EXAMPLES)
        values["epilog"] = f"{found}{examples}".strip("\n") or None
        super().__init__(name, help=text, **values)

    def get_help(self, ctx: Any) -> str:
        """Return the help, as wide as the screen."""
        _fit(ctx)
        return super().get_help(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands behind the name of the command: what must be given has no braces around it."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what can be given."""
        _write_parameters(self, ctx, formatter)


class Group(TyperGroup):
    """Several commands: the groups among them come first, as they are what the program is for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, in the order in which they are shown."""
        return sorted(super().list_commands(ctx), key=lambda name: not isinstance(self.commands[name], TyperGroup))

    def get_help(self, ctx: Any) -> str:
        """Return the help, as wide as the screen."""
        _fit(ctx)
        return super().get_help(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, and what can be given before them."""
        self.format_commands(ctx, formatter)
        _write_parameters(self, ctx, formatter)


def parameters(command: Any, ctx: Any) -> dict[str, list[Any]]:
    """Return the parameters of a command that are not hidden, by what they are about."""
    found: dict[str, list[Any]] = {}
    for parameter in command.get_params(ctx):
        if parameter.get_help_record(ctx) is not None:
            found.setdefault(_about(parameter), []).append(parameter)
    # What a command is given comes first, and what changes it next.
    return dict(sorted(found.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))))


def _about(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return "Arguments"
    return parameter.rich_help_panel or "Options"


def _fit(ctx: Any) -> None:
    columns = shutil.get_terminal_size().columns
    if columns < _NARROW:
        # Typer itself never makes it narrower than 50.
        ctx.terminal_width = max(columns - 2, _SMALLEST)


def _write_parameters(command: Any, ctx: Any, formatter: Any) -> None:
    for about, found in parameters(command, ctx).items():
        with formatter.section(about):
            formatter.write_dl(list(_rows(found, ctx)), col_max=4 if formatter.width < _NARROW - 2 else 26)


def _rows(found: list[Any], ctx: Any) -> Iterator[tuple[str, str]]:
    for parameter in found:
        name, text = parameter.get_help_record(ctx)
        # An argument is what its name says; a text, all of them are.
        yield (name.partition(" ")[0] if parameter.param_type_name == "argument" else name), text
