"""The manual pages, in the language of man(7)."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from gitlab_backup_cli.help import INSTALLATION
from gitlab_backup_cli.settings import FILE

from gitlab_backup.version import __version__

from .command import PROGRAM, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .command import Command, Parameter


def pages() -> dict[str, str]:
    """Return all manual pages, by the names of their files."""
    commands = read()
    names = [_name(each) for each in commands]
    return {f"{_name(each)}.1": "\n".join(_page(each, names)) + "\n" for each in commands}


def _name(command: Command) -> str:
    return "-".join((PROGRAM, *command.path))


def _page(command: Command, names: Iterable[str]) -> Iterator[str]:
    name = _name(command)
    yield '.\\" Made from the command by `python -m reference`: do not edit it.'
    yield f'.TH {name.upper()} 1 "" "{PROGRAM} {__version__}"'
    # Names that are to be copied must be whole.
    yield ".nh\n.ad l"
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(_clause(command.summary))}"
    yield ".SH SYNOPSIS"
    yield f"\\fB{_escaped(command.name)}\\fP {_escaped(command.usage.removeprefix(command.name).strip())}"
    if command.description:
        yield ".SH DESCRIPTION"
        yield from _paragraphs(command.description)
    if command.commands:
        yield ".SH COMMANDS"
        for each, summary in command.commands.items():
            yield ".TP"
            yield f"\\fB{_text(each)}\\fP"
            yield _text(summary)
    yield ".SH OPTIONS"
    for about, parameters in command.parameters.items():
        yield from _options(about, parameters, whole=not command.path or about != INSTALLATION)
    yield from _configuration(command)
    if not command.path:
        yield ".SH NOTES"
        yield from _paragraphs(paragraph.replace("\n", " ") for paragraph in command.notes)
    yield ".SH EXAMPLES"
    yield ".EX"
    yield from map(_escaped, command.examples)
    yield ".EE"
    yield ".SH SEE ALSO"
    others = [each for each in names if each != name]
    related = others if not command.path else [PROGRAM]
    yield ",\n".join(f"\\%\\fB{_escaped(each)}\\fP(1)" for each in related)


def _options(about: str, parameters: Iterable[Parameter], *, whole: bool) -> Iterator[str]:
    if about not in {"Arguments", "Options"}:
        yield f".SS {about}"
    if not whole:
        yield f"These options can be given here, too; {_text(PROGRAM)}(1) describes them:"
        yield ",\n".join(_name_of(each) for each in parameters) + "."
        return
    for each in parameters:
        yield ".TP"
        yield _name_of(each)
        yield _text(each.text)


def _name_of(parameter: Parameter) -> str:
    """Return what is typed as it is in bold, and what it stands for as it is."""
    return re.sub(r"(?<![\w<])(-[\w-]+)", lambda word: f"\\fB{_escaped(word[1])}\\fP", parameter.name)


def _configuration(command: Command) -> Iterator[str]:
    given = [each for found in command.parameters.values() for each in found if each.key and each.variable]
    if not given:
        return
    # One whose name shows what becomes of a hyphen, where there is one.
    example = max(given, key=lambda each: "_" in (each.key or "").rpartition(".")[2])
    section = ".".join(command.path)
    yield ".SH CONFIGURATION AND ENVIRONMENT"
    where = f"in the section [{section}] of {FILE}" if section else f"at the top of {FILE}"
    yield _text(
        f"What has a value or is a switch can also be {where}, and in a variable of the environment, which wins over "
        f"the file. {example.name.split()[0]} is {(example.key or '').rpartition('.')[2]} there, "
        f"and {example.variable} in the environment; the others are named likewise."
    )


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield _text(text)


def _clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _text(text: str) -> str:
    """Return a paragraph, code in it in bold."""
    marked = re.sub(r"`([^`]+)`", r"\\fB\1\\fP", _escaped(text))
    lines = textwrap.wrap(marked, 78, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def _escaped(text: str) -> str:
    """Return text in which a hyphen is one that can be copied, and a backslash is one."""
    return text.replace("\\", "\\e").replace("-", "\\-")
