"""Fills in the pages of the documentation, as an extension of Sphinx.

Of what is between the fences of `{command} backup all`, its usage, options and examples are made; of `{variables}`, a
table of the variables of all options.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gitlab_backup_cli.help import INSTALLATION

from .command import PROGRAM, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sphinx.application import Sphinx

    from .command import Command, Parameter

COMMAND: Final = re.compile(r"^```\{command\} *(.*)\n```$", re.MULTILINE)
VARIABLES: Final = re.compile(r"^```\{variables\}\n```$", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, bool]:
    """Have pages filled in as they are read."""
    app.connect("source-read", _read_page)
    return {"parallel_read_safe": True}


def filled(text: str) -> str:
    """Return a page with what is to be made of the command. Raises `KeyError` for a command that does not exist."""
    if not (COMMAND.search(text) or VARIABLES.search(text)):
        return text
    commands = {each.name: each for each in read()}
    text = COMMAND.sub(lambda found: "\n".join(_command(commands[f"{PROGRAM} {found[1]}".strip()])), text)
    return VARIABLES.sub(lambda _: "\n".join(_variables(commands.values())), text)


def _read_page(_app: Sphinx, _name: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def _command(command: Command) -> Iterator[str]:
    yield f"```{{program}} {command.name}\n```\n"
    yield f"```text\n{command.usage}\n```\n"
    for paragraph in (command.summary, *command.description):
        yield f"{paragraph}\n"
    for about, parameters in command.parameters.items():
        if about not in {"Arguments", "Options"}:
            yield f"**{about}**\n"
        if about == INSTALLATION and command.path:
            names = ", ".join(f"`{each.name.split()[0]}`" for each in parameters)
            yield f"{names}: as [before the command](#which-installation).\n"
        else:
            for each in parameters:
                yield from _option(each)
    yield "```text\n{}\n```\n".format("\n".join(command.examples))


def _option(parameter: Parameter) -> Iterator[str]:
    yield f"````{{option}} {parameter.name}"
    yield parameter.text.replace("<", "\\<")
    if parameter.key and parameter.variable:
        yield f"\n`{parameter.key}` in the file, `{parameter.variable}` in the environment"
    yield "````\n"


def _variables(commands: Iterable[Command]) -> Iterator[str]:
    yield "| variable | option | key in the file |"
    yield "|---|---|---|"
    for command in commands:
        for parameters in command.parameters.values():
            for each in parameters:
                if each.key and each.variable:
                    (name,) = [word for word in each.name.split() if word.startswith("--")]
                    yield f"| `{each.variable}` | `{' '.join((*command.path, name))}` | `{each.key}` |"
